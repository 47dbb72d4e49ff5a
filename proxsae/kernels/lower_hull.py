"""The lower convex hull of points: of z^2 / 2 + t r(z) it holds every z that is the best for some u."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


def lower_hull(x: Any, y: Any) -> Any:
    """Return the indices of the lower convex hull of points with ascending x (Andrew's chain); compiled when used.

    Parameters
    ----------
    x, y : float64 array of shape (n,)
        The points.
    """
    return _compiled()(x, y)


@cache
def _compiled() -> Any:
    import numba

    return numba.njit(_lower_hull)


def _lower_hull(x: Any, y: Any) -> Any:
    hull = np.empty(len(x), np.int64)
    size = 0
    for i in range(len(x)):
        while size > 1:
            a, b = hull[size - 2], hull[size - 1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            size -= 1
        hull[size] = i
        size += 1
    return hull[:size]
