"""What half-planes keep of the square [-1, 1]^2, over many squares at once."""

from __future__ import annotations

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.boxes.enclosures import Enclosure


def square(n: int) -> tuple[Array, Array]:
    """Return the corners of n squares in order, arrays (4, n)."""
    return np.repeat([[-1.0], [1.0], [1.0], [-1.0]], n, 1), np.repeat([[-1.0], [-1.0], [1.0], [1.0]], n, 1)


def clipped(x: Array, y: Array, sign: Array, excess: Enclosure) -> tuple[Array, Array]:
    """Return the polygons cut down to where sign * excess may be at least 0 (Sutherland and Hodgman).

    Corners come in order; some may stand twice, and all are NaN where nothing is left. What is cut is never too much: a
    corner on the line is moved outwards along its edge by the rest of the affine function and by the rounding.
    """
    slopes = [*excess.slopes, np.zeros(()), np.zeros(())][:2]
    rest = excess.rest + sum(np.abs(s) for s in excess.slopes[2:])
    spare = (rest + 1e-13 * (np.abs(excess.center) + excess.spread)) * (1.0 + 1e-12)
    level = sign * (excess.center + slopes[0] * x + slopes[1] * y) + spare
    level = np.where((sign == 0) | ~np.isfinite(spare), 1.0, level)
    inside = level >= 0
    if inside.all():
        return x, y
    following = np.roll(level, -1, 0), np.roll(x, -1, 0), np.roll(y, -1, 0)
    crosses = inside != (following[0] >= 0)
    share = np.clip(level / np.where(crosses, level - following[0], 1.0), 0.0, 1.0)
    on_line = [corner + share * (after - corner) for corner, after in ((x, following[1]), (y, following[2]))]
    parts = []
    for corner, crossing in zip((x, y), on_line, strict=True):
        pairs = np.stack([np.where(inside, corner, np.nan), np.where(crosses, crossing, np.nan)], 1)
        parts.append(pairs.reshape(-1, x.shape[1]))
    return _filled(parts[0]), _filled(parts[1])


def _filled(corners: Array) -> Array:
    """Put the corner before in place of each that is missing."""
    corners = corners.copy()
    for _ in range(2):
        for i in range(len(corners)):
            corners[i] = np.where(np.isnan(corners[i]), corners[i - 1], corners[i])
    return corners
