"""Which entries of a matrix survive: the k largest, ties to the lowest index, or those outside a dead zone.

The rank of an entry u is max(u, mirror u): its modulus for mirror = -1, itself for mirror = 1. Only positive ranks are
ever selected. `top_k_mask` is the plain version, for every kind of array; `row_support` and `matrix_support` return
the same selection as the sparse pattern (offsets, indices), by compiled loops in main memory and by Triton on CUDA.
`outside_support` selects by an interval for each column.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from proxsae.kernels.dispatch import on_cuda


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
    if array_api_compat.is_torch_array(ranks):
        ranks = ranks.detach()
        if ranks.is_cuda and ranks.numel() == n:  # kthvalue gives a row to one block of the device
            return ranks.sort(dim=-1, descending=True).values[..., k - 1 : k]
        return ranks.kthvalue(n - k + 1, dim=-1, keepdim=True).values
    return np.partition(ranks, n - k, axis=-1)[..., n - k, None]


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
    indices = np.empty((dense.shape[0], k), np.int64)
    counts = np.empty(dense.shape[0], np.int64)
    select_in_rows(dense, k, dense.dtype.type(mirror), indices, counts)
    held = indices.ravel() if (counts == k).all() else indices[np.arange(k) < counts[:, None]]
    return _as_kind_of(U, _offsets(np, counts), held)


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
    offsets, candidates = _ranked_above(U, _bound_below_kth(U, k, mirror), mirror)
    if offsets[-1] < k:  # the sample misled, or there are fewer than k positive ranks
        offsets, candidates = _ranked_above(U, 0.0, mirror)
    xp = array_api_compat.array_namespace(U)
    counts = xp.diff(offsets)
    rows = xp.repeat(xp.arange(len(U), device=array_api_compat.device(U)), counts)
    keep = top_k_mask(_ranks(U[rows, candidates], mirror)[None, :], k)[0]
    kept_before = xp.concat([xp.zeros_like(offsets[:1]), xp.cumulative_sum(xp.astype(keep, xp.int64))])
    return kept_before[offsets], candidates[keep]


def outside_support(U: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """Return the pattern (offsets, indices) of the entries of an (n, p) matrix with u_ij > high_j or u_ij < low_j."""
    dense = _in_main_memory(U)
    if dense is None:
        xp = array_api_compat.array_namespace(U)
        low, high = (xp.asarray(bound, dtype=U.dtype, device=U.device) for bound in (low, high))
        return pattern_of((U > high) | (U < low))
    return _as_kind_of(U, *_outside(dense, *(np.asarray(bound, dense.dtype) for bound in (low, high))))


def _outside(U: Any, low: Any, high: Any) -> tuple[Any, Any]:
    from proxsae.kernels.compiled_top_k import count_outside, fill_outside

    counts = np.empty(len(U), np.int64)
    count_outside(U, low, high, counts)
    offsets = _offsets(np, counts)
    indices = np.empty(offsets[-1], np.int64)
    fill_outside(U, low, high, offsets, indices)
    return offsets, indices


def _ranked_above(U: Any, threshold: float, mirror: float) -> tuple[Any, Any]:
    high = np.full(U.shape[1], threshold)
    return outside_support(U, -high if mirror == -1 else np.full_like(high, -np.inf), high)


def _bound_below_kth(U: Any, k: int, mirror: float) -> float:
    """Return a threshold that somewhat more than k ranks exceed, judged from about 32 rows."""
    sample = _ranks(U[:: max(1, len(U) // 32)], mirror).reshape(1, -1)
    size = sample.shape[1]
    position = int(1.5 * k * size / (U.shape[0] * U.shape[1])) + 32
    return max(float(_kth_largest(sample, position)[0, 0]), 0.0) if position < size else 0.0


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
