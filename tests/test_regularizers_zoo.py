"""The regularizers that the other tests run over: one of every class, and the sums."""

from __future__ import annotations

import numpy as np

from proxsae.regularizers import L0, L1, Box, NonNegative, Separable, SquaredL2, Zero
from proxsae.regularizers.catalog import CLASSES

PER_COORDINATE = np.array([0.0, 0.2, 0.9, 0.4, 1.5])

SEPARABLE = [
    Zero(),
    L1(),
    0.3 * L1(),
    PER_COORDINATE * L1(),
    0.4 * L0(),
    PER_COORDINATE * L0(),
    0.7 * SquaredL2(),
    PER_COORDINATE * SquaredL2(),
    NonNegative(),
    Box(-0.5, 1.2),
    Box(0.25, 1.0),
    Box(-PER_COORDINATE, PER_COORDINATE),
]

SUMS = [
    0.3 * L1() + NonNegative(),
    0.4 * L0() + NonNegative(),
    0.7 * SquaredL2() + NonNegative(),
    0.3 * L1() + 0.7 * SquaredL2(),
    0.3 * L1() + 0.7 * SquaredL2() + NonNegative(),
    PER_COORDINATE * L1() + 0.7 * SquaredL2() + NonNegative(),
    0.4 * L0() + 0.7 * SquaredL2(),
    0.4 * L0() + PER_COORDINATE * SquaredL2() + NonNegative(),
    0.3 * L1() + 0.4 * L0(),
    0.3 * L1() + PER_COORDINATE * L0() + NonNegative(),
    0.3 * L1() + 0.4 * L0() + 0.7 * SquaredL2(),
    0.3 * L1() + Box(-0.5, 1.2),
    0.4 * L0() + Box(-0.5, 1.2),
    0.3 * L1() + 0.4 * L0() + 0.7 * SquaredL2() + Box(-0.5, 1.2),
]


def test_every_separable_class_of_the_catalogue_is_here():
    separable = {cls for cls in CLASSES.values() if issubclass(cls, Separable)}
    assert separable <= {type(term) for R in SEPARABLE for term in R.terms}
