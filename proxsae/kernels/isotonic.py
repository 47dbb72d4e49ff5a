"""The non-increasing sequence nearest to a given one, for NumPy and Torch (with autograd)."""

from __future__ import annotations

from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, to_numpy


def nonincreasing_fit(V: Array) -> Array:
    """Return for each row the nearest non-increasing sequence, in float64, by pooling adjacent violators.

    Each pool takes the mean of its entries, and its gradient the mean of theirs. Torch tensors are fitted on the CPU.

    References
    ----------
    Best and Chakravarti (1990), Active set algorithms for isotonic regression, Math. Program. 47.
    """
    if not array_api_compat.is_torch_array(V):
        exact = V.dtype == object  # symbols, of a proof
        rows = (V if exact else np.ascontiguousarray(V, dtype=np.float64)).reshape(-1, V.shape[-1])
        fit = pooled_means(rows, pool_ends(rows)) if exact else _pooled_means(rows, _pool_ends(rows))
        return fit.reshape(V.shape)
    return _torch_fit().apply(V.double())


@cache
def _torch_fit() -> Any:
    import torch

    class Fit(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, V: Any) -> Any:
            rows = np.ascontiguousarray(to_numpy(V)).reshape(-1, V.shape[-1])
            context.ends = _pool_ends(rows)
            return torch.from_numpy(_pooled_means(rows, context.ends)).reshape(V.shape).to(V.device)

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            rows = np.ascontiguousarray(to_numpy(gradient)).reshape(-1, gradient.shape[-1])
            return torch.from_numpy(_pooled_means(rows, context.ends)).reshape(gradient.shape).to(gradient.device)

    return Fit


def _pool_ends(rows: Any) -> Any:
    """Return for each position the end of its pool."""
    return _compiled(pool_ends)(rows)


def _pooled_means(rows: Any, ends: Any) -> Any:
    return _compiled(pooled_means)(rows, ends)


@cache
def _compiled(function: Any) -> Any:
    import numba

    return numba.njit(function)


def pool_ends(rows: Any) -> Any:
    """Return for each position of each row one past the end of its pool; plain code, compiled on first use."""
    n, p = rows.shape
    ends = np.empty((n, p), np.int64)
    starts = np.empty(p, np.int64)
    sums = np.empty(p, rows.dtype)
    for i in range(n):
        pools = 0
        for j in range(p):
            starts[pools], sums[pools] = j, rows[i, j]
            pools += 1
            stop = j + 1
            # The last pool must not have a larger mean than the one before: compare without dividing.
            while pools > 1 and sums[pools - 1] * (starts[pools - 1] - starts[pools - 2]) > sums[pools - 2] * (
                stop - starts[pools - 1]
            ):
                sums[pools - 2] += sums[pools - 1]
                pools -= 1
        stop = p
        for pool in range(pools - 1, -1, -1):
            ends[i, starts[pool] : stop] = stop
            stop = starts[pool]
    return ends


def pooled_means(rows: Any, ends: Any) -> Any:
    """Return the mean of its pool at each position; plain code, compiled on first use."""
    n, p = rows.shape
    means = np.empty((n, p), rows.dtype)
    for i in range(n):
        start = 0
        while start < p:
            end = ends[i, start]
            total = 0.0
            for j in range(start, end):
                total += rows[i, j]
            means[i, start:end] = total / (end - start)
            start = end
    return means
