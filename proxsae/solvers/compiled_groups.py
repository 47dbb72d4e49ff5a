"""Coordinate descent by groups on the Gram matrix, as compiled loops."""

from __future__ import annotations

import numba
import numpy as np
from numba import float32, float64, int64, void

from proxsae.solvers.compiled_descent import correlate, subtract
from proxsae.solvers.compiled_scalar import prox64

MOST = 512  # coordinates of groups in use that are settled by themselves: their Gram matrix stays in the cache
SWEEPS = 100  # over them, at most
SETTLED = 1e-9  # of the longest group: a move that small ends them

_fast = {"reassoc", "contract"}


@numba.njit(fastmath=_fast, nogil=True)
def _best(prox, parameters, partner, partner_parameters, ridge, cost, t, members, slopes, u):  # type: ignore[no-untyped-def]
    """Overwrite u by the prox of one group at u; return the length of the prox."""
    shrink = 1.0 / (1.0 + t * ridge)
    one, size, largest = len(partner_parameters) == 1, len(members), 0.0
    for a in range(size):
        j = members[a]
        u[a] = partner((u[a] - t * slopes[j]) * shrink, t * shrink, partner_parameters[0 if one else j])
        largest = max(largest, abs(u[a]))
    if largest == 0.0:
        return 0.0
    total = 0.0
    for a in range(size):
        total += (u[a] / largest) ** 2
    length = largest * np.sqrt(total)
    new = prox(length, t * shrink * cost, parameters[0])
    for a in range(size):
        u[a] = 0.0 if new == 0.0 else u[a] * (new / length)
    return new


@numba.njit(
    [
        void(
            prox64, float64[:, ::1], prox64, float64[:, ::1], float64, float64[::1], float64[::1], float64[::1],
            int64[::1], int64[::1], float64[:, ::1], float64[:, ::1], T, float64[:, ::1],
        )
        for T in (float32[:, ::1], float64[:, ::1])
    ],
    nogil=True,
    cache=True,
    fastmath=_fast,
)  # fmt: skip
def descend_groups(  # type: ignore[no-untyped-def]
    prox, parameters, partner, partner_parameters, ridge, slopes, costs, steps, order, starts, G, C, Z, Q
):
    """Write into Z and Q = C - Z G, row by row, the result of a sweep over all groups and several over those in use.

    `order` lists the coordinates group by group, group g from starts[g] to starts[g + 1]; `steps` has one step a group.
    """
    p, n_groups = C.shape[1], len(steps)
    u, held = np.empty(p), np.empty(p)
    used, first = np.empty(n_groups, np.int64), np.empty(n_groups + 1, np.int64)
    index, A = np.empty(MOST, np.int64), np.empty((MOST, MOST))
    x, r, old = np.empty(MOST), np.empty(MOST), np.empty(MOST)
    for i in range(len(C)):
        z, q = Z[i], Q[i]
        correlate(q, C[i], z, G)
        n_used, m = 0, 0
        for g in range(n_groups):
            members, t = order[starts[g] : starts[g + 1]], steps[g]
            for a in range(len(members)):
                held[a] = z[members[a]]
                u[a] = held[a] + t * q[members[a]]
            length = _best(
                prox, parameters, partner, partner_parameters, ridge, costs[g], t, members, slopes, u[: len(members)]
            )
            for a in range(len(members)):
                z[members[a]] = u[a]
                if z[members[a]] != held[a]:
                    subtract(q, np.float64(z[members[a]]) - held[a], G[members[a]])
            if length != 0.0:
                used[n_used], first[n_used] = g, m
                n_used, m = n_used + 1, m + len(members)
        first[n_used] = m
        if not 0 < m <= MOST:
            continue
        for k in range(n_used):
            members = order[starts[used[k]] : starts[used[k] + 1]]
            for a in range(len(members)):
                index[first[k] + a] = members[a]
        for a in range(m):
            x[a], r[a], row = z[index[a]], q[index[a]], G[index[a]]
            old[a] = x[a]
            for b in range(m):
                A[a, b] = row[index[b]]
        for _ in range(SWEEPS):
            moved, longest = 0.0, 0.0
            for k in range(n_used):
                g, start = used[k], first[k]
                size, t = first[k + 1] - start, steps[g]
                for a in range(size):
                    u[a] = x[start + a] + t * r[start + a]
                length = _best(
                    prox, parameters, partner, partner_parameters, ridge, costs[g], t, index[start : start + size],
                    slopes, u[:size],
                )  # fmt: skip
                for a in range(size):
                    change = u[a] - x[start + a]
                    if change != 0.0:
                        x[start + a] = u[a]
                        row = A[start + a]
                        for b in range(m):
                            r[b] -= change * row[b]
                        moved = max(moved, abs(change) / np.sqrt(t))
                longest = max(longest, length / np.sqrt(t))
            if moved <= SETTLED * longest:
                break
        for a in range(m):
            z[index[a]] = x[a]
            if z[index[a]] != old[a]:
                subtract(q, np.float64(z[index[a]]) - old[a], G[index[a]])
