"""Descent by groups against the other methods, a convex solver, single groups by brute force, and odd dictionaries."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from proxsae import solve
from proxsae.regularizers import (
    L1,
    MCP,
    SCAD,
    Cardinality,
    GroupL2,
    Huber,
    L2Ball,
    LInfBall,
    LogSum,
    NonNegative,
    OfNorms,
    SquaredL2,
    Tilt,
)
from proxsae.solvers.methods import method_for

LABELS = np.array([0, 1, 0, 2, 2, 2, 2, 5, 1, 5, 6, 6, 7, 7, 7, 7, 7, 8, 8, 0])  # of 20; 3 and 4 are empty
CONVEX = [
    0.1 * GroupL2(4),
    0.1 * GroupL2(LABELS),
    0.1 * GroupL2(4, group_weights=[0.0, 1.0, 2.0, 0.5, 1.0]) + 0.1 * SquaredL2(),
    0.05 * GroupL2(5) + 0.1 * L1(),
    0.1 * GroupL2(4) + NonNegative(),
    0.1 * GroupL2(LABELS) + np.linspace(0.01, 0.2, 20) * L1() + 0.2 * SquaredL2() + Tilt(np.linspace(-0.1, 0.1, 20)),
    OfNorms(0.1 * L1() + 0.3 * SquaredL2(), 4),
    0.2 * OfNorms(Huber(0.1), 4),
    OfNorms(LInfBall(0.3), 4),
]
NONCONVEX = [0.1 * OfNorms(MCP(1.5), 4), 0.1 * OfNorms(SCAD(3.7, 0.1), LABELS), 0.05 * OfNorms(LogSum(0.1), 4)]
NONCONVEX += [0.1 * OfNorms(MCP(1.5), 4) + 0.02 * L1(), 0.1 * OfNorms(MCP(3.0), 4) + NonNegative()]


def data(n=6, d=9, p=20, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d)) + 0.5
    return rng.standard_normal((n, d)).astype(dtype), (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("R", CONVEX, ids=str)
def test_the_optimum_is_reached(R):
    X, D = data()
    best = solve(X, D, R, method="fista", tol=1e-9, max_iter=100_000)
    s = solve(X, D, R, method="cd", tol=1e-9, max_iter=20_000)
    assert s.converged.all()
    assert s.certificate_kind == best.certificate_kind
    np.testing.assert_allclose(s.objective, best.objective, rtol=1e-7)


def test_a_convex_solver_agrees():
    X, D = data(n=3)
    s = solve(X, D, 0.1 * GroupL2(4) + 0.05 * L1(), method="cd", tol=1e-10, max_iter=20_000)
    for x, objective in zip(X, s.objective, strict=True):
        z = cp.Variable(20)
        penalty = 0.1 * 2 * sum(cp.norm2(z[4 * g : 4 * g + 4]) for g in range(5)) + 0.05 * cp.norm1(z)
        value = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - z @ D) + penalty)).solve(solver="CLARABEL")
        assert objective == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("R", NONCONVEX, ids=str)
def test_small_moves_of_one_group_are_no_better(R):
    X, D = data()
    s = solve(X, D, R, method="cd", tol=1e-10, max_iter=20_000)
    assert s.certificate_kind == "fixed-point residual"
    assert s.converged.all()
    assert (s.objective <= 0.5 * (X**2).sum(1) + 1e-12).all()  # that of no code, where it starts
    core = getattr(R, "core", R)
    labels = core.units(20).labels.numbers
    rng = np.random.default_rng(1)
    for i, z in enumerate(s.codes):
        for g in np.unique(labels):
            step = rng.standard_normal((200, 20)) * 10.0 ** rng.uniform(-6, -2, (200, 1))
            others = np.concatenate([z + step * (labels == g), (z * (labels != g))[None] if not z.any() else z[None]])
            others = np.maximum(others, 0) if R.is_nonnegative else others
            F = 0.5 * ((X[i] - others @ D) ** 2).sum(1) + R.value(others)
            assert F.min() >= s.objective[i] - 1e-9


def test_single_coordinates_as_groups():
    X, D = data()
    for r in (0.1 * L1(), 0.1 * L1() + 0.3 * SquaredL2()):
        grouped = solve(X, D, OfNorms(r, 1), method="cd", tol=1e-9)
        single = solve(X, D, r, method="cd", tol=1e-9)
        np.testing.assert_allclose(grouped.codes, single.codes, atol=1e-4)
        np.testing.assert_allclose(grouped.objective, single.objective, rtol=1e-8)


@seed(0)
@settings(max_examples=25, deadline=None, database=None)
@given(
    st.sampled_from([0.1 * GroupL2(4), 0.1 * GroupL2(LABELS) + 0.05 * L1(), 0.1 * GroupL2(4) + NonNegative()]),
    st.integers(0, 10**6),
    st.sampled_from(["duplicates", "zero", "collinear", "scales"]),
    st.sampled_from([np.float32, np.float64]),
)
def test_odd_dictionaries(R, number, kind, dtype):
    X, D = data(seed=number)
    if kind == "duplicates":
        D[10:] = D[:10]
    elif kind == "zero":
        D[::3] = 0.0
        D[4:8] = 0.0
    elif kind == "collinear":
        D[1::2] = D[::2] * np.linspace(0.5, 2, 10)[:, None]
    else:
        D *= np.logspace(-3, 3, 20)[:, None]
    X, D = X.astype(dtype), D.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of atoms of length 1e-3 to 1e3
        s = solve(X, D, R, method="cd", max_iter=100 if kind == "scales" else 2000)
    assert np.isfinite(s.codes).all()
    double = [a.astype(np.float64) for a in (X, D, s.codes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        again = solve(*double[:2], R, method="fista", init=double[2], max_iter=0, tol=1e-6)
    met = s.certificate <= 1e-4 * np.maximum(0.5 * (double[0] ** 2).sum(1), 0.5 * ((double[2] @ double[1]) ** 2).sum(1))
    if kind != "scales":
        assert met.all()
    np.testing.assert_allclose(again.objective, s.objective, rtol=1e-5, atol=1e-7)


def test_what_auto_takes():
    _, D = data()
    for R in [*CONVEX[:2], *CONVEX[3:5], CONVEX[6], *NONCONVEX]:
        assert method_for(R, D) == "cd"
        assert method_for(R, D, gram_limit=len(D) - 1) == ("fista" if R.is_convex else "ista")
    for R in (CONVEX[2], CONVEX[7], CONVEX[8], L2Ball(1.0)):  # these leave small groups nonzero
        assert method_for(R, D) == "fista"
    assert method_for(0.1 * GroupL2(), D) == "fista"  # one group: a sweep is a step


def test_warm_starts_tensors_and_csr():
    X, D = data()
    R = 0.1 * GroupL2(4)
    s = solve(X, D, R, tol=1e-9)
    again = solve(X, D, R, tol=1e-9, init=s.codes, sparse_output=True)
    assert again.n_iter.max() <= 2
    np.testing.assert_allclose(again.codes.toarray(), s.codes, atol=1e-6)
    tensors = solve(torch.from_numpy(X), torch.from_numpy(D), R, tol=1e-9)
    np.testing.assert_array_equal(tensors.codes.numpy(), s.codes)


def test_what_it_cannot_descend():
    X, D = data()
    with pytest.raises(ValueError, match="needs a separable regularizer, or one of the norms of groups"):
        solve(X, D, "0.1*LInf", method="cd")
    with pytest.raises(ValueError, match=r"or one of the norms of groups, and Cardinality\(3\)"):
        solve(X, D, Cardinality(3), method="cd")
