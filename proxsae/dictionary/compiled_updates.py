"""Loops of the dictionary step, compiled: sums over codes, and a pass over the atoms."""

from __future__ import annotations

import numba
import numpy as np
from numba import boolean, float64, int32, int64, void


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def _add(target, value, row):  # type: ignore[no-untyped-def]
    for k in range(len(target)):
        target[k] += value * row[k]


@numba.njit(
    [
        void(float64[:, ::1], float64[:, ::1], index[::1], index[::1], float64[::1], float64[:, ::1], float64[::1])
        for index in (int32, int64)
    ],
    nogil=True,
    cache=True,
    fastmath={"reassoc", "contract"},
)
def add_products(gram, moments, starts, columns, values, X, weights):  # type: ignore[no-untyped-def]
    """Add the sums of w z z^T and w z x^T over samples, z the rows of a CSR matrix: one after the other, for caches."""
    for i in range(len(X)):
        for a in range(starts[i], starts[i + 1]):
            value, row = weights[i] * values[a], gram[columns[a]]
            for b in range(starts[i], starts[i + 1]):
                row[columns[b]] += value * values[b]
    for i in range(len(X)):
        for a in range(starts[i], starts[i + 1]):
            _add(moments[columns[a]], weights[i] * values[a], X[i])


@numba.njit([void(float64[:, ::1], float64[:, ::1], boolean, boolean)], nogil=True, cache=True)
def project(U, instead, in_ball, nonnegative):  # type: ignore[no-untyped-def]
    """Overwrite rows by the nearest of norm 1, or at most 1, and >= 0 on request; `instead` where there is none."""
    for i in range(len(U)):
        u, square = U[i], 0.0
        largest = np.argmax(u)
        is_negative = nonnegative and u[largest] <= 0.0 and u.min() < 0.0
        for k in range(len(u)):
            if nonnegative:
                u[k] = max(u[k], 0.0)
            square += u[k] * u[k]
        norm = np.sqrt(square)
        if norm > 0.0 and not (in_ball and norm <= 1.0):
            for k in range(len(u)):
                u[k] /= norm
        elif not in_ball and is_negative:  # the nearest points along the largest entry
            u[largest] = 1.0
        elif not in_ball:
            u[:] = instead[i]


@numba.njit(
    [void(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], boolean, boolean)],
    nogil=True,
    cache=True,
)
def descend_block(D, C, inner, diagonal, in_ball, nonnegative):  # type: ignore[no-untyped-def]
    """Set each atom of a block D to the best one with the others held, in place.

    C holds B - A D of the block, kept up to date for the atoms still to come; `inner` is A within the block.
    """
    new = np.empty((1, D.shape[1]))
    for i in range(len(D)):
        for k in range(D.shape[1]):
            new[0, k] = D[i, k] + C[i, k] / diagonal[i]
        project(new, D[i : i + 1], in_ball, nonnegative)
        for k in range(D.shape[1]):
            D[i, k], new[0, k] = new[0, k], new[0, k] - D[i, k]
        for h in range(i + 1, len(D)):
            _add(C[h], -inner[h, i], new[0])
