"""Coordinate descent on the Gram matrix as a compiled loop; the scalar prox comes in as a function."""

from __future__ import annotations

import numba
import numpy as np
from numba import float32, float64, types, void

INNER_SWEEPS = 10  # over the non-zeros, for one over all coordinates

scalar32 = types.FunctionType(float32(float32, float32, float32[::1]))
scalar64 = types.FunctionType(float64(float64, float64, float64[::1]))


@numba.njit(
    [
        void(
            scalar32, float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], float32[:, ::1], float32[:, ::1]
        ),
        void(
            scalar64, float64[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1]
        ),
    ],
    nogil=True,
    cache=True,
    fastmath={"reassoc", "contract"},
)
def descend(prox, parameters, G, steps, C, Z, Q):  # type: ignore[no-untyped-def]
    """Write into Z and Q = C - Z G, row by row, what a sweep over all coordinates and some over the non-zeros give.

    A coordinate becomes the prox with its own step 1 / G_jj, its best value with the others held. Q is summed afresh
    from C, so that nothing drifts.
    """
    p = C.shape[1]
    one = len(parameters) == 1
    for i in range(len(C)):
        z, q = Z[i], Q[i]
        q[:] = C[i]
        for j in range(p):
            if z[j] != 0:
                atom, value = G[j], z[j]
                for k in range(p):
                    q[k] -= value * atom[k]
        for n_sweep in range(1 + INNER_SWEEPS):
            largest, moved = 0.0, 0.0
            for j in range(p):
                old = z[j]
                if n_sweep > 0 and old == 0:
                    continue
                new = prox(old + steps[j] * q[j], steps[j], parameters[0 if one else j])
                if new != old:
                    change, atom = new - old, G[j]
                    z[j] = new
                    for k in range(p):
                        q[k] -= change * atom[k]
                    moved = max(moved, abs(change) * np.sqrt(atom[j]))
                largest = max(largest, abs(new) * np.sqrt(G[j, j]))
            if n_sweep > 0 and moved <= 1e-3 * largest:
                break
