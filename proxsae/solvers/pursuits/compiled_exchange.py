"""Exchanges of one atom for another, all priced at once by the tableau of the support (compiled loops, one sample).

The tableau of a support S holds B = G_SS^-1 G_S, one row for each atom of S, M = G_SS^-1, and `left`: for every atom
the part of its squared norm outside the span of S. The codes z on S and the correlations c with the residual are
updated with it. Atoms enter and leave by pivots (the sweep operator). An atom of S has `left` = infinity, so that it
never enters again; an empty place of S has zeros in its row.

References
----------
Goodnight (1979), A tutorial on the SWEEP operator, The American Statistician 33.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numba
import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
from proxsae.solvers.pursuits.compiled_gram import copy, place_of

DEPENDENT = 1e-13  # an atom with less left of its squared norm lies in the span of the support
LEAST_FALL = 1e-12  # of the squared norm of the target: the least fall of the squared error by an exchange
BLOCK = 64  # atoms priced at once


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def enter(j, a, G, support, B, M, left, z, c, g, h):
    """Let atom j enter at the empty place a; g and h are scratch."""
    copy(G.rows[place_of(G, j)], g.size, g)
    for b in range(z.size):
        h[b] = B[b, j]
        if h[b] != 0.0:
            row = G.rows[place_of(G, support[b])]
            for i in range(g.size):
                g[i] -= h[b] * row[i]
    inverse = 1.0 / left[j]
    value = c[j] * inverse
    for i in range(g.size):
        c[i] -= value * g[i]
        left[i] -= g[i] * g[i] * inverse
    for b in range(z.size):
        if h[b] != 0.0:
            z[b] -= h[b] * value
            share, row = h[b] * inverse, B[b]
            for i in range(g.size):
                row[i] -= share * g[i]
            for e in range(z.size):
                M[b, e] += share * h[e]
            M[b, a] = M[a, b] = -share
    row = B[a]
    for i in range(g.size):
        row[i] = g[i] * inverse
    M[a, a], z[a], support[a], left[j] = inverse, value, j, np.inf


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def leave(a, support, B, M, left, z, c, h):
    """Let the atom at place a leave; h is scratch."""
    i, row = support[a], B[a]
    whole = 1.0 / M[a, a]  # its squared norm outside the span of the others
    value = z[a] * whole
    for j in range(c.size):
        c[j] += value * row[j]
        left[j] += row[j] * row[j] * whole
    left[i], c[i] = whole, value
    copy(M[a], z.size, h)
    for b in range(z.size):
        share = h[b] * whole
        if b != a and share != 0.0:
            z[b] -= share * z[a]
            other = B[b]
            for j in range(c.size):
                other[j] -= share * row[j]
            for e in range(z.size):
                M[b, e] -= share * h[e]
    z[a], row[:], M[a, :], M[:, a] = 0.0, 0.0, 0.0, 0.0


@uncounted(cache=True, error_model="numpy")
def build(c0, G, diagonal, support, m, B, M, left, z, c, g, h):
    """Fill the tableau of the first m atoms of the support, without those in the span of others; return the rank."""
    B[:, :], M[:, :], z[:] = 0.0, 0.0, 0.0
    copy(c0, c.size, c)
    copy(diagonal, c.size, left)
    for j in range(c.size):
        if diagonal[j] <= 0.0:
            left[j] = np.inf  # a zero atom never enters
    n = 0
    for a in range(m):
        j = support[a]
        if left[j] > DEPENDENT * diagonal[j] and left[j] < np.inf:
            enter(j, n, G, support, B, M, left, z, c, g, h)
            n += 1
    return n


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def _any_better(c, left, row, value, whole, fall):
    """Whether c^2 / left of some atom is above `fall` after an atom has left the support; vectorises."""
    better = False
    for j in range(c.size):
        moved = c[j] + value * row[j]
        better |= moved * moved > fall * (left[j] + row[j] * row[j] * whole)
    return better


@uncounted(cache=True, error_model="numpy")
def best_exchange(diagonal, m, B, M, left, z, c, least):
    """Return the exchange (place, atom) that lowers the squared error most and above `least`, and by how much.

    Among equals the first place and the first atom win. If no exchange lowers it, the place is -1.
    """
    place, atom, most = -1, -1, least
    for a in range(m):
        row, whole = B[a], 1.0 / M[a, a]
        value, rise = z[a] * whole, z[a] * z[a] * whole
        for start in range(0, c.size, BLOCK):
            stop = min(start + BLOCK, c.size)
            if not _any_better(c[start:stop], left[start:stop], row[start:stop], value, whole, rise + most):
                continue
            for j in range(start, stop):
                remains = left[j] + row[j] * row[j] * whole
                if DEPENDENT * diagonal[j] < remains < np.inf:
                    moved = c[j] + value * row[j]
                    fall = moved * moved / remains - rise
                    if fall > most:
                        place, atom, most = a, j, fall
    return place, atom, most


@uncounted(cache=True, error_model="numpy")
def best_entry(diagonal, left, c, least):
    """Return the atom that lowers the squared error most by entering and above `least`, or -1, and by how much."""
    atom, most = -1, least
    for j in range(c.size):
        if DEPENDENT * diagonal[j] < left[j] < np.inf and c[j] * c[j] > most * left[j]:
            atom, most = j, c[j] * c[j] / left[j]
    return atom, most


@uncounted(cache=True, error_model="numpy")
def exchange(c0, energy, G, diagonal, k, support, m, max_exchanges, B, M, left, z, c, g, h):
    """Exchange atoms until none lowers the squared error; return the number of atoms, the gain left, and exchanges.

    The gain of an exchange is known up to rounding; the final check uses a tableau that is built afresh.
    """
    least, n_exchanges = LEAST_FALL * energy, 0
    while True:
        m = build(c0, G, diagonal, support, m, B, M, left, z, c, g, h)
        is_fresh = True
        while True:
            a, (j, fall) = m, best_entry(diagonal, left, c, least) if m < k else (-1, least)
            if j < 0:
                a, j, fall = best_exchange(diagonal, m, B, M, left, z, c, least)
            if j < 0 or n_exchanges == max_exchanges:
                break
            if a == m:
                m += 1
            else:
                leave(a, support, B, M, left, z, c, h)
            enter(j, a, G, support, B, M, left, z, c, g, h)
            n_exchanges += 1
            is_fresh = False
        if is_fresh:
            break
    for a in range(m):  # one step of refinement
        h[a], row = c0[support[a]], G.rows[place_of(G, support[a])]
        for b in range(m):
            h[a] -= row[support[b]] * z[b]
    for a in range(m):
        for b in range(m):
            z[a] += M[a, b] * h[b]
    return m, 0.0 if j < 0 else fall, n_exchanges


@numba.njit(cache=True, nogil=True, error_model="numpy")
def exchange_rows(C, energies, G, diagonal, k, supports, counts, max_exchanges, codes, falls, n_exchanges):
    """Run :func:`exchange` for every row of correlations; supports and counts are updated."""
    p = C.shape[1]
    B, M = np.empty((k, p)), np.empty((k, k))
    left, c, g, z, h = np.empty(p), np.empty(p), np.empty(p), np.empty(k), np.empty(k)
    for i in range(C.shape[0]):
        counts[i], falls[i], n_exchanges[i] = exchange(
            C[i], energies[i], G, diagonal, k, supports[i], counts[i], max_exchanges, B, M, left, z, c, g, h
        )
        codes[i, : counts[i]] = z[: counts[i]]
