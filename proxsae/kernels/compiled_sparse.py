"""Products with a sparse code matrix as compiled loops."""

from __future__ import annotations

import numba
import numpy as np

from proxsae.kernels.threads import parallel_loops

SLAB = 64  # features that are summed at a time: those of thousands of rows stay in the cache
TASKS = 4  # a slab


@parallel_loops()
def gather(offsets: np.ndarray, indices: np.ndarray, U: np.ndarray, out: np.ndarray) -> None:
    """Write the entries of U on the support."""
    for i in numba.prange(offsets.size - 1):
        row = U[i]
        for e in range(offsets[i], offsets[i + 1]):
            out[e] = row[indices[e]]


@parallel_loops(fastmath={"reassoc", "contract"})
def row_dots(offsets: np.ndarray, indices: np.ndarray, G: np.ndarray, D: np.ndarray, out: np.ndarray) -> None:
    """Write <G_i, D_j> for every entry (i, j) of the support, four at a time."""
    for i in numba.prange(offsets.size - 1):
        g = G[i]
        e, end = offsets[i], offsets[i + 1]
        while e + 4 <= end:
            a, b, c, d = D[indices[e]], D[indices[e + 1]], D[indices[e + 2]], D[indices[e + 3]]
            of_a = of_b = of_c = of_d = G.dtype.type(0)
            for f in range(g.size):
                of_a += g[f] * a[f]
                of_b += g[f] * b[f]
                of_c += g[f] * c[f]
                of_d += g[f] * d[f]
            out[e], out[e + 1], out[e + 2], out[e + 3] = of_a, of_b, of_c, of_d
            e += 4
        while e < end:
            a, of_a = D[indices[e]], G.dtype.type(0)
            for f in range(g.size):
                of_a += g[f] * a[f]
            out[e] = of_a
            e += 1


@parallel_loops()
def to_slabs(G: np.ndarray, slabs: np.ndarray) -> None:
    """Write each block of SLAB columns of G as a matrix of its own, with zeros beyond the last column."""
    for i in numba.prange(G.shape[0]):
        for s in range(slabs.shape[0]):
            width = min(SLAB, G.shape[1] - s * SLAB)
            slabs[s, i, :width] = G[i, s * SLAB : s * SLAB + width]
            slabs[s, i, width:] = 0


@parallel_loops(fastmath={"contract"})
def transposed_product(
    column_offsets: np.ndarray, rows: np.ndarray, values: np.ndarray, slabs: np.ndarray, out: np.ndarray
) -> None:
    """Write Z^T G for codes Z given by columns and slabs of G, an atom and a slab at a time, four entries at once."""
    p, n_features = out.shape
    part = (p + TASKS - 1) // TASKS
    for task in numba.prange(slabs.shape[0] * TASKS):
        G, start = slabs[task // TASKS], task // TASKS * SLAB
        width = min(SLAB, n_features - start)
        total = np.empty(SLAB, out.dtype)
        first = task % TASKS * part
        for j in range(first, min(first + part, p)):
            total[:] = 0
            e, end = column_offsets[j], column_offsets[j + 1]
            while e + 4 <= end:
                a, b, c, d = G[rows[e]], G[rows[e + 1]], G[rows[e + 2]], G[rows[e + 3]]
                of_a, of_b, of_c, of_d = values[e], values[e + 1], values[e + 2], values[e + 3]
                for f in range(SLAB):
                    total[f] += of_a * a[f] + of_b * b[f] + of_c * c[f] + of_d * d[f]
                e += 4
            while e < end:
                a, of_a = G[rows[e]], values[e]
                for f in range(SLAB):
                    total[f] += of_a * a[f]
                e += 1
            out[j, start : start + width] = total[:width]


@numba.njit(cache=True)
def columns_of(offsets: np.ndarray, indices: np.ndarray, n_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the column offsets, the entries sorted by column (stable), and their rows."""
    column_offsets = np.zeros(n_columns + 1, np.int64)
    for j in indices:
        column_offsets[j + 1] += 1
    column_offsets = np.cumsum(column_offsets)
    entries = np.empty(indices.size, np.int64)
    rows = np.empty(indices.size, np.int64)
    position = column_offsets[:-1].copy()
    for i in range(offsets.size - 1):
        for e in range(offsets[i], offsets[i + 1]):
            at = position[indices[e]]
            entries[at], rows[at] = e, i
            position[indices[e]] += 1
    return column_offsets, entries, rows
