"""Loops are compiled for the dtypes that are asked for, once."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from proxsae.regularizers import L0, L1, Box, NonNegative, Separable, SquaredL2, Tilt, Translated
from proxsae.solvers import compiled_scalar
from proxsae.solvers.scalar import scalar_prox


def test_a_loop_is_compiled_once_for_a_dtype_that_is_asked_for(monkeypatch):
    compiled = []

    def njit(signature, **options):
        compiled.append((signature, options["fastmath"]))
        return lambda loop: (loop, signature)

    monkeypatch.setattr(compiled_scalar.numba, "njit", njit)
    by_dtype = compiled_scalar.by_dtype(lambda T: T[::1], fastmath=True)("a loop")
    assert compiled == []
    with ThreadPoolExecutor(4) as pool:
        loops = set(pool.map(by_dtype, [np.dtype(np.float32)] * 20))
    assert loops == {("a loop", numba.float32[::1])}
    assert compiled == [(numba.float32[::1], True)]
    assert by_dtype(np.dtype(np.float64)) == ("a loop", numba.float64[::1])


@pytest.mark.parametrize(
    ("R", "low", "high"),
    [
        (0.5 * L1(), -0.25, 0.25),
        (L1() + Tilt(-0.3), -0.65, 0.35),
        (Tilt(-0.3) + Box(0.0, 1.0), -np.inf, -0.15),
        (Tilt(0.3) + Box(0.0, 1.0), -np.inf, 0.15),
        (Tilt(0.3) + Box(-1.0, 0.0), 0.15, np.inf),
        (NonNegative(), -np.inf, 0.0),
        (SquaredL2(), 0.0, 0.0),
        (L0(), -1.0, 1.0),
    ],
)
def test_the_dead_zone_of_a_prox(R: Separable, low, high):
    ends = _dead_zone(R)
    np.testing.assert_allclose(ends, [low, high], rtol=1e-15)


@pytest.mark.parametrize("R", [Box(1.0, 2.0), Translated(0.1 * L0(), 0.3)])
def test_a_prox_without_a_zero_has_no_dead_zone(R):
    low, high = _dead_zone(R)
    assert not low < high


def _dead_zone(R, step=0.5):
    double = np.dtype(np.float64)
    prox, parameters = scalar_prox(R, double, double)
    ends = np.empty((1, 2))
    compiled_scalar.dead_zones(prox, parameters, np.array([step]), ends)
    return ends[0]
