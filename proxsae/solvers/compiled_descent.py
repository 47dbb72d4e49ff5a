"""Coordinate descent on the Gram matrix as a compiled loop; the scalar prox comes in as a function."""

from __future__ import annotations

import numba
import numpy as np
from numba import float64, void

from proxsae.solvers.compiled_newton import minimise_on_set
from proxsae.solvers.compiled_scalar import by_dtype, prox64

MOST = 256  # non-zeros that are settled by themselves: their Gram matrix stays in the cache
EPS = float(np.finfo(np.float64).eps)
SETTLED = 1e-12  # of the largest correlation: a move that small ends it


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})
def subtract(q, value, row):  # type: ignore[no-untyped-def]
    """Subtract a multiple of a row of the Gram matrix from correlations."""
    for k in range(len(q)):
        q[k] -= value * row[k]


@numba.njit(nogil=True)
def correlate(q, c, z, G):  # type: ignore[no-untyped-def]
    """Write c - z G, the correlations of all atoms with the residual."""
    q[:] = c
    for j in range(len(z)):
        if z[j] != 0:
            subtract(q, np.float64(z[j]), G[j])


@by_dtype(
    lambda T: void(
        prox64, *(float64[:, ::1],) * 2, *(float64[::1],) * 3, float64[:, ::1], T[:, ::1], float64[:, ::1], float64[::1]
    ),
    fastmath={"reassoc", "contract"},
)
def descend(prox, parameters, G, steps, below, above, C, Z, Q, moves):  # type: ignore[no-untyped-def]
    """Write into Z and Q = C - Z G, row by row, the result of a sweep, and of sweeps over the non-zeros.

    A coordinate is set to the prox with its own step 1 / G_jj, its best value with the others held. Q is summed afresh
    from C, so that rounding errors do not accumulate. A zero with its correlation between `below` and `above` stays
    zero. A bound on the change by another sweep, in the norm of the coordinate-wise residual, is written into `moves`.
    """
    p = C.shape[1]
    one = len(parameters) == 1
    index, support, kinked = np.empty(MOST, np.int64), np.empty(MOST, np.int64), np.empty(MOST, np.bool_)
    A, L, work, rest = np.empty((MOST, MOST)), np.empty((MOST, MOST)), np.empty((3, MOST)), np.empty((2, MOST))
    x, r, t, old = np.empty(MOST), np.empty(MOST), np.empty(MOST), np.empty(MOST)
    for i in range(len(C)):
        z, q = Z[i], Q[i]
        correlate(q, C[i], z, G)
        m, ref = 0, 0.0
        for j in range(p):
            ref = max(ref, abs(q[j]))
            if z[j] == 0 and below[j] < q[j] < above[j]:
                continue
            before = np.float64(z[j])
            z[j] = prox(before + steps[j] * q[j], steps[j], parameters[0 if one else j])
            if z[j] != before:
                subtract(q, np.float64(z[j]) - before, G[j])
            if z[j] != 0:
                if m < MOST:
                    index[m] = j
                m += 1
        if 0 < m <= MOST:
            for a in range(m):
                j, atom = index[a], G[index[a]]
                x[a], r[a], t[a], old[a] = z[j], q[j], steps[j], z[j]
                rest[0, a], rest[1, a], kinked[a] = below[j], above[j], below[j] < above[j]
                ref = max(ref, abs(x[a]) / t[a])
                for b in range(m):
                    A[a, b] = atom[index[b]]
            noise = 32 * EPS * ref
            minimise_on_set(prox, parameters, A, t, rest, x, r, index, m, L, work, support, kinked, ref, SETTLED, noise)
            for a in range(m):
                z[index[a]] = x[a]
                if z[index[a]] != old[a]:
                    subtract(q, np.float64(z[index[a]]) - old[a], G[index[a]])
        total = 0.0
        for j in range(p):
            if z[j] == 0 and below[j] < q[j] < above[j]:
                continue
            move = prox(z[j] + steps[j] * q[j], steps[j], parameters[0 if one else j]) - z[j]
            total += move * move * G[j, j]
        moves[i] = np.sqrt(total)
