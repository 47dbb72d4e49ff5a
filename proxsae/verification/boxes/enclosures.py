"""A number that is a function of a box: its range, and an affine function of the box near it.

An enclosure of f says for every point (x_0, x_1, ...) of [-1, 1]^d under consideration that f lies in [low, high] and
within `rest` of center + sum_i slopes_i x_i. It is affine arithmetic: what two terms have in common cancels, and what
is not affine is of second order in the size of the box. Each operation adds to `rest` what its rounding may have lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.boxes import intervals
from proxsae.verification.boxes.intervals import ULP, Interval

if TYPE_CHECKING:
    from proxsae.verification.boxes.conditions import Comparison, Condition
    from proxsae.verification.boxes.paths import PathReader

NONE = np.zeros(())  # this very object is a slope of 0 that costs nothing
UP = 1.0 + 64 * ULP  # covers the roundings of a sum of a few dozen non-negative terms


@dataclass(frozen=True, eq=False)
class Enclosure:
    """A number of a formula over many boxes at once: arrays of one entry a box.

    Attributes
    ----------
    reader : PathReader
        The namespace that made it.
    key : int
        What it is as an expression: equal keys are equal numbers.
    low, high : array
        Its range; NaN where it may be undefined.
    center, slopes, rest : array, tuple of arrays, array
        The affine function, and the largest distance from it; `rest` is infinite where there is none.
    apart : array or False
        Where it is known not to be 0 though its range touches 0: it was compared with 0 before.
    """

    reader: PathReader
    key: int
    low: Array
    high: Array
    center: Array
    slopes: tuple[Array, ...]
    rest: Array
    apart: Any = False

    __array_ufunc__ = None  # a NumPy number on the left leaves the operation to us

    @property
    def range(self) -> Interval:
        """The two ends."""
        return self.low, self.high

    @property
    def is_apart(self) -> Array:
        """Where it is certain not to be 0."""
        return (self.low > 0) | (self.high < 0) | self.apart

    @property
    def spread(self) -> Array:
        """The sum of the slopes' sizes."""
        return _size(self.slopes)

    def _number(self, other: Any) -> Enclosure:
        return self.reader.number(other)

    def __neg__(self) -> Enclosure:
        low, high = intervals.negative(self.range)
        slopes = tuple(_times(-1.0, s) for s in self.slopes)
        key = self.reader.key("negative", self.key)
        return replace(self, key=key, low=low, high=high, center=-self.center, slopes=slopes)

    def __add__(self, other: Any) -> Enclosure:
        other, zero = self._number(other), self.reader.key("number", 0.0)
        if zero in (self.key, other.key):
            return other if self.key == zero else self
        center = self.center + other.center
        slopes = tuple(_plus(a, b) for a, b in zip_longest(self.slopes, other.slopes, fillvalue=NONE))
        rest = (self.rest + other.rest + ULP * (np.abs(center) + _size(slopes))) * UP
        key = self.reader.key("add", *sorted((self.key, other.key)))
        result = enclosed(self.reader, key, intervals.add(self.range, other.range), center, slopes, rest)
        if self.apart is False and other.apart is False:
            return result
        one_side = (self.low >= 0) & (other.low >= 0)
        return replace(result, apart=one_side & (self.is_apart | other.is_apart))

    def __sub__(self, other: Any) -> Enclosure:
        return self + -self._number(other)

    def __mul__(self, other: Any) -> Enclosure:
        a, b = self, self._number(other)
        pairs = list(zip_longest(a.slopes, b.slopes, fillvalue=NONE))
        squares = [_times(x, y) for x, y in pairs]  # their factors lie in [0, 1]: half of them is known
        center = a.center * b.center + 0.5 * sum(squares)
        slopes = tuple(_plus(_times(a.center, y), _times(b.center, x)) for x, y in pairs)
        mixed = [_plus(_times(x, v), _times(w, y)) for (x, y), (w, v) in combinations(pairs, 2)]
        sizes = [(np.abs(n.center), n.spread) for n in (a, b)]
        rest = 0.5 * _size(squares) + _size(mixed) + (sizes[0][0] + sizes[0][1]) * b.rest
        rest = rest + (sizes[1][0] + sizes[1][1] + b.rest) * a.rest
        rounding = 8 * ULP * (sum(sizes[0]) + a.rest) * (sum(sizes[1]) + b.rest) + 1e-300
        key = self.reader.product_key(a.key, b.key)
        return enclosed(self.reader, key, intervals.multiply(a.range, b.range), center, slopes, (rest + rounding) * UP)

    def __truediv__(self, other: Any) -> Enclosure:
        other = self._number(other)
        quotient: Enclosure = self * other.reciprocal()
        low, high = intervals.divide(self.range, other.range, other.is_apart)
        # Where the divisor touches 0, the product with its unbounded reciprocal says nothing.
        known = ~np.isnan(quotient.low)
        low = np.where(known, np.maximum(low, quotient.low), low)
        return replace(quotient, low=low, high=np.where(known, np.minimum(high, quotient.high), high))

    def __pow__(self, exponent: int) -> Enclosure:
        power = self
        for _ in range(exponent - 1):
            power = power * self
        return power

    def __radd__(self, other: Any) -> Enclosure:
        return self.__add__(other)

    def __rsub__(self, other: Any) -> Enclosure:
        difference: Enclosure = self._number(other) - self
        return difference

    def __rmul__(self, other: Any) -> Enclosure:
        return self.__mul__(other)

    def __rtruediv__(self, other: Any) -> Enclosure:
        quotient: Enclosure = self._number(other) / self
        return quotient

    def __gt__(self, other: Any) -> Comparison:
        return self.reader.compare(self, self._number(other))

    def __lt__(self, other: Any) -> Comparison:
        return self.reader.compare(self._number(other), self)

    def __ge__(self, other: Any) -> Condition:
        return ~self.__lt__(other)

    def __le__(self, other: Any) -> Condition:
        return ~self.__gt__(other)

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch in Python on its arguments; use xp.where")

    def unknown_where(self, unknown: Array) -> Enclosure:
        """Return the same, unknown in places."""
        low, high = np.where(unknown, math.nan, self.low), np.where(unknown, math.nan, self.high)
        return enclosed(
            self.reader, self.key, (low, high), self.center, self.slopes, np.where(unknown, math.inf, self.rest)
        )

    def reciprocal(self) -> Enclosure:
        """Return 1 / x."""
        one = np.ones(())
        m, bends = self._middle(), [2.0 / end**3 for end in self.range]
        key = self.reader.key("reciprocal", self.key)
        return self.smooth(key, intervals.divide((one, one), self.range, self.is_apart), 1.0 / m, -1.0 / (m * m), bends)

    def abs(self) -> Enclosure:
        """Return the modulus; across the kink by the chord."""
        key = self.reader.key("abs", self.reader.without_sign(self.key))
        low, high = self.range
        ratio = np.clip((high + low) / np.where(high > low, high - low, 1.0), -1.0, 1.0)
        # Above ratio x by at most this, at both ends; at 0 by nothing. On one side of 0 the modulus is x or -x.
        across = (low < 0) & (high > 0)
        ratio = np.where(across, ratio, np.where(low >= 0, 1.0, -1.0))
        lift = np.where(across, 0.5 * np.maximum(high - ratio * high, -low - ratio * low), 0.0)
        center = ratio * self.center + lift
        slopes = tuple(_times(ratio, s) for s in self.slopes)
        rounding = 8 * ULP * (np.abs(self.center) + self.spread + np.where(across, high - low, 0.0))
        rest = (np.abs(ratio) * self.rest + np.abs(lift) + np.where(across, rounding, 0.0)) * UP
        least = np.where(across, 0.0, np.minimum(np.abs(low), np.abs(high)))
        most = np.maximum(np.abs(low), np.abs(high))
        known = ~np.isnan(low)
        ends = np.where(known, least, math.nan), np.where(known, most, math.nan)
        return enclosed(self.reader, key, ends, center, slopes, rest)

    def as_variable(self, axis: int) -> Enclosure:
        """Return the same with what is not known of it as a variable: one number, the same wherever this one stands."""
        slopes = (*self.slopes, *(NONE for _ in range(axis - len(self.slopes))), self.rest)
        return replace(self, slopes=slopes, rest=np.zeros(()))

    def _middle(self) -> Array:
        return 0.5 * (self.low + self.high)

    def smooth(self, key: int, ends: Interval, value: Array, slope: Array, bends: list[Array]) -> Enclosure:
        """Return f(x) by Taylor's theorem at the middle of the range.

        Parameters
        ----------
        key : int
            Of the result.
        ends : pair of arrays
            An interval that holds f.
        value, slope : array
            f and f' at the middle, right to 32 units in the last place.
        bends : list of array
            f'' lies between the least and the largest of these (right to 1e-9 of their size).
        """
        m = self._middle()
        reach = np.maximum(self.high - m, m - self.low) * UP
        lowest = np.minimum(np.minimum.reduce(bends), 0.0) * (0.5 * reach * reach * (1.0 + 1e-8))
        highest = np.maximum(np.maximum.reduce(bends), 0.0) * (0.5 * reach * reach * (1.0 + 1e-8))
        away = self.center - m
        center = value + slope * away + 0.5 * (lowest + highest)
        slopes = tuple(_times(slope, s) for s in self.slopes)
        sizes = np.abs(value) + np.abs(slope) * (np.abs(away) + reach + self.spread) + highest - lowest
        rest = (np.abs(slope) * self.rest + 0.5 * (highest - lowest) + 64 * ULP * sizes) * UP
        return enclosed(self.reader, key, ends, center, slopes, rest)


def enclosed(
    reader: PathReader, key: int, ends: Interval, center: Array, slopes: tuple[Array, ...], rest: Array
) -> Enclosure:
    """Return the enclosure with both of its halves at their tightest."""
    reach = (_size(slopes) + rest) * UP
    known = np.isfinite(reach) & np.isfinite(center)
    by_slopes = intervals.outward(center - reach, center + reach)
    low: Array = np.where(known, np.maximum(ends[0], by_slopes[0]), ends[0])
    high: Array = np.where(known, np.minimum(ends[1], by_slopes[1]), ends[1])
    flat = ~(known & (rest <= 0.5 * (high - low)))
    if flat.any():  # the middle of the range is as near as the affine function
        middle = 0.5 * (low + high)
        radius = np.maximum(high - middle, middle - low) * UP
        bounded = np.isfinite(radius)
        center = np.where(flat, np.where(bounded, middle, 0.0), center)
        slopes = tuple(s if s is NONE else np.where(flat, 0.0, s) for s in slopes)
        rest = np.where(flat, np.where(bounded, radius, math.inf), rest)
    return Enclosure(reader, key, low, high, center, slopes, rest)


def chosen(key: int, first: Array, a: Enclosure, b: Enclosure) -> Enclosure:
    """Return `a` where `first` and `b` elsewhere."""
    if first.all():
        return replace(a, key=key)
    if not first.any():
        return replace(b, key=key)
    pairs = zip_longest(a.slopes, b.slopes, fillvalue=NONE)
    return Enclosure(
        a.reader,
        key,
        np.where(first, a.low, b.low),
        np.where(first, a.high, b.high),
        np.where(first, a.center, b.center),
        tuple(NONE if x is NONE and y is NONE else np.where(first, x, y) for x, y in pairs),
        np.where(first, a.rest, b.rest),
        False if a.apart is False and b.apart is False else np.where(first, a.is_apart, b.is_apart),
    )


def _size(slopes: Any) -> Array:
    return sum((np.abs(s) for s in slopes if s is not NONE), np.zeros(()))


def _times(factor: Any, slope: Array) -> Array:
    return NONE if factor is NONE or slope is NONE else factor * slope


def _plus(a: Array, b: Array) -> Array:
    return b if a is NONE else a if b is NONE else a + b
