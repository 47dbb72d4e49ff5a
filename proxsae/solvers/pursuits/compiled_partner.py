"""Pursuits and exchanges with a separate penalty r_i for every code (compiled loops, one sample).

All methods compare atoms by how much F falls when the code of an atom is freed from zero: s g(c / s, 1 / s), with g the
gain of r_i, c the correlation of the atom with the residual and s the curvature. The curvature is the squared norm of
the atom if the other codes are held, or the part of it outside the span of the support if the other codes follow and
their penalties let them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numba
import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
from proxsae.solvers.pursuits.compiled_exchange import DEPENDENT, LEAST_FALL, build
from proxsae.solvers.pursuits.compiled_gram import copy, place_of
from proxsae.solvers.pursuits.compiled_refit import (
    FINE,
    compress,
    correlations,
    fall_of,
    objective,
    of_rows,
    refit,
    scratch,
)

ROUGH = 1e-6  # moves that end a refit with atoms still to come, relative to the norm of the target


@uncounted(error_model="numpy")
def pursue(c0, energy, G, diagonal, k, by_error, support, z, P, prox, value, S):
    """Add the atom of the best rank and refit, until k atoms are in use or no atom lowers F; return their number.

    The rank is the fall of F with held codes times the squared norm of the atom; `by_error`, with codes that follow.
    """
    m, F, least, root = 0, 0.0, LEAST_FALL * energy, np.sqrt(energy)
    copy(c0, c0.size, S.c)
    copy(diagonal, c0.size, S.left)
    S.is_out[:] = 0.0
    for _ in range(8 * k):
        best, most = -1, 0.0
        for j in range(c0.size):
            if diagonal[j] > 0.0 and S.is_out[j] == 0.0:
                if by_error:
                    curvature = max(S.left[j], DEPENDENT * diagonal[j])
                    rank = fall_of(S.c[j], curvature, P[j], prox, value)[0]
                else:
                    rank = diagonal[j] * fall_of(S.c[j], diagonal[j], P[j], prox, value)[0]
                if rank > most:
                    best, most = j, rank
        if best < 0 or m == k:
            break
        S.is_out[best] = 1.0
        fall, z[m] = fall_of(S.c[best], diagonal[best], P[best], prox, value)
        if not fall > least:
            continue
        support[m] = best
        refit(c0, G, support, z, m + 1, P, prox, value, ROUGH * root, S)
        for a in range(m + 1):
            if z[a] == 0.0:
                S.is_out[support[a]] = 0.0
        m = compress(support, z, m + 1)
        correlations(c0, G, support, z, m, S.c)
        previous, F = F, objective(c0, S.c, support, z, m, P, value)
        if not F < previous:
            break
        if by_error and m < k:
            copy(support, m, S.sup)
            build(c0, G, diagonal, S.sup, m, S.B, S.M, S.left, S.z, S.tc, S.g, S.d)
    refit(c0, G, support, z, m, P, prox, value, FINE * root, S)
    return compress(support, z, m)


@uncounted(error_model="numpy")
def match(c0, energy, G, diagonal, k, max_steps, support, z, P, prox, value, S):
    """Change the one code that lowers F most, repeatedly, with at most k atoms in use; return how many atoms and steps.

    The other codes are held: this is matching pursuit.
    """
    m, least = 0, LEAST_FALL * energy
    copy(c0, c0.size, S.c)
    S.is_out[:] = 0.0
    for n_steps in range(max_steps):
        place, atom, most, best = -1, -1, least, 0.0
        for a in range(m):
            j = support[a]
            t = 1.0 / diagonal[j]
            new = prox(z[a] + t * S.c[j], t, P[j])
            change = new - z[a]
            fall = change * (S.c[j] - 0.5 * diagonal[j] * change) + value(z[a], P[j]) - value(new, P[j])
            if fall > most:
                place, atom, most, best = a, j, fall, new
        if m < k:
            for j in range(c0.size):
                if diagonal[j] > 0.0 and S.is_out[j] == 0.0:
                    fall, new = fall_of(S.c[j], diagonal[j], P[j], prox, value)
                    if fall > most:
                        place, atom, most, best = m, j, fall, new
        if place < 0:
            return m, n_steps
        if place == m:
            support[m], z[m], S.is_out[atom] = atom, 0.0, 1.0
            m += 1
        change, row = best - z[place], G.rows[place_of(G, atom)]
        for j in range(c0.size):
            S.c[j] -= change * row[j]
        z[place] = best
        if best == 0.0:
            S.is_out[atom] = 0.0
            m = compress(support, z, m)
    return m, max_steps


@uncounted(error_model="numpy")
def exchange(c0, energy, G, diagonal, k, is_convex, support, z, m, max_exchanges, P, prox, value, S):
    """Exchange atoms until no exchange lowers F; return the number of atoms, the gain left, and the exchanges.

    An atom leaves, the others are refitted, and every atom is priced: where r is convex by a bound, with the least
    curvature possible once the other codes follow, and elsewhere with the other codes held. Atoms whose price is good
    enough are refitted, and taken if F is then lower.
    """
    least, fine, n_exchanges, n_in_vain = LEAST_FALL * energy, FINE * np.sqrt(energy), 0, 0
    refit(c0, G, support, z, m, P, prox, value, fine, S)
    m = compress(support, z, m)
    F, has_tableau = _placed(c0, G, diagonal, is_convex, support, z, m, P, value, S)
    place = -1
    while n_in_vain <= m:
        place = -1 if place + 1 >= m else place + 1  # -1: none leaves
        n_in_vain += 1
        if place < 0 and m == k:
            continue
        atom, n = _tried(
            c0, G, diagonal, is_convex, has_tableau, support, z, m, place, F - least, fine, P, prox, value, S
        )
        if atom < 0:
            continue
        if n_exchanges == max_exchanges:
            return m, F - objective(c0, S.tc, S.sup, S.z, n, P, value), n_exchanges
        m = n
        copy(S.sup, m, support)
        copy(S.z, m, z)
        F, has_tableau = _placed(c0, G, diagonal, is_convex, support, z, m, P, value, S)
        n_exchanges += 1
        n_in_vain = 0
    return m, 0.0, n_exchanges


@uncounted(error_model="numpy")
def _placed(c0, G, diagonal, is_convex, support, z, m, P, value, S):
    """Return F at new codes and whether their support has a tableau, which linearly dependent atoms do not have."""
    S.is_out[:] = 0.0
    for a in range(m):
        S.is_out[support[a]] = 1.0
    has_tableau = False
    if is_convex:
        copy(support, m, S.sup)
        has_tableau = m == build(c0, G, diagonal, S.sup, m, S.B, S.M, S.left, S.r, S.tc, S.g, S.d)
    correlations(c0, G, support, z, m, S.c)
    return objective(c0, S.c, support, z, m, P, value), has_tableau


@uncounted(error_model="numpy")
def _tried(c0, G, diagonal, is_convex, has_tableau, support, z, m, place, goal, fine, P, prox, value, S):
    """Return an atom that, exchanged for that at `place`, brings F below `goal`, or -1, and the number of atoms.

    The support and the codes are in S.sup and S.z, the correlations in S.tc.
    """
    n = 0
    for a in range(m):
        if a != place:
            S.sup[n], S.z[n] = support[a], z[a]
            n += 1
    refit(c0, G, S.sup, S.z, n, P, prox, value, fine, S)  # codes at 0 stay: they may leave it once an atom enters
    correlations(c0, G, S.sup, S.z, n, S.c)
    need = objective(c0, S.c, S.sup, S.z, n, P, value) - goal
    if need < 0.0:  # the others alone do better than they did with the atom, whose refit had not settled
        copy(S.c, c0.size, S.tc)
        return support[max(place, 0)], compress(S.sup, S.z, n)
    for j in range(c0.size):
        S.falls[j] = 0.0
        if diagonal[j] > 0.0 and S.is_out[j] == 0.0:
            curvature = DEPENDENT * diagonal[j] if is_convex else diagonal[j]
            if has_tableau and place < 0:
                curvature = max(S.left[j], curvature)
            elif has_tableau:
                curvature = max(S.left[j] + S.B[place, j] ** 2 / S.M[place, place], curvature)
            S.falls[j] = fall_of(S.c[j], curvature, P[j], prox, value)[0]
    copy(S.sup, n, S.kept)
    copy(S.z, n, S.codes)
    while True:
        j = int(np.argmax(S.falls))
        if not S.falls[j] > need:
            return -1, m
        S.falls[j] = 0.0
        copy(S.kept, n, S.sup)
        copy(S.codes, n, S.z)
        S.sup[n], S.z[n] = j, fall_of(S.c[j], diagonal[j], P[j], prox, value)[1]
        refit(c0, G, S.sup, S.z, n + 1, P, prox, value, fine, S)
        n_used = compress(S.sup, S.z, n + 1)
        correlations(c0, G, S.sup, S.z, n_used, S.tc)
        if objective(c0, S.tc, S.sup, S.z, n_used, P, value) < goal:
            return j, n_used


@numba.njit(of_rows, nogil=True, cache=True, error_model="numpy")
def pursue_rows(
    prox, value, P, C, energies, G, diagonal, k, method, is_convex, max_steps, step,  # noqa: ARG001
    supports, codes, counts, falls, taken,
):  # fmt: skip
    """Run "omp", "ols", "mp" or, from the codes that are there, "swap" for every row of correlations."""
    S = scratch(k, C.shape[1], method == "ols" or method == "swap")
    for i in range(C.shape[0]):
        support, z = supports[i], codes[i]
        if method == "swap":
            counts[i], falls[i], taken[i] = exchange(
                C[i], energies[i], G, diagonal, k, is_convex, support, z, counts[i], max_steps, P, prox, value, S
            )
        elif method == "mp":
            counts[i], taken[i] = match(C[i], energies[i], G, diagonal, k, max_steps, support, z, P, prox, value, S)
        else:
            counts[i] = pursue(C[i], energies[i], G, diagonal, k, method == "ols", support, z, P, prox, value, S)
            taken[i] = counts[i]
