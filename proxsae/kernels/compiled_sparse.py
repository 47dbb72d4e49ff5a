"""Products with a sparse code matrix as compiled loops."""

from __future__ import annotations

import numba
import numpy as np

from proxsae.kernels.threads import parallel_loops


@parallel_loops(fastmath={"reassoc", "contract"})
def row_dots(offsets: np.ndarray, indices: np.ndarray, G: np.ndarray, D: np.ndarray, out: np.ndarray) -> None:
    """Write <G_i, D_j> for every entry (i, j) of the support."""
    for i in numba.prange(offsets.size - 1):
        for e in range(offsets[i], offsets[i + 1]):
            total = G.dtype.type(0)
            atom = D[indices[e]]
            for c in range(G.shape[1]):
                total += G[i, c] * atom[c]
            out[e] = total


@parallel_loops()
def transposed_product(
    column_offsets: np.ndarray,
    entries: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    G: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write Z^T G, an atom at a time, for codes Z given by columns."""
    for j in numba.prange(column_offsets.size - 1):
        total = out[j]
        total[:] = 0
        for e in range(column_offsets[j], column_offsets[j + 1]):
            value = values[entries[e]]
            sample = G[rows[entries[e]]]
            for c in range(G.shape[1]):
                total[c] += value * sample[c]


@numba.njit(cache=True)
def columns_of(offsets: np.ndarray, indices: np.ndarray, n_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the column offsets, the entries sorted by column (stable), and the row of each entry."""
    column_offsets = np.zeros(n_columns + 1, np.int64)
    for j in indices:
        column_offsets[j + 1] += 1
    column_offsets = np.cumsum(column_offsets)
    entries = np.empty(indices.size, np.int64)
    rows = np.empty(indices.size, np.int64)
    position = column_offsets[:-1].copy()
    for i in range(offsets.size - 1):
        for e in range(offsets[i], offsets[i + 1]):
            rows[e] = i
            entries[position[indices[e]]] = e
            position[indices[e]] += 1
    return column_offsets, entries, rows
