"""Interval arithmetic on arrays of ends, rounded outward, so that the true result is never lost.

An interval is a pair (low, high) of float64 arrays. NaN marks what may be undefined (a root of a negative number, a
division by an interval that holds 0), and stays NaN through everything after it.
"""

from __future__ import annotations

import math

import numpy as np

from proxsae.formulas.arrays import Array

Interval = tuple[Array, Array]

ULP = 2.0**-52
TINY = 5e-324
LARGEST = float(np.finfo(np.float64).max)
ENORMOUS = 1e300  # what is at least this is taken for infinite
# Assumed of the C library and of NumPy's vector code: log1p, tanh, pow and cbrt err by at most 4 units in
# the last place. +, -, *, / and sqrt are correctly rounded by IEEE 754, which is all that the rest relies on.
LIBRARY_ULPS = 4


def outward(low: Array, high: Array, ulps: int = 1) -> Interval:
    """Return the interval widened by so many units in the last place."""
    down, up = 1.0 - ulps * ULP, 1.0 + ulps * ULP
    low = np.minimum(low * down, low * up) - TINY
    high = np.maximum(high * down, high * up) + TINY
    # What overflows is finite: infinity is no lower end of it.
    return np.minimum(low, LARGEST), np.maximum(high, -LARGEST)


def add(a: Interval, b: Interval) -> Interval:
    """Return a + b; a sum of floats that is 0 is exact."""
    sums = a[0] + b[0], a[1] + b[1]
    low, high = outward(*sums)
    return np.where(sums[0] == 0, 0.0, low), np.where(sums[1] == 0, 0.0, high)


def negative(a: Interval) -> Interval:
    """Return -a."""
    return -a[1], -a[0]


def multiply(a: Interval, b: Interval) -> Interval:
    """Return a b; 0 times the number infinity is undefined."""
    ends = [a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1]]
    low, high = _hull(ends)
    if np.isnan(low).any():
        # An end that is infinite because nothing bounds the number gives 0 with 0.
        low, high = _hull([np.where(np.isnan(end), 0.0, end) for end in ends])
        undefined = np.isnan(a[0]) | np.isnan(b[0])
        for one, two in ((a, b), (b, a)):
            undefined = undefined | ((one[0] <= 0) & (one[1] >= 0) & ((two[0] >= ENORMOUS) | (two[1] <= -ENORMOUS)))
        low, high = _only_where(~undefined, low, high)
    return _signed(a, b, *outward(low, high))


def _hull(ends: list[Array]) -> Interval:
    low = np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
    return low, np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))


def divide(a: Interval, b: Interval, apart: Array) -> Interval:
    """Return a / b, undefined unless b is `apart` from 0; unbounded where b is, though its interval touches 0."""
    with np.errstate(all="ignore"):
        low, high = _hull([a[0] / b[0], a[0] / b[1], a[1] / b[0], a[1] / b[1]])
    low, high = _signed(a, b, *outward(low, high))
    touching = (b[0] <= 0) & (b[1] >= 0)
    above = np.where(((a[1] > 0) & (b[1] > 0)) | ((a[0] < 0) & (b[0] < 0)), math.inf, 0.0)
    below = np.where(((a[0] < 0) & (b[1] > 0)) | ((a[1] > 0) & (b[0] < 0)), -math.inf, 0.0)
    defined = apart & ~np.isnan(a[0]) & ~np.isnan(b[0])
    return _only_where(defined, np.where(touching, below, low), np.where(touching, above, high))


def _signed(a: Interval, b: Interval, low: Array, high: Array) -> Interval:
    """Cut off the sign that a product or a quotient cannot have: widening may not cross 0."""
    same = ((a[0] >= 0) & (b[0] >= 0)) | ((a[1] <= 0) & (b[1] <= 0))
    opposite = ((a[0] >= 0) & (b[1] <= 0)) | ((a[1] <= 0) & (b[0] >= 0))
    return np.where(same, np.maximum(low, 0.0), low), np.where(opposite, np.minimum(high, 0.0), high)


def _odd(a: Interval, low: Array, high: Array) -> Interval:
    """Give the result the sign of a: widening may not cross 0."""
    return np.where(a[0] >= 0, np.maximum(low, 0.0), low), np.where(a[1] <= 0, np.minimum(high, 0.0), high)


def _only_where(defined: Array, low: Array, high: Array) -> Interval:
    return np.where(defined, low, math.nan), np.where(defined, high, math.nan)


def sqrt(a: Interval) -> Interval:
    """Return the square root, undefined where a may be negative."""
    low, high = outward(np.sqrt(np.maximum(a[0], 0.0)), np.sqrt(np.maximum(a[1], 0.0)))
    return _only_where(a[0] >= 0, *_odd(a, low, high))


def cbrt(a: Interval) -> Interval:
    """Return the cube root, undefined where a may be negative."""
    low, high = outward(np.cbrt(a[0]), np.cbrt(a[1]), LIBRARY_ULPS)
    return _only_where(a[0] >= 0, *_odd(a, low, high))


def power(a: Interval, exponent: float) -> Interval:
    """Return a to the power of a number, undefined where a may be negative, infinite at 0 for a negative power."""
    with np.errstate(all="ignore"):
        ends = np.power(np.maximum(a[0], 0.0), exponent), np.power(np.maximum(a[1], 0.0), exponent)
    low, high = outward(*(ends if exponent >= 0 else ends[::-1]), LIBRARY_ULPS)
    low, high = np.maximum(low, 0.0), np.where((a[1] <= 0) & (exponent > 0), 0.0, high)
    # 1 to any power is 1: widening may not cross that either.
    least, most = (a[0], a[1]) if exponent >= 0 else (-a[1], -a[0])
    one = math.copysign(1.0, exponent)
    low, high = np.where(least >= one, np.maximum(low, 1.0), low), np.where(most <= one, np.minimum(high, 1.0), high)
    return _only_where(a[0] >= 0, low, high)


def log1p(a: Interval) -> Interval:
    """Return log(1 + a), undefined where a may be -1 or less."""
    low, high = outward(np.log1p(np.maximum(a[0], -0.99)), np.log1p(np.maximum(a[1], -0.99)), LIBRARY_ULPS)
    inside = a[0] >= -0.99  # an arbitrary end short of the pole
    return _only_where(inside, *_odd(a, low, high))


def tanh(a: Interval) -> Interval:
    """Return the hyperbolic tangent."""
    low, high = outward(np.tanh(a[0]), np.tanh(a[1]), LIBRARY_ULPS)
    return _odd(a, low, high)
