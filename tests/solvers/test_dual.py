"""Dual points: feasible, worth the objective less the gap, and at the optimum those of a convex solver."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from proxsae import solve

rng = np.random.default_rng(0)
X, b, D = rng.standard_normal((5, 6)), rng.standard_normal(6), rng.standard_normal((9, 6))
ACUTE = abs(D)  # 0 is not in the hull of these atoms


def inside(is_inside):
    return np.where(is_inside, 0.0, np.inf)


SLACK = 1 + 1e-12
POSITIVE = lambda z: 1e9 * cp.max(cp.neg(z))  # noqa: E731
# R(z) in cvxpy, its conjugate, and the dictionary
CONVEX = {
    "0.3*L1": (lambda z: 0.3 * cp.norm1(z), lambda V: inside(abs(V).max(1) <= 0.3 * SLACK), D),
    "0.3*L1 + NonNegative": (lambda z: 0.3 * cp.sum(z) + POSITIVE(z), lambda V: inside(V.max(1) <= 0.3 * SLACK), D),
    "0.2*L1 + 0.5*SquaredL2": (
        lambda z: 0.2 * cp.norm1(z) + 0.25 * cp.sum_squares(z),
        lambda V: (np.maximum(abs(V) - 0.2, 0) ** 2).sum(1),
        D,
    ),
    "0.3*Huber(0.5)": (
        lambda z: 0.3 * cp.sum(cp.huber(z, 0.5)),
        lambda V: inside(abs(V).max(1) <= 0.3 * SLACK) + 0.25 / 0.3 * (V**2).sum(1),
        D,
    ),
    "NonNegative": (POSITIVE, lambda V: inside(V.max(1) <= 0.0), ACUTE),
    "0.5*GroupL2(3)": (
        lambda z: 0.5 * 3**0.5 * sum(cp.norm2(z[3 * i : 3 * i + 3]) for i in range(3)),
        lambda V: inside(np.linalg.norm(V.reshape(-1, 3, 3), axis=2).max(1) <= 0.5 * 3**0.5 * SLACK),
        D,
    ),
    "0.3*LInf": (lambda z: 0.3 * cp.norm_inf(z), lambda V: inside(abs(V).sum(1) <= 0.3 * SLACK), D),
}


def dual_of(x, D, penalty):
    """The multiplier of e = x - z D in min 1/2 ||e||^2 + R(z)."""
    z, e = cp.Variable(len(D)), cp.Variable(D.shape[1])
    link = e == x - z @ D
    value = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(e) + penalty(z)), [link]).solve(solver="CLARABEL")
    return -link.dual_value, value


@pytest.mark.parametrize("text", CONVEX)
@pytest.mark.parametrize("tol", [1e-2, 1e-9])
def test_dual_points(text, tol):
    penalty, conjugate, atoms = CONVEX[text]
    s = solve(X, atoms, text, intercept=b, tol=tol, max_iter=20_000, sparse_output=True)
    theta, Y = s.dual_point(), X - b
    assert theta.shape == X.shape
    assert theta.dtype == np.float64
    value = (theta * Y).sum(1) - 0.5 * (theta**2).sum(1) - conjugate(theta @ atoms.T)
    np.testing.assert_allclose(value, s.objective - s.certificate, rtol=1e-9)
    for y, point, bound in zip(Y, theta, value, strict=True):
        dual, optimum = dual_of(y, atoms, penalty)
        assert bound <= optimum + 1e-6
        if tol < 1e-6:
            np.testing.assert_allclose(point, dual, atol=1e-4)
            assert bound == pytest.approx(optimum, abs=1e-6)


def test_tensors_and_refusals():
    s, tensors = solve(X, D, "0.3*L1"), solve(torch.from_numpy(X), torch.from_numpy(D), "0.3*L1")
    np.testing.assert_allclose(tensors.dual_point().numpy(), s.dual_point(), atol=1e-12)
    both_signs = np.concatenate([D, -D])
    assert not solve(X, both_signs, "NonNegative", tol=1e-3).dual_point().any()  # no other point is feasible
    for R in ("Cardinality(2)", "Zero", ["0.1*L1", "0.2*L1"]):
        with pytest.raises(ValueError, match="a dual point needs an R with a duality gap over this dictionary, and"):
            solve(X, both_signs, R, tol=1e-3).dual_point()
