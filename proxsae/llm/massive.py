"""Massive activations: rows of the residual stream that are far larger than the rest.

In SmolLM2-135M after 15 blocks the first token of a context has norm 25,000 where the others have 160. In one context
of twenty the second token has such a norm as well, which the median of its position does not show. A single such row
outweighs the variance of thousands of others, so ``drop="auto"`` leaves out both: positions by their median norm, and
single rows by their norm.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

MASSIVE_RATIO = 10.0

Drop = str | int | Sequence[int]


def median_norm(norms: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Return the median of the norms where the mask is true; 0 if it is nowhere."""
    return float(np.median(norms[mask])) if mask.any() else 0.0


def massive_positions(norms: NDArray[np.floating], is_padding: NDArray[np.bool_]) -> list[int]:
    """Return the positions whose median norm over contexts is more than 10 times the median norm over all.

    Parameters
    ----------
    norms : array of shape (contexts, length)
        Euclidean norms of the residual stream.
    is_padding : boolean array of shape (contexts, length)
        The tokens to leave out.
    """
    overall = median_norm(norms, ~is_padding)
    return [
        position
        for position in range(norms.shape[1])
        if median_norm(norms[:, position], ~is_padding[:, position]) > MASSIVE_RATIO * overall
    ]


def warn_of_large(n_large: int, n_rows: int) -> None:
    """Warn that rows are kept which outweigh the others in every squared error."""
    if n_large:
        warnings.warn(
            f"{n_large} of {n_rows} rows kept are more than {MASSIVE_RATIO:g} times as long as the median row and "
            "dominate squared errors; drop='auto' leaves them out.",
            stacklevel=3,
        )


def dropped_positions(drop: Drop, norms: NDArray[np.floating], is_padding: NDArray[np.bool_]) -> list[int]:
    """Return the positions that `drop` names: measured for "auto", the first k for an integer k, else a list itself."""
    length = norms.shape[1]
    if isinstance(drop, str):
        return massive_positions(norms, is_padding)
    wanted = range(drop) if isinstance(drop, int) else drop
    return sorted({int(position) for position in wanted if position < length})


def check_drop(drop: Drop, length: int) -> None:
    """Raise ValueError unless `drop` is "auto", a number below `length` or positions below `length`."""
    if drop == "auto":
        return
    numbers: Iterable[object] = () if isinstance(drop, str) else [drop] if isinstance(drop, int) else drop
    valid = not isinstance(drop, str | bool) and all(
        isinstance(number, int | np.integer) and 0 <= number < length for number in numbers
    )
    if not valid:
        raise ValueError(
            f"drop={drop!r} was given; allowed are 'auto', a number of leading positions below the context length "
            f"{length}, "
            "or a list of positions."
        )
