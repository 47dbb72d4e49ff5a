"""Whole numbers: whether a value is one that is large enough, and evenly spaced ones."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_count(value: Any, least: int = 1) -> bool:
    """Whether it is an integer of at least `least`, and no bool."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer of at least `least`, or raise ValueError."""
    if not is_count(value, least):
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def evenly_spaced(n_rows: int, most: int) -> NDArray[np.int64]:
    """Return the indices of at most `most` evenly spaced rows."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, most)).astype(np.int64))
