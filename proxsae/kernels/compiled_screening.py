"""The entries that a product of factors rounded to bfloat16 leaves in doubt, as compiled loops.

An entry in [center - error, center + error] may be selected unless no number of that interval would be selected.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from proxsae.kernels.compiled_top_k import BLOCK, bound_from_below, group_maxima, groups_for, keep_largest
from proxsae.kernels.threads import parallel_loops

UPPER = np.uint32(0xFFFF0000)  # the half of a float32 that is a bfloat16
SHIFT, ONE, BELOW_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)
HALF_UNIT = np.float32(2.0**-8)  # half a unit in the last place of a bfloat16, relative to its value
SLACK = np.float32(2.0**-20)  # of a bias: allows for the rounding of its addition in float32


@parallel_loops(fastmath={"reassoc", "contract"})
def to_bfloat16(A: np.ndarray, bits: np.ndarray, sizes: np.ndarray, losses: np.ndarray) -> None:
    """Write float32 rows rounded to bfloat16, ties to even, their norms, and the norms of what was rounded off."""
    for i in numba.prange(A.shape[0]):
        row = A[i]
        words = row.view(np.uint32)
        rounded = np.empty(row.size, np.uint32)
        for f in range(row.size):
            rounded[f] = (words[f] + BELOW_HALF + ((words[f] >> SHIFT) & ONE)) & UPPER
        for f in range(row.size):
            bits[i, f] = rounded[f] >> SHIFT
        size = loss = np.float32(0)
        kept = rounded.view(np.float32)
        for f in range(row.size):
            lost = row[f] - kept[f]
            size += row[f] * row[f]
            loss += lost * lost
        sizes[i], losses[i] = math.sqrt(size), math.sqrt(loss)


@numba.njit(cache=True, fastmath={"nsz", "contract"})
def _estimate(
    bits: np.ndarray, bias: np.ndarray, size: float, loss: float, of_columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a row of x W^T + b from rounded products, and a bound on its error."""
    center, error = np.empty(bits.size, np.float32), np.empty(bits.size, np.float32)
    sizes, losses = of_columns[0], of_columns[1]
    words = center.view(np.uint32)
    for j in range(bits.size):
        words[j] = np.uint32(bits[j]) << SHIFT
    for j in range(bits.size):
        product = center[j]
        error[j] = size * losses[j] + loss * sizes[j] + HALF_UNIT * abs(product) + SLACK * abs(bias[j])
        center[j] = product + bias[j]
    return center, error


@numba.njit(cache=True)
def _write_positive(values: np.ndarray, held: np.ndarray) -> int:
    """Write the indices of positive numbers and return their number, or p where there is no room."""
    size, zero = 0, values.dtype.type(0)
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        if block.size == BLOCK:
            any_positive = False
            for c in range(BLOCK):
                any_positive |= block[c] > zero
            if not any_positive:
                continue
        if size + BLOCK >= held.size:
            return values.size
        for c in range(block.size):
            held[size] = start + c  # and again, unless it is positive
            size += block[c] > zero
    return size


@parallel_loops()
def near_largest(
    bits: np.ndarray,
    bias: np.ndarray,
    of_rows: np.ndarray,
    of_columns: np.ndarray,
    k: int,
    mirror: float,
    held: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Write for each row the entries that may be among the k of largest max(u, mirror u), and their number.

    Parameters
    ----------
    bits : uint16 array of shape (n, p)
        The product of the rounded factors, as bfloat16.
    bias : float32 array of shape (p,)
    of_rows : float32 array of shape (2, n)
        Norms of the rows of x, and of their rounding errors; an infinite error says that nothing is known of a row.
    of_columns : float32 array of shape (2, p)
        Norms of the rounded rows of W, and of their rounding errors.
    held : int32 array of shape (n, room)
        Room for indices, ascending.
    counts : int64 array of shape (n,)
        The number of indices; p, which stands for all, where nothing is known or there is no room.
    """
    n, p = bits.shape
    n_groups = groups_for(p, k)
    for i in numba.prange(n):
        counts[i] = p
        if of_rows[1, i] < np.inf:
            center, error = _estimate(bits[i], bias, of_rows[0, i], of_rows[1, i], of_columns)
            for j in range(p):
                rank = center[j] if center[j] > mirror * center[j] else mirror * center[j]
                center[j] = rank - error[j]
                error[j] += rank
            cut, _ = bound_from_below(group_maxima(center, np.float32(1), n_groups), k)
            for j in range(p):
                error[j] -= cut
            counts[i] = _write_positive(error, held[i])


@parallel_loops()
def near_outside(
    bits: np.ndarray,
    bias: np.ndarray,
    of_rows: np.ndarray,
    of_columns: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    held: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Write as :func:`near_largest` does the entries that may be outside the interval [low_j, high_j]."""
    n, p = bits.shape
    for i in numba.prange(n):
        counts[i] = p
        if of_rows[1, i] < np.inf:
            center, error = _estimate(bits[i], bias, of_rows[0, i], of_rows[1, i], of_columns)
            for j in range(p):
                above, below = center[j] - high[j], low[j] - center[j]
                error[j] += above if above > below else below
            counts[i] = _write_positive(error, held[i])


@parallel_loops()
def write_near(held: np.ndarray, p: int, offsets: np.ndarray, indices: np.ndarray) -> None:
    """Write the indices of each row from its offset on; a count of p stands for all indices."""
    for i in numba.prange(offsets.size - 1):
        first, size = offsets[i], offsets[i + 1] - offsets[i]
        for e in range(size):
            indices[first + e] = e if size == p else held[i, e]


@parallel_loops()
def largest_among(
    offsets: np.ndarray, entries: np.ndarray, k: int, mirror: float, held: np.ndarray, counts: np.ndarray
) -> None:
    """Write for each row the numbers of its k entries of largest positive max(u, mirror u), and their count."""
    for i in numba.prange(offsets.size - 1):
        first, size = offsets[i], 0
        ranks, numbers = np.empty(offsets[i + 1] - first, np.float32), np.empty(offsets[i + 1] - first, np.int64)
        for e in range(first, offsets[i + 1]):
            ranks[size] = max(entries[e], mirror * entries[e])
            numbers[size] = e
            size += ranks[size] > 0
        if size > k:
            keep_largest(ranks, numbers, size, k)
            size = k
        held[i, :size] = numbers[:size]
        counts[i] = size
