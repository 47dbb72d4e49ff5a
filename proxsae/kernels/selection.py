"""The k largest entries of each row, ties to the lowest index."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np


def top_k_mask(ranking: Any, k: int) -> Any:
    """Return a boolean array that marks the k largest positive entries of each row.

    Parameters
    ----------
    ranking : array of shape (..., n)
        NumPy or Torch. Entries <= 0 are never marked; among equal entries the lowest index is.
    k : int
        How many to mark in a row; every positive entry if k >= n.
    """
    if k == 0:
        return array_api_compat.array_namespace(ranking).zeros_like(ranking) > 0
    if k >= ranking.shape[-1] or 0 in ranking.shape:
        return ranking > 0
    threshold = _kth_largest(ranking, k)
    above = ranking > threshold
    tied = (ranking == threshold) & (ranking > 0)
    room = k - above.sum(-1)[..., None]
    return above | (tied & (tied.cumsum(-1) <= room))


def _kth_largest(ranking: Any, k: int) -> Any:
    n = ranking.shape[-1]
    if array_api_compat.is_torch_array(ranking):
        return ranking.detach().kthvalue(n - k + 1, dim=-1, keepdim=True).values
    return np.partition(ranking, n - k, axis=-1)[..., n - k, None]
