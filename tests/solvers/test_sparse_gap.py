"""The gap from the coordinates that do not rest is the gap."""

import numpy as np
import pytest

from proxsae.regularizers import L1, Box, Huber, NonNegative, SquaredL2, Tilt
from proxsae.solvers.active_set import prepare
from proxsae.solvers.certificates import duality_gap, fit_of
from proxsae.solvers.problem import Problem
from proxsae.solvers.sparse_gap import sparse_gap

WEIGHTS = np.random.default_rng(1).uniform(0.05, 0.5, 30)
REGULARIZERS = [
    0.2 * L1(),
    WEIGHTS * L1(),
    WEIGHTS * L1() + 0.3 * SquaredL2(),
    0.2 * L1() + NonNegative(),
    0.2 * L1() + Box(-0.5, 0.3),
    0.1 * L1() + Tilt(0.05),
    0.3 * Huber(0.5),
]


def problem(R, dtype="float64"):
    rng = np.random.default_rng(0)
    D = rng.standard_normal((30, 12)).astype(dtype)
    D[4] = 0
    return Problem(rng.standard_normal((7, 12)).astype(dtype), D, R, 0.01)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("R", REGULARIZERS, ids=repr)
def test_equals_the_sum_over_all_coordinates(R, dtype):
    p = problem(R, dtype)
    certify = sparse_gap(R, p.dictionary, *prepare(R, p.dictionary)[-2:])
    assert certify is not None
    for spread in (0.0, 1e-8, 0.3, 30.0):
        Z = R.prox((spread * np.random.default_rng(2).standard_normal((7, 30))).astype(dtype))
        fit = fit_of(p, Z)
        for ours, whole in zip(certify(p, Z, fit), duality_gap(p, Z, fit), strict=True):
            np.testing.assert_allclose(ours, whole, rtol=1e-11, atol=1e-13 * (1 + spread**2))


def test_ends_that_the_conjugate_does_not_confirm_are_not_taken():
    """Where zeros do not rest, a term is not zero: the gap of all coordinates is then computed."""
    p = problem(0.2 * L1() + 0.1 * SquaredL2())
    below, above = prepare(p.regularizer, p.dictionary)[-2:]
    assert sparse_gap(p.regularizer, p.dictionary, below, above) is not None
    assert sparse_gap(p.regularizer, p.dictionary, below, 1.01 * above) is None
