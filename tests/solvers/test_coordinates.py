"""Coordinate descent and the active set against the other methods, scikit-learn, and degenerate dictionaries."""

import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.sparse import csr_matrix
from sklearn.linear_model import Lasso

from proxsae import solve
from proxsae.regularizers import (
    CEL0,
    L0,
    L1,
    MCP,
    SCAD,
    AsymmetricL0,
    Box,
    CappedL1,
    Cardinality,
    Huber,
    LogSum,
    Lq,
    NonNegative,
    SquaredL2,
    Tilt,
    Translated,
)
from proxsae.solvers import active_set, prepared
from proxsae.solvers.methods import method_for

CONVEX = [
    0.1 * L1(),
    np.linspace(0.05, 0.3, 20) * L1(),
    0.1 * L1() + NonNegative(),
    0.1 * L1() + 0.2 * SquaredL2(),
    0.1 * L1() + Box(-0.2, 0.3),
    0.1 * Huber(0.05),
    0.1 * L1() + Tilt(0.05),
    NonNegative() + 0.1 * SquaredL2(),
]
RESTING = [R for R in CONVEX if not any(isinstance(term, Tilt) for term in R.terms)]
NONCONVEX = [0.1 * L0(), 0.1 * MCP(0.5), 0.1 * SCAD(3.7, 0.1), 0.1 * CappedL1(0.3), CEL0(1.0, 0.02)]
NONCONVEX += [0.05 * Lq(0.5), 0.05 * LogSum(0.1), 0.1 * L0() + NonNegative(), 0.1 * L0() + 0.2 * SquaredL2()]


def data(n=6, d=9, p=20, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d)) + 0.5
    return rng.standard_normal((n, d)).astype(dtype), (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("R", CONVEX, ids=str)
def test_coordinate_descent_reaches_the_optimum(R):
    X, D = data()
    best = solve(X, D, R, method="fista", tol=1e-10, max_iter=50_000)
    s = solve(X, D, R, method="cd", tol=1e-10, max_iter=20_000)
    assert s.converged.all()
    assert s.certificate_kind == "duality gap"
    np.testing.assert_allclose(s.objective, best.objective, rtol=1e-8)


@pytest.mark.parametrize("R", RESTING, ids=str)
def test_the_active_set_is_exact_in_a_few_steps(R):
    X, D = data()
    best = solve(X, D, R, method="fista", tol=1e-10, max_iter=50_000)
    s = solve(X, D, R, method="active_set", tol=1e-10, max_iter=100)
    assert s.converged.all()
    assert np.all(s.certificate <= 1e-10 * np.maximum(0.5 * (X**2).sum(1), 0.5 * ((s.codes @ D) ** 2).sum(1)))
    np.testing.assert_allclose(s.objective, best.objective, rtol=1e-8)


@pytest.mark.parametrize("method", ["cd", "active_set"])
def test_scikit_learn_agrees(method):
    X, D = data(n=4, d=30, p=50)
    s = solve(X, D, 0.2 * L1(), method=method, tol=1e-12)
    lasso = Lasso(alpha=0.2 / 30, fit_intercept=False, tol=1e-12, max_iter=100_000)
    codes = np.stack([lasso.fit(D.T, x).coef_ for x in X])
    np.testing.assert_allclose(s.codes, codes, atol=1e-6)


@pytest.mark.parametrize("method", ["cd", "active_set"])
@pytest.mark.parametrize("R", NONCONVEX, ids=str)
def test_no_change_of_one_coordinate_is_better(R, method):
    X, D = data()
    s = solve(X, D, R, method=method, tol=1e-9, max_iter=20_000)
    assert s.certificate_kind == "coordinate-wise residual"
    assert s.converged.all()
    moves = [*np.linspace(-0.2, 0.2, 21), *np.linspace(-2, 2, 21)]
    for i, z in enumerate(s.codes):
        for j in range(20):
            others = np.array([np.where(np.arange(20) == j, v, z) for v in (0.0, *(z[j] + np.array(moves)))])
            F = 0.5 * ((X[i] - others @ D) ** 2).sum(1) + R.value(others)
            assert F.min() >= s.objective[i] - 1e-9


@pytest.mark.parametrize(
    "R",
    [
        Translated(0.1 * L0(), 0.3),
        Translated(0.1 * L0(), -0.3),
        Translated(AsymmetricL0(0.05, 0.2), 0.3),
        0.05 * MCP(1.0),
        0.2 * CappedL1(1.0),
        0.01 * L0() + Tilt(-0.3) + Box(0.0, 1.0),
        Tilt(-0.3) + Box(0.0, 1.0),
        Translated(0.1 * L1(), 0.5) + NonNegative(),
    ],
    ids=str,
)
def test_coordinate_descent_settles_where_more_atoms_are_in_use_than_are_independent(R):
    for number in range(12):
        rng = np.random.default_rng(number)
        X, D = rng.standard_normal((12, 8)), rng.standard_normal((14, 8))
        s = solve(X, D / np.linalg.norm(D, axis=1, keepdims=True), R, method="cd")
        assert s.converged.all()
        assert (s.objective <= 0.5 * (X**2).sum(1) + R.value(np.zeros((1, 14)))).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_step_of_the_active_set_ends_at_the_non_negative_least_squares_of_correlated_atoms(dtype):
    rng = np.random.default_rng(0)
    D, X = (np.cumsum(rng.standard_normal((n, 40)), axis=1).astype(dtype) for n in (80, 5))
    s = solve(X, D, "NonNegative", method="active_set", max_iter=1)
    best = np.array([0.5 * nnls(D.T.astype(np.float64), x)[1] ** 2 for x in X])
    assert s.converged.all()
    assert (s.objective - best <= 1e-9 * (X**2).sum(1)).all()


@seed(0)
@settings(max_examples=40, deadline=None, database=None)
@given(
    st.sampled_from(["cd", "active_set"]),
    st.sampled_from([0.1 * L1(), 0.1 * L1() + NonNegative(), 0.1 * L1() + 0.1 * SquaredL2()]),
    st.integers(0, 10**6),
    st.sampled_from(["duplicates", "zero", "collinear", "scales", "wide"]),
)
def test_degenerate_dictionaries(method, R, number, kind):
    rng = np.random.default_rng(number)
    D = rng.standard_normal((12, 5))
    D = {
        "duplicates": np.concatenate([D, D, -D[:3]]),
        "zero": np.concatenate([D, np.zeros((2, 5))]),
        "collinear": np.concatenate([D, D[:6] + 1e-9 * rng.standard_normal((6, 5))]),
        "scales": D * 10.0 ** rng.uniform(-3, 3, (12, 1)),
        "wide": rng.standard_normal((60, 5)),
    }[kind]
    X = rng.standard_normal((4, 5))
    s = solve(X, D, R, method=method, tol=1e-6, max_iter=20_000)
    assert np.isfinite(s.codes).all()
    assert s.converged.all()
    best = solve(X, D, R, method="fista", tol=1e-5, max_iter=200_000)
    assert np.all(s.objective <= best.objective + 2e-6 * (X**2).sum(1))


@pytest.mark.parametrize(
    "R", [0.01 * L1(), 0.01 * L0(), 0.01 * L1() + 0.01 * SquaredL2(), 0.01 * L1() + Box(-9.0, 9.0)], ids=str
)
@pytest.mark.parametrize("method", ["cd", "active_set"])
def test_zero_atoms_stay_out_where_all_others_are_in(R, method):
    X, D = data(p=8)
    padded = np.concatenate([D, np.zeros((3, 9))])
    alone, s = (solve(X, atoms, R, method=method, tol=1e-10) for atoms in (D, padded))
    assert (alone.codes != 0).any(0).all()
    assert s.converged.all()
    np.testing.assert_allclose(s.codes, np.pad(alone.codes, ((0, 0), (0, 3))), atol=1e-9)
    np.testing.assert_allclose(s.objective, alone.objective, rtol=1e-12)
    again = solve(X, padded, R, method=method, init=s.codes, tol=1e-10)
    np.testing.assert_allclose(again.objective, s.objective, rtol=1e-12)


@pytest.mark.parametrize("R", [0.1 * MCP(2.0), 0.1 * L0(), np.array([0.0, 0.3]) * L1()], ids=str)
@pytest.mark.parametrize("method", ["cd", "active_set"])
def test_where_all_atoms_are_zero_codes_are_the_minimiser_of_R(R, method):
    s = solve(np.zeros((1, 2)), np.zeros((2, 2)), R, method=method, init=np.ones((1, 2)))
    assert s.objective == 0
    assert s.converged


@pytest.mark.parametrize(
    "R", [0.1 * Huber(1.0), SquaredL2(), Box(-1.0, 1.0), np.array([1.0, 1.0, 0.0]) * MCP(2.0)], ids=str
)
@pytest.mark.parametrize("method", ["cd", "active_set"])
def test_a_code_of_zero_may_have_no_correlation_and_no_kink(R, method):
    D = np.array([[1.0, 0.5, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0]])
    X = np.array([[1.0, 2.0, 0.0]])
    s = solve(X, D, R, method=method)
    assert s.converged
    alone = solve(X[:, :2], D[:2, :2], R if R.width is None else MCP(2.0))
    np.testing.assert_allclose(s.objective, alone.objective, rtol=1e-6)


@pytest.mark.parametrize("R", [0.1 * L0(), 0.1 * MCP(0.5), 0.05 * Lq(0.5)], ids=str)
def test_what_has_most_to_gain_enters_first(R):
    X, D = data(n=50, d=20, p=200)
    few, all_in_turn = (solve(X, D, R, method=method).objective for method in ("active_set", "cd"))
    assert few.mean() < all_in_turn.mean()


def test_what_auto_takes():
    X, D = data()
    regularizers = (0.1 * L1(), 0.1 * MCP(0.5), 0.1 * L1() + Tilt(0.5) + Box(-1.0, 1.0), Cardinality(3))
    took = {str(R): solve(X, D, R, max_iter=20_000).method for R in regularizers}
    assert took == {
        "0.1*L1()": "active_set",
        "0.1*MCP(0.5)": "active_set",
        "0.1*L1() + Box(-1.0, 1.0) + Tilt(0.5)": "fista",
        "Cardinality(3)": "swap",
    }
    elsewhere = torch.empty(D.shape, dtype=torch.float64, device="meta")
    assert {str(R): method_for(R, elsewhere) for R in regularizers} == took
    assert {str(R): method_for(R, D.astype(np.float32)) for R in regularizers} == took
    many = np.broadcast_to(np.zeros(5), (20_001, 5))
    assert [method_for(R, many) for R in (L1(), L0(), Cardinality(3))] == ["active_set", "active_set", "swap"]


def test_without_a_gram_matrix_codes_are_the_same(monkeypatch):
    kept = []
    monkeypatch.setattr(prepared, "gram_of", lambda atoms: kept.append(len(atoms)) or atoms @ atoms.T)
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((300, 20)), rng.standard_normal((60, 20))
    whole, none = (solve(X, D, 0.5 * L1(), gram_limit=limit) for limit in (60, 59))
    assert whole.method == none.method == "active_set"
    assert kept == [60]
    np.testing.assert_allclose(whole.codes, none.codes, atol=1e-9)


def test_minima_do_not_depend_on_the_number_of_samples():
    rng = np.random.default_rng(0)
    D, X = rng.standard_normal((256, 32)), rng.standard_normal((400, 32))
    D, X = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (D, X))
    few, many = (solve(X[:n], D, 0.003 * L0(), method="active_set") for n in (9, 400))
    np.testing.assert_allclose(few.codes, many.codes[:9], atol=1e-9)  # few samples have no Gram matrix


def test_of_many_minima_those_found_by_few_zeros_at_once_are_lower(monkeypatch):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((200, 12)) @ rng.standard_normal((12, 40)) + rng.standard_normal((200, 40))
    D = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    X = rng.standard_normal((300, 6)) @ D[:6] + 0.1 * rng.standard_normal((300, 40))

    def mean_of(watched):
        monkeypatch.setattr(active_set, "FEWER_WATCHED", watched)
        return solve(X, D, 0.02 * L0(), method="active_set").objective.mean()

    assert mean_of(active_set.FEWER_WATCHED) < mean_of(2 * active_set.FEWER_WATCHED)


def test_parameters_may_be_tensors():
    X, D = data()
    weights = np.linspace(0.1, 0.3, 20)
    for R in (L1(), L0(), L1() + Cardinality(3)):
        s = solve(torch.from_numpy(X), torch.from_numpy(D), torch.from_numpy(weights) * R)
        np.testing.assert_array_equal(s.codes.numpy(), solve(X, D, weights * R).codes)


def test_refusals_and_sparse_codes():
    X, D = data()
    with pytest.raises(
        ValueError, match="'cd' needs a separable regularizer, or one of the norms of groups, and Cardinality"
    ):
        solve(X, D, Cardinality(3), method="cd")
    with pytest.raises(ValueError, match="'active_set' needs an R that is least at 0"):
        solve(X, D, 0.1 * L0() + Tilt(0.5), method="active_set")
    s = solve(X, D, 0.3 * L1(), sparse_output=True)
    assert isinstance(s.codes, csr_matrix)
    np.testing.assert_array_equal(s.codes.toarray(), solve(X, D, 0.3 * L1()).codes)


@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * L1() + NonNegative()], ids=str)
def test_dependent_atoms_in_float32_do_not_run_away(R):
    for number in range(30):
        rng = np.random.default_rng(number)
        X, D = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((9, 3)).astype(np.float32)
        s = solve(X, D, R, method="active_set", tol=1e-4)
        best = solve(X.astype(np.float64), D.astype(np.float64), R, method="fista", tol=1e-6, max_iter=20_000)
        assert s.converged.all()
        assert np.all(s.objective <= best.objective + 1e-4 * (X**2).sum(1))
        assert abs(s.codes).max() < 1e3
