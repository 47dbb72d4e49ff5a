"""The codes of a given support with a separate penalty r_i for every code: compiled loops over the scalar prox.

`prox(u, t, p)` and `value(z, p)` are compiled formulas; p is the row of P with the parameters of the atom.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections import namedtuple

import numba
import numpy as np
from numba import boolean, float64, int64, types, void

from proxsae.solvers.compiled_scalar import prox64, uncounted
from proxsae.solvers.pursuits.compiled_exchange import DEPENDENT
from proxsae.solvers.pursuits.compiled_gram import Gram, copy, place_of

MAX_PASSES = 2000
RIDGE = 1e-6  # of its squared norm: the curvature of an atom in the span of others; with less, steps drown in rounding
HALVINGS = 20  # of a Newton step that does not lower F
FINE = 1e-11  # moves that end a refit, relative to the norm of the target

value64 = types.FunctionType(float64(float64, float64[::1]))
matrix, vector, indices, counts = float64[:, ::1], float64[::1], int64[:, ::1], int64[::1]
gram64 = types.NamedTuple((matrix, counts, matrix, counts), Gram)
of_rows = void(  # what runs a method on rows of correlations; "supports, codes, counts, falls, taken" are written
    prox64, value64, matrix, matrix, vector, gram64, vector, int64, types.unicode_type, boolean, int64,
    float64, indices, matrix, counts, vector, counts,
)  # fmt: skip

# Of one thread. A, H, r, d, free: the Gram matrix of the support, a Cholesky factor, correlations, a Newton step and
# the codes it moves (refit). B, M, left, g: the tableau of `compiled_exchange`. sup, z, tc: the support, codes and
# correlations of what is tried; kept, codes: the support and the codes from which it is, and kept: atoms of a move.
# c: correlations. falls: what each atom would lower F by. is_out: 1 for atoms in use, or tried in vain.
Scratch = namedtuple("Scratch", "A H M B r d free z sup kept codes c left falls is_out tc g")


@numba.njit(error_model="numpy")
def scratch(k, p, has_tableau):
    """Return room for one thread."""
    rows = k if has_tableau else 0
    A, H, M, B = np.zeros((k, k)), np.zeros((k, k)), np.zeros((rows, rows)), np.zeros((rows, p))
    r, d, z, sup = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k, np.int64)
    c, left, falls, is_out, tc, g = np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p)
    free, kept, codes = np.zeros(k, np.int64), np.zeros(2 * k, np.int64), np.zeros(k)
    return Scratch(A, H, M, B, r, d, free, z, sup, kept, codes, c, left, falls, is_out, tc, g)


@uncounted(error_model="numpy")
def fall_of(c, s, p, prox, value):
    """Return the fall of F when a code is freed from zero, and that code."""
    z = prox(c / s, 1.0 / s, p)
    return z * (c - 0.5 * s * z) - value(z, p), z


@uncounted(error_model="numpy")
def correlations(c0, G, support, z, m, c):
    """Write the correlations with the residual to c."""
    copy(c0, c.size, c)
    for a in range(m):
        row = G.rows[place_of(G, support[a])]
        for j in range(c.size):
            c[j] -= z[a] * row[j]


@uncounted(error_model="numpy")
def objective(c0, c, support, z, m, P, value):
    """Return F less half the squared norm of the target."""
    total = 0.0
    for a in range(m):
        j = support[a]
        total += value(z[a], P[j]) - 0.5 * z[a] * (c0[j] + c[j])
    return total


@uncounted(error_model="numpy")
def refit(c0, G, support, z, m, P, prox, value, tolerance, S):
    """Minimise F over the codes of the support, by passes over the codes and Newton steps that lower F.

    At the end S.r holds the correlations of the support with the residual.
    """
    A, r = S.A, S.r
    for a in range(m):
        r[a], row = c0[support[a]], G.rows[place_of(G, support[a])]
        for b in range(m):
            A[a, b] = row[support[b]]
            r[a] -= A[a, b] * z[b]
    for n_pass in range(MAX_PASSES):
        move = 0.0
        for a in range(m):
            t = 1.0 / A[a, a]
            change = prox(z[a] + t * r[a], t, P[support[a]]) - z[a]
            if change != 0.0:
                z[a] += change
                for b in range(m):
                    r[b] -= change * A[a, b]
                move = max(move, abs(change) * np.sqrt(A[a, a]))
        if move <= tolerance:
            break
        if n_pass > 0:
            _newton_step(support, z, m, P, prox, value, S)


@uncounted(error_model="numpy")
def _newton_step(support, z, m, P, prox, value, S):
    """Solve z = prox(z + t r) with the present slopes of the prox, and go there, or less far where F is not lower.

    A slope q of the prox is a curvature (1 - q) / (q t) of r_i; codes at a kink, where q is 0, are held. The step ends
    where a first code meets a kink at 0.
    """
    A, H, r, d, free, n = S.A, S.H, S.r, S.d, S.free, 0
    for a in range(m):
        t, p = 1.0 / A[a, a], P[support[a]]
        u = z[a] + t * r[a]
        h = 1e-4 * abs(u) + 1e-300
        slope = (prox(u + h, t, p) - prox(u - h, t, p)) / (2.0 * h)
        if slope > 1e-6 and z[a] != 0.0:
            free[n], d[n], H[n, n] = a, (prox(u, t, p) - z[a]) / (slope * t), A[a, a] + (1.0 - slope) / (slope * t)
            n += 1
    _solve(A, H, free, n, d)
    step, first = 1.0, -1
    for i in range(n):
        a, old = free[i], z[free[i]]
        if old * (old + d[i]) < 0.0 and -old / d[i] < step:
            t, p, h = 1.0 / A[a, a], P[support[a]], 1e-4 * abs(old)
            if prox(h, t, p) * prox(-h, t, p) == 0.0:  # r_i has a kink at 0
                step, first = -old / d[i], i
    for i in range(n):
        d[i] = -z[free[i]] if i == first else step * d[i]
    for _ in range(HALVINGS):
        change = 0.0
        for i in range(n):
            a = free[i]
            change += value(z[a] + d[i], P[support[a]]) - value(z[a], P[support[a]]) - d[i] * r[a]
            for b in range(i + 1):
                change += (0.5 if b == i else 1.0) * d[i] * d[b] * A[a, free[b]]
        if change < 0.0:
            for i in range(n):
                z[free[i]] += d[i]
                for b in range(m):
                    r[b] -= d[i] * A[free[i], b]
            return
        for i in range(n):
            d[i] *= 0.5


@uncounted(error_model="numpy")
def _solve(A, H, free, n, d):
    """Solve by Cholesky, with the diagonal in H and the rest in A; an atom in the span of others has a ridge."""
    for i in range(n):
        for b in range(i + 1):
            entry = H[i, i] if b == i else A[free[i], free[b]]
            for e in range(b):
                entry -= H[i, e] * H[b, e]
            if b < i:
                H[i, b] = entry / H[b, b]
            else:
                size = A[free[i], free[i]]
                H[i, i] = np.sqrt(entry if entry > DEPENDENT * size else RIDGE * size)
        for b in range(i):
            d[i] -= H[i, b] * d[b]
        d[i] /= H[i, i]
    for i in range(n - 1, -1, -1):
        for b in range(i + 1, n):
            d[i] -= H[b, i] * d[b]
        d[i] /= H[i, i]


@uncounted(error_model="numpy")
def compress(support, z, m):
    """Take the zeros out of the support; return the number of atoms that stay."""
    n = 0
    for a in range(m):
        if z[a] != 0.0:
            support[n], z[n] = support[a], z[a]
            n += 1
    return n
