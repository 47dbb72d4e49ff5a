"""Coordinate descent on the Gram matrix as a compiled loop; the scalar prox comes in as a function."""

from __future__ import annotations

import numba
import numpy as np
from numba import float32, float64, types, void

INNER_SWEEPS = 100  # over the non-zeros, for one over all coordinates
MOST = 256  # non-zeros that have sweeps of their own: their Gram matrix stays in the cache
SETTLED = 1e-9  # of the largest code: a move that small ends them

# `prox(u, t, parameters)` as :func:`proxsae.formulas.numba.compiled` writes it
prox32 = types.FunctionType(float32(float32, float32, float32[::1]))
prox64 = types.FunctionType(float64(float64, float64, float64[::1]))


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def _subtract(q, value, row):  # type: ignore[no-untyped-def]
    for k in range(len(q)):
        q[k] -= value * row[k]


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def _settle(prox, parameters, A, steps, z, r, index, m):  # type: ignore[no-untyped-def]
    """Sweep over some coordinates until they settle; A is their Gram matrix, r their correlations."""
    one = len(parameters) == 1
    for _ in range(INNER_SWEEPS):
        largest, moved = 0.0, 0.0
        for a in range(m):
            j = index[a]
            new = prox(z[j] + steps[j] * r[a], steps[j], parameters[0 if one else j])
            change = new - z[j]
            if change != 0:
                z[j] = new
                row = A[a]
                for b in range(m):
                    r[b] -= change * row[b]
                moved = max(moved, abs(change) * np.sqrt(A[a, a]))
            largest = max(largest, abs(new) * np.sqrt(A[a, a]))
        if moved <= SETTLED * largest:
            return


@numba.njit(
    [
        void(prox, *(T[:, ::1],) * 2, *(T[::1],) * 3, *(T[:, ::1],) * 3, float64[::1])
        for prox, T in ((prox32, float32), (prox64, float64))
    ],
    nogil=True,
    cache=True,
    fastmath={"reassoc", "contract"},
)
def descend(prox, parameters, G, steps, below, above, C, Z, Q, moves):  # type: ignore[no-untyped-def]
    """Write into Z and Q = C - Z G, row by row, what a sweep over all coordinates and some over the non-zeros give.

    A coordinate becomes the prox with its own step 1 / G_jj, its best value with the others held. Q is summed afresh
    from C, so that nothing drifts; the sweeps over the non-zeros see their part of G alone. A zero with its correlation
    between `below` and `above` stays zero. What another sweep would change, in the norm of the coordinate-wise
    residual, is written into `moves`.
    """
    p = C.shape[1]
    one = len(parameters) == 1
    index, old = np.empty(MOST, np.int64), np.empty(MOST, C.dtype)
    A, r = np.empty((MOST, MOST), C.dtype), np.empty(MOST, C.dtype)
    for i in range(len(C)):
        z, q = Z[i], Q[i]
        q[:] = C[i]
        for j in range(p):
            if z[j] != 0:
                _subtract(q, z[j], G[j])
        m = 0
        for j in range(p):
            if z[j] == 0 and below[j] < q[j] < above[j]:
                continue
            new = prox(z[j] + steps[j] * q[j], steps[j], parameters[0 if one else j])
            if new != z[j]:
                _subtract(q, new - z[j], G[j])
                z[j] = new
            if new != 0:
                if m < MOST:
                    index[m], old[m] = j, new
                m += 1
        if m <= MOST:
            for a in range(m):
                r[a], atom = q[index[a]], G[index[a]]
                for b in range(m):
                    A[a, b] = atom[index[b]]
            _settle(prox, parameters, A, steps, z, r, index, m)
            for a in range(m):
                if z[index[a]] != old[a]:
                    _subtract(q, z[index[a]] - old[a], G[index[a]])
        total = 0.0
        for j in range(p):
            if z[j] == 0 and below[j] < q[j] < above[j]:
                continue
            move = float(prox(z[j] + steps[j] * q[j], steps[j], parameters[0 if one else j])) - z[j]
            total += move * move * G[j, j]
        moves[i] = np.sqrt(total)
