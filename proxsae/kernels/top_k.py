"""Which entries of a matrix survive: the k largest, ties to the lowest index, or those outside a dead zone.

The rank of an entry u is max(u, mirror u): its modulus for mirror = -1, itself for mirror = 1. Only positive ranks are
ever selected. `top_k_mask` is the plain version, for every kind of array; `row_support` and `matrix_support` return
the same selection as the sparse pattern (offsets, indices), by compiled loops in main memory. On CUDA Triton selects in
rows, and `row_support` fills rows with too few positive ranks up with others; elsewhere operations of the array's
library select. `Outside` selects by an interval for each column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from proxsae.kernels.dispatch import on_cuda

ROOM = 2**21  # indices, 8 MB, in which rows are searched before it is known how many they hold
Rule = Callable[[Any], tuple[Any, Any]]  # from an (n, p) matrix to the pattern (offsets, indices) of what is selected
FEW_ROWS = 32  # from which it is judged how large the largest entries of a matrix are


@dataclass(frozen=True)
class Largest:
    """The rule that selects the k entries of largest rank of each row."""

    k: int
    mirror: float

    def __call__(self, U: Any) -> tuple[Any, Any]:
        """Return the pattern (offsets, indices) of the entries that are selected from an (n, p) matrix."""
        return row_support(U, self.k, self.mirror)


@dataclass(frozen=True)
class Outside:
    """The rule that selects the entries outside an interval [low_j, high_j] for each column."""

    low: Any
    high: Any

    def __call__(self, U: Any) -> tuple[Any, Any]:
        """Return the pattern (offsets, indices) of the u_ij > high_j or < low_j of an (n, p) matrix."""
        dense = _in_main_memory(U)
        if dense is None:
            xp = array_api_compat.array_namespace(U)
            low, high = (xp.asarray(bound, dtype=U.dtype, device=U.device) for bound in (self.low, self.high))
            return pattern_of((U > high) | (U < low))
        low, high = (np.asarray(bound, dense.dtype) for bound in (self.low, self.high))
        return _as_kind_of(U, *_outside(dense, low, high))


def above(threshold: float, mirror: float, p: int) -> Outside:
    """Return the rule that selects ranks above a threshold."""
    high = np.full(p, threshold)
    return Outside(-high if mirror == -1 else np.full(p, -np.inf), high)


def top_k_mask(ranks: Any, k: int) -> Any:
    """Return a boolean array that marks the k largest positive entries of each row.

    Parameters
    ----------
    ranks : array of shape (..., n)
        NumPy or Torch. Among equal entries the lowest index is marked.
    k : int
        How many to mark in a row; every positive entry if k >= n.
    """
    if k == 0:
        return array_api_compat.array_namespace(ranks).zeros_like(ranks) > 0
    if k >= ranks.shape[-1] or 0 in ranks.shape:
        return ranks > 0
    threshold = _kth_largest(ranks, k)
    threshold = threshold * (threshold > 0)  # with fewer than k positive entries those alone are marked
    above = ranks > threshold
    tied = (ranks == threshold) & (ranks > 0)
    room = k - above.sum(-1)[..., None]
    return above | (tied & (tied.cumsum(-1) <= room))


def _kth_largest(ranks: Any, k: int) -> Any:
    n = ranks.shape[-1]
    if (dense := _in_main_memory(ranks)) is not None:  # where NumPy is faster
        return _as_kind_of(ranks, np.partition(dense, n - k, axis=-1)[..., n - k, None])[0]
    if not array_api_compat.is_torch_array(ranks):
        return np.partition(ranks, n - k, axis=-1)[..., n - k, None]
    ranks = ranks.detach()
    if ranks.is_cuda and ranks.numel() == n:  # kthvalue gives a row to one block of the device
        return ranks.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return ranks.kthvalue(n - k + 1, dim=-1, keepdim=True).values


def pattern_of(mask: Any) -> tuple[Any, Any]:
    """Return the offsets (n + 1,) and the column indices, row after row, of the marked entries of an (n, p) mask."""
    xp = array_api_compat.array_namespace(mask)
    indices = xp.nonzero(mask)[1]
    return _offsets(xp, mask.sum(-1)), indices


def row_support(U: Any, k: int, mirror: float) -> tuple[Any, Any]:
    """Return the pattern (offsets, indices) of the k entries of largest rank of each row of an (n, p) matrix."""
    dense = _in_main_memory(U)
    if k and 0 not in U.shape and on_cuda(U) and U.dtype.itemsize <= 4:
        return _row_support_on_cuda(U, min(k, U.shape[1]), mirror)
    if dense is None or k == 0:
        return pattern_of(top_k_mask(_ranks(U, mirror), k))
    from proxsae.kernels.compiled_top_k import select_in_rows

    k = min(k, dense.shape[1])
    indices, counts = np.empty((len(dense), k), np.int64), np.empty(len(dense), np.int64)
    select_in_rows(dense, k, dense.dtype.type(mirror), indices, counts)
    return _as_kind_of(U, *packed(indices, counts))


def _row_support_on_cuda(U: Any, k: int, mirror: float) -> tuple[Any, Any]:
    """Return k entries of every row, some of rank <= 0 where too few are positive, without waiting for the device."""
    import torch

    from proxsae.kernels.triton_top_k import select_in_rows

    offsets = k * torch.arange(len(U) + 1, device=U.device)
    return offsets, select_in_rows(U.detach().contiguous(), k, mirror).view(-1)


def matrix_support(U: Any, k: int, mirror: float) -> tuple[Any, Any]:
    """Return the pattern (offsets, indices) of the k entries of largest rank of a whole (n, p) matrix."""
    if k == 0 or 0 in U.shape:
        return pattern_of(U != U)  # nothing
    dense = _in_main_memory(U)
    if dense is not None and dense is not U:
        return _as_kind_of(U, *matrix_support(dense, k, mirror))
    bound = bound_below_kth(U[:: max(1, len(U) // FEW_ROWS)], k / (U.shape[0] * U.shape[1]), mirror)
    offsets, candidates = above(bound, mirror, U.shape[1])(U)
    if offsets[-1] < k:  # the sample misled, or there are fewer than k positive ranks
        offsets, candidates = above(0.0, mirror, U.shape[1])(U)
    xp = array_api_compat.array_namespace(U)
    rows = xp.repeat(xp.arange(len(U), device=array_api_compat.device(U)), xp.diff(offsets))
    keep = top_k_mask(_ranks(U[rows, candidates], mirror)[None, :], k)[0]
    return kept(offsets, candidates, keep)


def bound_below_kth(some: Any, share: float, mirror: float) -> float:
    """Return a number >= 0 that somewhat more than a share of all ranks exceed, estimated from some of the rows."""
    ranks = _ranks(some, mirror).reshape(1, -1)
    size = ranks.shape[1]
    position = int(1.5 * share * size) + 32
    return max(float(_kth_largest(ranks, position)[0, 0]), 0.0) if position < size else 0.0


def kept(offsets: Any, indices: Any, keep: Any) -> tuple[Any, Any]:
    """Return the pattern (offsets, indices) of the marked entries of another."""
    xp = array_api_compat.array_namespace(keep)
    kept_before = xp.concat([xp.zeros_like(offsets[:1]), xp.cumulative_sum(xp.astype(keep, xp.int64))])
    return kept_before[offsets], indices[keep]


def _outside(U: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """Return the pattern, computed for a few rows at a time, since there must be room for all of their entries."""
    from proxsae.kernels.compiled_top_k import select_outside

    size = max(1, ROOM // max(1, U.shape[1]))
    held, counts = np.empty((min(size, len(U)), U.shape[1]), np.int32), np.empty(len(U), np.int64)
    parts = [np.empty(0, np.int64)]
    for start in range(0, len(U), size):
        rows = slice(start, start + size)
        select_outside(U[rows], low, high, held, counts[rows])
        parts.append(packed(held, counts[rows])[1])
    return _offsets(np, counts), np.concatenate(parts)


def packed(held: Any, counts: Any) -> tuple[Any, Any]:
    """Return the pattern of the first indices of each row, as many as `counts` says."""
    from proxsae.kernels.compiled_top_k import pack

    offsets = _offsets(np, counts)
    indices = np.empty(offsets[-1], np.int64)
    pack(held, offsets, indices)
    return offsets, indices


def _ranks(U: Any, mirror: float) -> Any:
    return abs(U) if mirror == -1 else U


def _offsets(xp: Any, counts: Any) -> Any:
    zero = xp.zeros_like(counts[:1]) if len(counts) else xp.zeros(1, dtype=xp.int64)
    return xp.concat([zero, xp.cumsum(counts, 0)])


def _in_main_memory(U: Any) -> Any:
    """Return float32 or float64 entries as a C-contiguous NumPy array without copying where possible, or None."""
    if array_api_compat.is_torch_array(U):
        if U.device.type != "cpu":
            return None
        U = U.detach().resolve_neg()
        if str(U.dtype) not in ("torch.float32", "torch.float64"):
            return None
        U = U.numpy()
    return np.ascontiguousarray(U) if U.dtype in (np.float32, np.float64) else None


def _as_kind_of(U: Any, *arrays: Any) -> tuple[Any, ...]:
    if array_api_compat.is_torch_array(U):
        import torch

        return tuple(torch.from_numpy(a) for a in arrays)
    return arrays
