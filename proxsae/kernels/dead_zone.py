"""The interval that a monotone function of one variable maps to zero, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def dead_zone(prox: Callable[[Any], Any], n_components: int, dtype: str, *, is_uniform: bool) -> tuple[Any, Any] | None:
    """Return for each coordinate the least and the largest number of a dtype with prox 0; None if 0 has another prox.

    A search over the numbers of the dtype with the prox itself finds the ends exactly; an end is infinite where the
    prox of every number of that sign is 0. `is_uniform` says that all coordinates share one prox.
    """
    if dtype not in ("float32", "float64") or np.any(prox(np.zeros(1, dtype))):
        return None
    width, fan = (1, 64) if is_uniform else (n_components, 2)  # few calls where a call costs more than its work
    integer = np.dtype(dtype.replace("float", "int"))
    largest = np.array(np.finfo(dtype).max / 16, dtype).view(integer)  # beyond, a sum of a few overflows
    side = np.array([-1.0, 1.0], dtype)[:, None, None]
    nth = np.arange(1, fan + 1, dtype=integer)[:, None]
    # Positive floats are ordered as the integers of the same bits.
    low, high = np.zeros((2, width), integer), np.full((2, width), largest)
    while (low < high).any():
        gap = (high - low)[:, None, :]
        points = low[:, None, :] + gap // fan * nth + np.minimum(nth, gap % fan)  # the last one is high
        n_zero = (prox(side * points.view(dtype)) == 0).sum(1, keepdims=True)
        last_zero = np.take_along_axis(points, np.maximum(n_zero - 1, 0), 1)
        first_other = np.take_along_axis(points, np.minimum(n_zero, fan - 1), 1)
        low = np.where(n_zero > 0, last_zero, low[:, None, :])[:, 0]
        high = np.where(n_zero < fan, first_other - 1, high[:, None, :])[:, 0]
    ends = side[:, 0] * np.where(low == largest, np.inf, low.view(dtype))
    below, above = np.broadcast_to(ends, (2, n_components)).astype(dtype)
    return below, above
