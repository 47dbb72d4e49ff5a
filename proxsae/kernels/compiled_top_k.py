"""Selections in the rows of a matrix as compiled loops.

The k largest entries of a row are found from a lower bound on them. The maxima of disjoint groups of entries are
entries of the row, so that the k-th largest maximum is at most the k-th largest entry. Only groups whose maximum is
above this bound, about k, are read again.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from proxsae.kernels.threads import parallel_loops

BLOCK = 64  # entries compared at once; the comparison of a block vectorises, a branch an entry does not
BISECTIONS = 30
ROWS = 8  # compared with the same part of the intervals while it is in the first cache


@numba.njit(cache=True, fastmath={"reassoc", "nsz"})
def _count_above(ranks: np.ndarray, threshold: float) -> float:
    """Return how many of a few numbers are above the threshold; a sum of floats vectorises."""
    one, zero = ranks.dtype.type(1), ranks.dtype.type(0)
    count = zero
    for c in range(ranks.size):
        count += one if ranks[c] > threshold else zero
    return count  # type: ignore[no-any-return]


@numba.njit(cache=True)
def bound_from_below(ranks: np.ndarray, k: int) -> tuple[float, bool]:
    """Return a number >= 0 that at least k ranks exceed, or 0, and whether at most k ranks exceed it."""
    low, high, two = ranks.dtype.type(0), ranks.max(), ranks.dtype.type(2)
    count = _count_above(ranks, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / two
        if count <= k or not low < middle < high:
            break
        above = _count_above(ranks, middle)
        if above >= k:
            low, count = middle, above
        else:
            high = middle
    return low, count <= k


@numba.njit(cache=True)
def keep_largest(ranks: np.ndarray, indices: np.ndarray, size: int, k: int) -> float:
    """Keep the k largest of the first `size` candidates, in order, earlier ones first among equals.

    Returns a number that no other candidate exceeds.
    """
    threshold, is_exact = bound_from_below(ranks[:size], k)
    room = 0
    if not is_exact:  # some are equal, or nearly
        threshold = np.partition(ranks[:size], size - k)[size - k]
        room = k
        for c in range(size):
            room -= ranks[c] > threshold
    kept = 0
    for c in range(size):
        tied = room > 0 and ranks[c] == threshold
        if ranks[c] > threshold or tied:
            room -= tied
            ranks[kept] = ranks[c]
            indices[kept] = indices[c]
            kept += 1
    return threshold  # type: ignore[no-any-return]


@numba.njit(cache=True)
def groups_for(size: int, k: int) -> int:
    """Return the number of groups for which maxima and entries to read again are about equally many."""
    n_groups = BLOCK * (int(math.sqrt(k * size)) // BLOCK + 1)
    return size if 4 * n_groups > size else n_groups


@numba.njit(cache=True)
def group_maxima(row: np.ndarray, mirror: float, n_groups: int) -> np.ndarray:
    """Return the largest max(u, mirror u), at least 0, of each group, which is every n_groups-th entry from its first.

    Neighbouring entries belong to neighbouring groups, so that the comparison vectorises.
    """
    maxima = np.zeros(n_groups, row.dtype)
    for start in range(0, row.size - n_groups + 1, n_groups):
        group = row[start : start + n_groups]
        for c in range(n_groups):
            rank = group[c] if group[c] > mirror * group[c] else mirror * group[c]  # max() of two does not vectorise
            maxima[c] = rank if rank > maxima[c] else maxima[c]
    return maxima


@numba.njit(cache=True)
def _select_in_row(row: np.ndarray, k: int, mirror: float, out: np.ndarray) -> int:
    n_groups = groups_for(row.size, k)
    maxima = group_maxima(row, mirror, n_groups)
    threshold, _ = bound_from_below(maxima, k)
    groups = np.empty(n_groups, np.int64)
    n_held = 0
    for c in range(n_groups):
        if maxima[c] > threshold:
            groups[n_held] = c
            n_held += 1
    capacity = 4 * k + n_groups
    ranks, indices = np.empty(capacity, row.dtype), np.empty(capacity, np.int64)
    size = 0
    n_grouped = row.size // n_groups * n_groups
    for start in range(0, n_grouped, n_groups):
        for c in groups[:n_held]:
            rank = max(row[start + c], mirror * row[start + c])
            if rank > threshold:  # strictly: an equal one further right loses to those already held
                ranks[size] = rank
                indices[size] = start + c
                size += 1
        if size > capacity - n_groups:
            threshold = keep_largest(ranks, indices, size, k)
            size = k
    for j in range(n_grouped, row.size):
        rank = max(row[j], mirror * row[j])
        if rank > threshold:
            ranks[size] = rank
            indices[size] = j
            size += 1
    if size > k:
        keep_largest(ranks, indices, size, k)
        size = k
    out[:size] = indices[:size]
    return size


@parallel_loops()
def select_in_rows(U: np.ndarray, k: int, mirror: float, indices: np.ndarray, counts: np.ndarray) -> None:
    """Write the indices of the k largest positive max(u, mirror u) of each row, ascending, and their number."""
    for i in numba.prange(U.shape[0]):
        counts[i] = _select_in_row(U[i], k, mirror, indices[i])


@numba.njit(cache=True, inline="always")
def _any_outside(block: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    outside = False
    for c in range(BLOCK):
        outside |= (block[c] > high[c]) | (block[c] < low[c])
    return outside


@parallel_loops()
def select_outside(U: np.ndarray, low: np.ndarray, high: np.ndarray, indices: np.ndarray, counts: np.ndarray) -> None:
    """Write the columns of the entries of each row outside the interval [low_j, high_j], and their number."""
    n, p = U.shape
    for task in numba.prange((n + ROWS - 1) // ROWS):
        rows = range(task * ROWS, min((task + 1) * ROWS, n))
        counts[rows.start : rows.stop] = 0
        for start in range(0, p, BLOCK):
            stop = min(start + BLOCK, p)
            bottom, top = low[start:stop], high[start:stop]
            for i in rows:
                block, held, size = U[i, start:stop], indices[i], counts[i]
                if block.size == BLOCK and not _any_outside(block, bottom, top):
                    continue
                for c in range(block.size):
                    held[size] = start + c  # and again, unless it is outside: there is room, size is at most start + c
                    size += (block[c] > top[c]) | (block[c] < bottom[c])
                counts[i] = size


@parallel_loops()
def pack(held: np.ndarray, offsets: np.ndarray, indices: np.ndarray) -> None:
    """Write the first entries of each row one after another, those of row i from offsets[i] on."""
    for i in numba.prange(offsets.size - 1):
        first = offsets[i]
        for e in range(offsets[i + 1] - first):
            indices[first + e] = held[i, e]
