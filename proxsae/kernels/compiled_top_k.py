"""The k largest entries of each row as compiled loops: a bound from below, then one pass for what is above it."""

from __future__ import annotations

import numba
import numpy as np

from proxsae.kernels.threads import parallel_loops

BLOCK = 64  # entries compared at once; the comparison of a block vectorises, a branch an entry does not
BISECTIONS = 30


@numba.njit(cache=True, inline="always")
def _any_above(block: np.ndarray, threshold: float, mirror: float) -> bool:
    """Whether some u of a full block has max(u, mirror u) above the threshold; branch-free, so that it vectorises."""
    above = False
    for c in range(BLOCK):
        above |= (block[c] > threshold) | (mirror * block[c] > threshold)
    return above


@numba.njit(cache=True)
def _keep_largest(ranks: np.ndarray, indices: np.ndarray, size: int, k: int) -> float:
    """Keep the k largest of the first `size` candidates, in order, earlier ones first among equals; return the k-th."""
    threshold = np.partition(ranks[:size], size - k)[size - k]
    room = k
    for c in range(size):
        room -= ranks[c] > threshold
    kept = 0
    for c in range(size):
        tied = ranks[c] == threshold
        if ranks[c] > threshold or (tied and room > 0):
            room -= tied
            ranks[kept] = ranks[c]
            indices[kept] = indices[c]
            kept += 1
    return float(threshold)


@numba.njit(cache=True, fastmath={"reassoc", "nsz"})
def _count_above(row: np.ndarray, threshold: float, mirror: float) -> float:
    """Return how many u of a short row have max(u, mirror u) above the threshold; a sum of floats vectorises."""
    one, zero = row.dtype.type(1), row.dtype.type(0)
    count = zero
    for c in range(row.size):
        count += one if (row[c] > threshold) | (mirror * row[c] > threshold) else zero
    return count  # type: ignore[no-any-return]


@numba.njit(cache=True)
def _by_bisection(row: np.ndarray, k: int, mirror: float) -> float:
    """Return a number at least 0 that k or more max(u, mirror u) are above, or 0; where no two are equal, exactly k."""
    low, high, two = row.dtype.type(0), np.abs(row).max(), row.dtype.type(2)
    count = _count_above(row, low, mirror)
    for _ in range(BISECTIONS):
        middle = (low + high) / two
        if count <= k or not low < middle < high:
            break
        above = _count_above(row, middle, mirror)
        if above >= k:
            low, count = middle, above
        else:
            high = middle
    return float(low)


@numba.njit(cache=True)
def _below_kth(row: np.ndarray, k: int, mirror: float) -> float:
    """Return a number below the k-th largest max(u, mirror u) of a row, close to it; at least 0.

    In a long row the maxima of disjoint groups of entries are entries of the row, so that the k-th largest maximum is
    at most the k-th largest entry. A group takes every n_groups-th entry: neighbours compare with neighbours, which
    vectorises.
    """
    zero, sign = row.dtype.type(0), row.dtype.type(mirror)
    n_groups = BLOCK * (4 * k // BLOCK + 1)
    if 4 * n_groups > row.size:
        return float(_by_bisection(row, k, sign))
    maxima = np.zeros(n_groups, row.dtype)
    for start in range(0, row.size - n_groups + 1, n_groups):
        group = row[start : start + n_groups]
        for c in range(n_groups):
            rank = group[c] if group[c] > sign * group[c] else sign * group[c]  # max() of two does not vectorise
            maxima[c] = rank if rank > maxima[c] else maxima[c]
    kth = np.partition(maxima, n_groups - k)[n_groups - k]
    return float(np.nextafter(kth, zero))  # the next smaller number, 0 after 0


@numba.njit(cache=True)
def _select_in_row(row: np.ndarray, k: int, mirror: float, out: np.ndarray) -> int:
    capacity = 4 * k + BLOCK
    ranks = np.empty(capacity, row.dtype)
    indices = np.empty(capacity, np.int64)
    size = 0
    threshold = row.dtype.type(_below_kth(row, k, mirror))
    for start in range(0, row.size, BLOCK):
        block = row[start : start + BLOCK]
        if block.size == BLOCK and not _any_above(block, threshold, mirror):
            continue
        for c in range(block.size):
            rank = max(block[c], mirror * block[c])
            if rank > threshold:  # strictly: an equal one further right loses to those already held
                ranks[size] = rank
                indices[size] = start + c
                size += 1
        if size > capacity - BLOCK:
            threshold = row.dtype.type(_keep_largest(ranks, indices, size, k))
            size = k
    if size > k:
        _keep_largest(ranks, indices, size, k)
        size = k
    out[:size] = indices[:size]
    return size


@parallel_loops()
def select_in_rows(U: np.ndarray, k: int, mirror: float, indices: np.ndarray, counts: np.ndarray) -> None:
    """Write the indices of the k largest positive max(u, mirror u) of each row, ascending, and how many there are."""
    for i in numba.prange(U.shape[0]):
        counts[i] = _select_in_row(U[i], k, mirror, indices[i])


@numba.njit(cache=True, inline="always")
def _any_outside(block: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    outside = False
    for c in range(BLOCK):
        outside |= (block[c] > high[c]) | (block[c] < low[c])
    return outside


@parallel_loops()
def count_outside(U: np.ndarray, low: np.ndarray, high: np.ndarray, counts: np.ndarray) -> None:
    """Count the entries of each row outside the interval [low_j, high_j] of their column."""
    for i in numba.prange(U.shape[0]):
        row = U[i]
        count = 0
        for start in range(0, row.size, BLOCK):
            stop = min(start + BLOCK, row.size)
            if stop - start == BLOCK and not _any_outside(row[start:stop], low[start:stop], high[start:stop]):
                continue
            for j in range(start, stop):
                count += (row[j] > high[j]) | (row[j] < low[j])
        counts[i] = count


@parallel_loops()
def fill_outside(U: np.ndarray, low: np.ndarray, high: np.ndarray, offsets: np.ndarray, indices: np.ndarray) -> None:
    """Write the columns of the entries outside their intervals, row after row."""
    for i in numba.prange(U.shape[0]):
        row = U[i]
        position = offsets[i]
        for start in range(0, row.size, BLOCK):
            stop = min(start + BLOCK, row.size)
            if stop - start == BLOCK and not _any_outside(row[start:stop], low[start:stop], high[start:stop]):
                continue
            for j in range(start, stop):
                if (row[j] > high[j]) | (row[j] < low[j]):
                    indices[position] = j
                    position += 1
