"""The active-set method in array operations, here on the CPU, against its compiled form and certificates of its own."""

from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae import solve
from proxsae.regularizers import L0, L1, MCP, Box, Huber, L1Ball, NonNegative, SquaredL2, Tilt
from proxsae.solvers.active_set import ACTIVE_SET
from proxsae.solvers.batched_active_set import BATCHED_ACTIVE_SET, lacks_batches
from proxsae.solvers.inputs import checked_inputs
from proxsae.solvers.iterate import iterate
from proxsae.solvers.methods import algorithm_of

N_SAMPLES, N_FEATURES, N_ATOMS = 20, 24, 60


def batched(X, D, R, init=None, tol=1e-6, max_iter=50):
    """Return what `solve` has on a device."""
    X, D, init = (None if a is None else torch.as_tensor(a) for a in (X, D, init))
    limits = {"step": None, "tol": tol, "max_iter": max_iter, "on_finished": lambda _: None, "stop": Event()}
    inputs = checked_inputs(X, D, None, init)
    outcome, kind = iterate(BATCHED_ACTIVE_SET, inputs, R, sparse_output=False, gram_limit=20_000, **limits)
    return [a.numpy() for a in outcome], kind


def problem(seed):
    """Return samples and atoms that correlate: four are nearly like others, one is minus another, and one is zero."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((N_ATOMS, N_FEATURES)) + rng.standard_normal((1, N_FEATURES))
    D[:4] = D[4] + 1e-3 * rng.standard_normal((4, N_FEATURES))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    D[10], D[11], D[12], D[13] = -D[9], 0.0, 1e-3 * D[12], 1e3 * D[13]
    X = rng.standard_normal((N_SAMPLES, N_FEATURES))
    X[0] = 0.0
    return X / np.linalg.norm(X, axis=1, keepdims=True).clip(1e-9), D


REGULARIZERS = {
    "lasso": 0.1 * L1(),
    "dense lasso": 0.01 * L1(),
    "weights": np.linspace(0.05, 0.3, N_ATOMS) * L1(),
    "non-negative lasso": 0.1 * L1() + NonNegative(),
    "non-negative least squares": NonNegative(),
    "elastic net": 0.1 * L1() + 0.2 * SquaredL2(),
    "lasso in a box": 0.05 * L1() + Box(-0.05, 0.1),
    "tilted lasso": 0.1 * L1() + Tilt(0.03),
    "huber": 0.3 * Huber(0.05),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("R", REGULARIZERS.values(), ids=REGULARIZERS)
def test_it_finds_what_the_compiled_form_finds(R, dtype):
    X, D = (a.astype(dtype) for a in problem(0))
    tol = 1e-6 if dtype is np.float64 else 1e-4
    (codes, objective, certificate, converged, n_iter), kind = batched(X, D, R, tol=tol)
    expected = solve(X, D, R, method="active_set", tol=tol)
    assert converged.all()
    assert kind == expected.certificate_kind
    assert n_iter.max() < 50
    assert codes.dtype == dtype
    assert (codes[:, 11] == 0).all()
    slack = 0.01 * tol if kind == "duality gap" else tol  # for rounding, or since residuals are no bounds
    assert (objective - expected.objective <= certificate + slack).all()
    assert (expected.objective - objective <= expected.certificate + slack).all()


@settings(max_examples=25)  # batches of degenerate samples
@given(st.integers(0, 2**32 - 1), st.floats(0.003, 1.5))
def test_gaps_hold_on_degenerate_dictionaries(seed, weight):
    X, D = problem(seed)
    R = weight * L1()
    (codes, objective, certificate, converged, _), _ = batched(X, D, R)
    assert np.isfinite(codes).all()
    assert converged.all()
    # The residual, scaled into the domain of R*, is a point of the dual problem.
    E = X - codes @ D
    primal = 0.5 * (E**2).sum(1) + weight * abs(codes).sum(1)
    E *= np.minimum(1.0, weight / abs(E @ D.T).max(1).clip(1e-300))[:, None]
    dual = (E * X).sum(1) - 0.5 * (E**2).sum(1)
    np.testing.assert_allclose(objective, primal, rtol=1e-12, atol=1e-14)
    assert (primal - dual <= 1e-6 * np.maximum(0.5, 0.5 * ((codes @ D) ** 2).sum(1))).all()
    assert (certificate >= 0).all()


def test_a_start_at_the_optimum_stays_there():
    X, D = problem(1)
    optimum = solve(X, D, 0.1 * L1(), tol=1e-12)
    (codes, *_, n_iter), _ = batched(X, D, 0.1 * L1(), init=optimum.codes)
    assert (n_iter == 0).sum() + (n_iter == 1).sum() == len(X)
    np.testing.assert_allclose(codes, optimum.codes, atol=1e-9)


def test_a_large_weight_leaves_all_codes_zero():
    X, D = problem(2)
    (codes, *_, converged, _), _ = batched(X, D, 1e6 * L1())
    assert converged.all()
    assert not codes.any()


def test_tensors_on_a_device_are_solved_there_where_R_is_convex():
    assert algorithm_of("active_set", 0.1 * L1(), on_device=True) is BATCHED_ACTIVE_SET
    assert algorithm_of("active_set", 0.1 * L1()) is ACTIVE_SET
    for R in (0.1 * MCP(3.0), 0.1 * L0()):
        assert algorithm_of("active_set", R, on_device=True) is ACTIVE_SET
        assert "needs a convex R" in lacks_batches(R)
    assert "separable" in lacks_batches(L1Ball(1.0))
