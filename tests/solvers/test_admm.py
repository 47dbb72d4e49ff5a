"""Sums of regularizers without a joint prox, against an interior-point solver."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from proxsae import solve
from proxsae.regularizers import L0, L1, Box, GroupL2, LInf, Simplex, SquaredL2


def data(n=4, d=7, p=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((p, d))


SUMS = {
    "LInf and L1": ([0.5 * LInf(), 0.1 * L1()], lambda z: 0.5 * cp.norm_inf(z) + 0.1 * cp.norm1(z), []),
    "Simplex and Box": ([Simplex(), Box(0.0, 0.3)], lambda z: 0,
        [lambda z: cp.sum(z) == 1, lambda z: z >= 0, lambda z: z <= 0.3]),
    "groups and Box": (
        [0.3 * GroupL2(4), Box(-0.2, 0.3)],
        lambda z: 0.6 * sum(cp.norm2(z[i : i + 4]) for i in (0, 4, 8)),
        [lambda z: z <= 0.3, lambda z: z >= -0.2],
    ),
    "three": (
        ["0.2*L1", 0.1 * LInf(), 0.1 * SquaredL2()],
        lambda z: 0.2 * cp.norm1(z) + 0.1 * cp.norm_inf(z) + 0.05 * cp.sum_squares(z),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
def test_clarabel_agrees(name):
    terms, penalty, constraints = SUMS[name]
    X, D = data()
    s = solve(X, D, terms, tol=1e-8, max_iter=20_000)
    assert s.method == "admm"
    assert s.certificate_kind == "consensus residual"
    assert s.converged.all()
    for x, code, objective in zip(X, s.codes, s.objective, strict=True):
        z = cp.Variable(12)
        cost = 0.5 * cp.sum_squares(x - z @ D) + penalty(z)
        best = cp.Problem(cp.Minimize(cost), [holds(z) for holds in constraints]).solve(solver="CLARABEL")
        assert objective == pytest.approx(best, abs=1e-5)
        np.testing.assert_allclose(D.T @ code, z.value @ D, atol=1e-3)
    tensors = solve(torch.from_numpy(X), torch.from_numpy(D), terms, tol=1e-8, max_iter=20_000)
    np.testing.assert_array_equal(tensors.codes.numpy(), s.codes)


def test_terms_that_have_a_joint_prox_and_degenerate_dictionaries():
    X, D = data()
    for atoms in (D, np.concatenate([D, D, 0 * D]), 0 * D, D[:1]):
        for dtype in (np.float64, np.float32):
            x, d = X.astype(dtype), atoms.astype(dtype)
            s = solve(x, d, [0.3 * L1(), "NonNegative"], max_iter=20_000)
            joint = solve(x, d, "0.3*L1 + NonNegative", tol=1e-6, max_iter=20_000)
            assert s.converged.all()
            assert s.codes.dtype == dtype
            np.testing.assert_allclose(s.objective, joint.objective, rtol=1e-4)
    again = solve(X, D, [0.3 * L1(), "NonNegative"], init=np.full((4, 12), 0.1), max_iter=20_000)
    assert again.converged.all()


def test_refusals_are_one_sentence():
    X, D = data()
    with pytest.raises(ValueError, match=r"'admm' needs convex regularizers, and L0\(\) is not convex"):
        solve(X, D, [L0(), L1()])
    with pytest.raises(ValueError, match=r"'admm' needs a list of regularizers, and .* is one"):
        solve(X, D, L1(), method="admm")
    with pytest.raises(ValueError, match=r"'fista' takes one regularizer, and R is a list; use .admm."):
        solve(X, D, [L1(), LInf()], method="fista")
    with pytest.raises(ValueError, match="two or more, got 1"):
        solve(X, D, [L1()])
    with pytest.raises(ValueError, match="'admm' takes no step"):
        solve(X, D, [L1(), LInf()], step=0.1)


@pytest.mark.parametrize(
    ("x", "terms", "init", "best"),
    [
        ([[0.0, 0.0]], [Simplex(), 0.5 * LInf()], None, [[0.5, 0.5]]),
        ([[0.0, 0.0]], [Box(0.1, 0.2), 0.01 * L1()], None, [[0.1, 0.1]]),
        ([[2.0, 2.0]], [0.5 * L1(), 0.5 * LInf()], [[2.0, 2.0]], [[1.25, 1.25]]),
    ],
)
def test_a_start_without_slope_is_not_certified(x, terms, init, best):
    with pytest.warns(ConvergenceWarning):
        assert not solve(x, np.eye(2), terms, init=init, max_iter=0).converged.any()
    s = solve(x, np.eye(2), terms, init=init, tol=1e-8)
    np.testing.assert_allclose(s.codes, best, atol=1e-7)
