"""Enclose the zero of an equation that depends on a box."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from proxsae.formulas.arrays import Array, Equation
from proxsae.verification.boxes.enclosures import NONE, Enclosure, chosen, enclosed
from proxsae.verification.boxes.intervals import ULP

if TYPE_CHECKING:
    from proxsae.verification.boxes.paths import PathReader

GUESSES = 12  # Newton steps at the middle of the box: only where to look, not what is claimed
NEARER = 4  # tries for a closer bracket
CELLS = 16  # between the zero and the start
AXIS = 2  # of z, after u and t


def zero_from(reader: PathReader, equation: Equation, start: Enclosure, low: Enclosure, high: Enclosure) -> Enclosure:
    r"""Return the zero that is met first on the way from `start`, clipped to [low, high].

    The way is that of :math:`\dot z = -f(z)`: down where f is positive and up where it is negative, which is where
    Newton's method ends on an equation that is convex or concave and rising along the way. It is enclosed in [b, a] by
    certain signs: f > 0 at a and from there up to the start, f < 0 at b and from there down to the start. Where that
    fails, all of [low, high] is returned: what the code computes lies in it in any case. Where f has one sign all the
    way from the start to `low` or `high`, that end is returned.
    """
    guess, slope = _guess(reader, equation, start, low, high)
    for _ in range(2):  # the second time around a bracket of the right size
        value = equation(_at(reader, guess, NONE))[0]
        radius = 2.0 * (np.abs(value.center) + value.spread + value.rest) / np.maximum(slope, 1e-3) + 1e-12
        up, down = _closest(reader, equation, guess, radius)
        above, below = _bracketed(reader, equation, start, guess + up, guess - down)
        a = np.where(above, guess + up, high.high)
        b = np.where(below, guess - down, low.low)
        z = _solved(reader, equation, a, b)
        guess = np.where(above & below, z.center, guess)
    ends = np.minimum(np.maximum(b, low.low), high.low), np.minimum(np.maximum(a, low.high), high.high)
    # An exact zero, which is not clipped: not by the end that the way starts from, either.
    at_start = equation(start)[0]
    below_high = (a <= high.low) | ((at_start.low >= 0) & (start.key == high.key))
    above_low = (b >= low.high) | ((at_start.high <= 0) & (start.key == low.key))
    free = above & below & below_high & above_low
    key = reader.key("root", value.key, start.key, low.key, high.key)
    ends = np.where(free, np.maximum(ends[0], z.low), ends[0]), np.where(free, np.minimum(ends[1], z.high), ends[1])
    if not free.all():  # how far is the sign of f that of the start?
        top, bottom = start.high, np.minimum(low.low, start.low)
        fallen, at_low = _run(reader, equation, top, bottom, -1)
        risen, at_high = _run(reader, equation, start.low, np.maximum(high.high, top), 1)
        ends = (
            np.where(free, ends[0], np.maximum(ends[0], np.minimum(risen, high.low))),
            np.where(free, ends[1], np.minimum(ends[1], np.maximum(fallen, low.high))),
        )
    zero = enclosed(reader, key, ends, z.center, z.slopes, np.where(free, z.rest, math.inf))
    if free.all():
        return zero
    return chosen(key, at_low & ~free, reader.minimum(low, high), chosen(key, at_high & ~free, high, zero))


def _run(reader: PathReader, equation: Equation, start: Array, stop: Array, side: int) -> tuple[Array, Array]:
    """Return how far up (side 1) or down (-1) from the start f is certain to lead, and whether that is all the way."""
    start, stop = np.broadcast_arrays(start, stop)
    # The last cells are the smallest: a zero is often just beyond.
    edges = stop + _column(np.ndim(start), np.linspace(1.0, 0.0, CELLS + 1) ** 2) * (start - stop)
    middle = 0.5 * (edges[1:] + edges[:-1])
    width = 0.5 * np.abs(edges[1:] - edges[:-1]) * (1.0 + 1e-9) + 16 * ULP * (np.abs(start) + np.abs(stop))
    cells = equation(_at(reader, middle, width))[0]
    leads = cells.high < 0 if side > 0 else cells.low > 0
    count = np.logical_and.accumulate(leads, 0).sum(0)
    reached = np.take_along_axis(edges, count[None], 0)[0]
    return np.where(count > 0, reached, -side * np.inf), count == CELLS


def _at(reader: PathReader, middle: Array, radius: Array) -> Enclosure:
    return reader.variable(AXIS, middle, radius, "z")


def _guess(
    reader: PathReader, equation: Equation, start: Enclosure, low: Enclosure, high: Enclosure
) -> tuple[Array, Array]:
    z = start.center
    for _ in range(GUESSES):
        value, slope = equation(_at(reader, z, NONE))
        before, z = z, np.minimum(np.maximum(z - value.center / slope.center, low.center), high.center)
        if np.all(np.abs(z - before) <= 1e-9):
            break
    return z, slope.center


def _closest(reader: PathReader, equation: Equation, guess: Array, radius: Array) -> tuple[Array, Array]:
    """Return how far up from the guess f is positive, and how far down it is negative, the closest of a few tries."""
    radii = _column(np.ndim(radius), 4.0 ** -np.arange(NEARER)) * radius
    found = []
    for side in (1.0, -1.0):
        value = equation(_at(reader, guess + side * radii, NONE))[0]
        right = value.low > 0 if side > 0 else value.high < 0
        found.append(np.where(right.any(0), np.where(right, radii, np.inf).min(0), radius))
    return found[0], found[1]


def _bracketed(reader: PathReader, equation: Equation, start: Enclosure, a: Array, b: Array) -> tuple[Array, Array]:
    """Return where f is certain to be positive from a up to the start, and negative from b down to the start."""
    downwards = start.high > a  # the zero is met on the way down
    near, far = np.where(downwards, a, -b), np.where(downwards, start.high, -start.low)
    radius = 0.5 * (a - b)
    ratio = np.maximum((far - near) / radius + 1.0, 1.0)
    # Cells grow with their distance, as f does.
    steps = radius * (ratio ** _column(np.ndim(ratio), np.arange(CELLS + 1) / CELLS) - 1.0)
    steps = np.concatenate([steps[:-1], np.maximum(steps[-1:] * (1.0 + 1e-12), 0.0)])
    side = np.where(downwards, 1.0, -1.0)
    edges = side * (near + steps)
    middle = 0.5 * (edges[1:] + edges[:-1])
    width = 0.5 * np.abs(edges[1:] - edges[:-1]) * (1.0 + 1e-9) + 8 * ULP * (np.abs(middle) + np.abs(far))
    cells = equation(_at(reader, middle, width))[0]
    point = equation(_at(reader, np.where(downwards, b, a), NONE))[0]
    behind = np.where(downwards, start.low >= b, start.high <= a)
    positive, negative = (cells.low > 0).all(0), (cells.high < 0).all(0)
    above = np.where(downwards, positive, (point.low > 0) & behind)
    below = np.where(downwards, (point.high < 0) & behind, negative)
    return above, below


def _column(ndim: int, numbers: Array) -> Array:
    return numbers.reshape(-1, *(1 for _ in range(ndim)))


def _solved(reader: PathReader, equation: Equation, a: Array, b: Array) -> Enclosure:
    """Return every zero in [b, a], by the affine function near f(middle + radius w): solved for w."""
    middle = 0.5 * (a + b)
    radius = np.maximum(a - middle, middle - b) * (1.0 + 4 * ULP) + 1e-300
    value = equation(_at(reader, middle, radius))[0]
    steep = [*value.slopes, *(NONE for _ in range(AXIS + 1 - len(value.slopes)))]
    divisor, steep[AXIS] = steep[AXIS], NONE
    scale = -radius / divisor
    center, slopes = middle + scale * value.center, tuple(NONE if s is NONE else scale * s for s in steep)
    size = np.abs(middle) + np.abs(scale) * (np.abs(value.center) + value.spread)
    rest = np.abs(scale) * value.rest * (1.0 + 8 * ULP) + 16 * ULP * size
    return enclosed(reader, reader.key("zero", value.key), (b, a), center, slopes, rest)
