"""The adaptive steps reach the optimum of every convex R, with steps beyond 1 / L, on NumPy and Torch."""

import numpy as np
import pytest
import torch

from proxsae import solve
from proxsae.regularizers import L0, parse
from proxsae.solvers.adaptive import start, update
from proxsae.solvers.problem import Problem, lipschitz_constant

CONVEX = ["0.1*L1", "0.1*L1 + NonNegative", "0.1*L1 + 0.2*SquaredL2", "0.1*GroupL2(4)", "0.1*LInf", "Simplex"]


def data(n=6, d=16, p=12, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)), D / np.linalg.norm(D, axis=1, keepdims=True)


@pytest.mark.parametrize("text", CONVEX)
def test_it_reaches_the_optimum(text):
    X, D = data()
    best = solve(X, D, text, method="fista", tol=1e-8, max_iter=5000)
    s = solve(X, D, text, method="adaptive", tol=1e-6, max_iter=5000)
    assert s.converged.all()
    np.testing.assert_allclose(s.objective, best.objective, rtol=1e-5, atol=1e-6)
    tensors = solve(torch.from_numpy(X), torch.from_numpy(D), text, method="adaptive", tol=1e-6, max_iter=5000)
    np.testing.assert_allclose(tensors.objective.numpy(), best.objective, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_steps_are_longer_and_it_takes_fewer_than_ista(dtype):
    X, D = (a.astype(dtype) for a in data(n=20, d=24, p=20))
    ista, adaptive = (solve(X, D, "0.1*L1", method=m, tol=1e-5, max_iter=5000) for m in ("ista", "adaptive"))
    assert adaptive.converged.all()
    assert adaptive.codes.dtype == dtype
    assert adaptive.n_iter.sum() < 0.6 * ista.n_iter.sum()
    problem = Problem(X, D, parse("0.1*L1"), 1 / lipschitz_constant(D))
    state = start(problem, np.zeros((20, 20), dtype))
    first = update(problem, state)
    np.testing.assert_allclose(first.steps, problem.step)
    for _ in range(50):
        state = update(problem, state)
    assert (state.steps > problem.step).mean() > 0.5


def test_degenerate_dictionaries_and_refusals():
    X, D = data()
    for atoms in (np.concatenate([D, D, 0 * D]), D * 10.0 ** np.linspace(-0.3, 0.3, 12)[:, None], 0 * D, D[:1]):
        s = solve(X, atoms, "0.1*L1", method="adaptive", tol=1e-5, max_iter=20_000)
        assert np.isfinite(s.codes).all()
        assert s.converged.all()
    with pytest.raises(ValueError, match="'adaptive' needs a convex regularizer"):
        solve(X, D, 0.1 * L0(), method="adaptive")
