"""Pursuits that choose all atoms of a support at once, by the gain rule (compiled loops, one sample).

The candidates of a step are in S.sup and S.z.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numba
import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
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

SHARE = 0.99  # of the longest step at which the quadratic model of F is an upper bound
SETTLED = 1e-14  # of the squared norm of the target: steps that lower F by less end the iteration


@uncounted(error_model="numpy")
def step_from(k, step, support, z, m, P, prox, value, S):
    """Write the proximal step from z, with the correlations in S.c, to the candidates; return their number."""
    for j in range(S.c.size):
        S.falls[j] = 0.0
        S.g[j] = S.c[j]
    for a in range(m):
        S.g[support[a]] += z[a] / step
    for j in range(S.c.size):
        S.falls[j] = fall_of(S.g[j], 1.0 / step, P[j], prox, value)[0]  # the gain of u = z + step c, over the step
    n = 0
    while n < k:
        j = int(np.argmax(S.falls))
        if not S.falls[j] > 0.0:
            break
        S.falls[j] = 0.0
        S.sup[n], S.z[n] = j, prox(step * S.g[j], step, P[j])
        n += 1
    return n


@uncounted(error_model="numpy")
def refit_on_steps(c0, energy, G, k, step, max_steps, support, z, m, P, prox, value, S):
    """Refit on the support of the proximal step until that support stays; return the number of atoms and of steps."""
    root = np.sqrt(energy)
    for n_steps in range(max_steps):
        correlations(c0, G, support, z, m, S.c)
        n = step_from(k, step, support, z, m, P, prox, value, S)
        S.is_out[:] = 0.0
        for a in range(m):
            S.is_out[support[a]] = 1.0
        stays = 0
        for a in range(n):
            stays += S.is_out[S.sup[a]] > 0.0
        if n_steps > 0 and stays == n and n == m:
            return m, n_steps
        m = n
        copy(S.sup, m, support)
        copy(S.z, m, z)
        refit(c0, G, support, z, m, P, prox, value, FINE * root, S)
        m = compress(support, z, m)
    return m, max_steps


@uncounted(error_model="numpy")
def iterate_steps(c0, energy, G, k, least_step, max_steps, support, z, m, P, prox, value, S):
    """Take proximal steps as long as the support allows, until they move little; return how many atoms and steps.

    The step is that of steepest descent on the support, halved until the quadratic model is an upper bound of F for
    this move, as it always is for the least step, so that F falls.
    """
    for n_steps in range(max_steps):
        correlations(c0, G, support, z, m, S.c)
        length, curvature = 0.0, 0.0
        for a in range(m):
            S.d[a] = S.c[support[a]]
            length += S.d[a] * S.d[a]
        for a in range(m):
            row = G.rows[place_of(G, support[a])]
            for b in range(m):
                curvature += S.d[a] * S.d[b] * row[support[b]]
        step = max(least_step, length / curvature) if curvature > 0.0 else least_step
        while True:
            n = step_from(k, step, support, z, m, P, prox, value, S)
            moved, bent = _move(G, support, z, m, n, S)
            if step <= least_step or step * bent <= SHARE * moved:
                break
            step = max(least_step, 0.5 * step)
        m = n
        copy(S.sup, m, support)
        copy(S.z, m, z)
        if moved <= SETTLED * energy * step:
            return m, n_steps
    return m, max_steps


@uncounted(error_model="numpy")
def _move(G, support, z, m, n, S):
    """Return the squared length of the move from z to the n candidates, and that of its reconstruction."""
    atoms, n_atoms = S.kept, 0
    S.g[:], S.is_out[:] = 0.0, 0.0
    for a in range(m + n):
        j = support[a] if a < m else S.sup[a - m]
        S.g[j] += -z[a] if a < m else S.z[a - m]
        if S.is_out[j] == 0.0:
            S.is_out[j] = 1.0
            atoms[n_atoms] = j
            n_atoms += 1
    moved, bent = 0.0, 0.0
    for a in range(n_atoms):
        moved += S.g[atoms[a]] ** 2
        row = G.rows[place_of(G, atoms[a])]
        for b in range(n_atoms):
            bent += S.g[atoms[a]] * S.g[atoms[b]] * row[atoms[b]]
    return moved, bent


@uncounted(error_model="numpy")
def refit_and_prune(c0, energy, G, diagonal, k, max_steps, support, z, m, P, prox, value, S):
    """Refit on the atoms in use and 2k of largest gain, and keep k, until F stops falling; return m and the steps."""
    least, fine = SETTLED * energy, FINE * np.sqrt(energy)
    correlations(c0, G, support, z, m, S.c)
    F = objective(c0, S.c, support, z, m, P, value)
    for n_steps in range(max_steps):
        S.is_out[:] = 0.0
        for a in range(m):
            S.sup[a], S.z[a], S.is_out[support[a]] = support[a], z[a], 1.0
        for j in range(c0.size):
            S.falls[j] = 0.0
            if diagonal[j] > 0.0 and S.is_out[j] == 0.0:
                S.falls[j] = diagonal[j] * fall_of(S.c[j], diagonal[j], P[j], prox, value)[0]
        n = m
        while n < min(m + 2 * k, S.sup.size):
            j = int(np.argmax(S.falls))
            if not S.falls[j] > 0.0:
                break
            S.falls[j] = 0.0
            S.sup[n], S.z[n] = j, 0.0
            n += 1
        refit(c0, G, S.sup, S.z, n, P, prox, value, fine, S)
        n = compress(S.sup, S.z, n)
        correlations(c0, G, S.sup, S.z, n, S.c)
        while n > k:  # the atom whose code is worth least goes
            worst, worth = -1, np.inf
            for a in range(n):
                j = S.sup[a]
                gain = diagonal[j] * fall_of(S.c[j] + diagonal[j] * S.z[a], diagonal[j], P[j], prox, value)[0]
                if gain < worth:
                    worst, worth = a, gain
            n -= 1
            S.sup[worst], S.z[worst] = S.sup[n], S.z[n]
        refit(c0, G, S.sup, S.z, n, P, prox, value, fine, S)
        n = compress(S.sup, S.z, n)
        correlations(c0, G, S.sup, S.z, n, S.c)
        new = objective(c0, S.c, S.sup, S.z, n, P, value)
        if not new < F - least:
            return m, n_steps
        m, F = n, new
        copy(S.sup, m, support)
        copy(S.z, m, z)
    return m, max_steps


@numba.njit(of_rows, nogil=True, cache=True, error_model="numpy")
def threshold_rows(
    prox, value, P, C, energies, G, diagonal, k, method, is_convex, max_steps, step,  # noqa: ARG001
    supports, codes, counts, falls, taken,  # noqa: ARG001
):  # fmt: skip
    """Run "htp", "iht" or "cosamp" for every row of correlations, from the codes that are there."""
    S = scratch(min(3 * k, C.shape[1]) if method == "cosamp" else k, C.shape[1], False)
    for i in range(C.shape[0]):
        support, z, m = supports[i], codes[i], counts[i]
        if method == "htp":
            counts[i], taken[i] = refit_on_steps(
                C[i], energies[i], G, k, step, max_steps, support, z, m, P, prox, value, S
            )
        elif method == "iht":
            counts[i], taken[i] = iterate_steps(
                C[i], energies[i], G, k, step, max_steps, support, z, m, P, prox, value, S
            )
        else:
            counts[i], taken[i] = refit_and_prune(
                C[i], energies[i], G, diagonal, k, max_steps, support, z, m, P, prox, value, S
            )
