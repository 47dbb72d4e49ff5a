r"""Orthogonal pursuits in two precisions: float32 for all atoms, float64 for the few atoms that may be best.

Nearly all of the work of a pursuit is to update the correlations of all atoms and their squared norms outside the span
of the support; in float32 that moves half the memory. The directions times the atoms are :math:`Q = L^{-1} G_S`, by
forward substitution, whose rounding errors are a few roundings times :math:`\|L^{-1}\| \|d_j\|`. The gain of an atom
therefore lies between two known bounds. Atoms whose upper bound is above the largest lower bound are compared in the
precision of the Gram matrix, in which the Cholesky factor and the codes are computed as well. Where there are more than
a few such atoms, as at a residual that is zero to rounding, the row is left to
:mod:`proxsae.solvers.pursuits.compiled_pursuit`.

References
----------
Higham (2002), Accuracy and stability of numerical algorithms, section 8.1.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections import namedtuple

import numba
import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
from proxsae.solvers.pursuits.compiled_pursuit import IN_SPAN, NOISE, projected

ROUNDINGS = 8.0  # of float32, times the norm of the inverse factor: the error that a direction is taken to have
MOST = 16  # atoms compared exactly
WIDTH = 1024  # atoms updated at once: their sums stay in the first-level cache while all directions pass
LANES = 16  # rows of small matrices are padded with zeros to multiples, so that loops over them have no remainder
SINGLE = float(np.finfo(np.float32).eps)

# Of one thread, in float64 unless said. L, inverse: the Cholesky factor of the Gram matrix of the support, and its
# inverse. amounts: of the directions. g, w: products of an atom with the support and with the directions; best: w of
# the best so far. Q, w32, v32: in float32, the directions times all atoms, and scratch; bits: v32 as integers. left:
# weights, in float32. above: marks of atoms; eights: the same memory, eight marks a number.
Scratch = namedtuple("Scratch", "L inverse amounts g w best short Q w32 v32 bits top left above eights")


@numba.njit(cache=True, error_model="numpy")
def _scratch(k, p):
    width = -(-k // LANES) * LANES
    L, inverse, single = np.zeros((k, width)), np.zeros((k, width)), np.float32
    g, w, best, short = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(MOST, np.int64)
    Q, w32, v32 = np.zeros((k + 8, p), single), np.zeros(k + 8, single), np.zeros(WIDTH, single)
    bits, top = v32.view(np.int32), np.zeros(1, np.int32)
    above = np.zeros(-(-p // 8) * 8, np.bool_)
    left, eights = np.zeros(p, single), above.view(np.int64)
    return Scratch(L, inverse, np.zeros(k), g, w, best, short, Q, w32, v32, bits, top, left, above, eights)


@uncounted(cache=True, error_model="numpy")
def _largest(bits):
    """Return the largest of numbers >= 0 by their bits: integers have the same order, and their maximum vectorises."""
    most = np.int32(0)
    for j in range(bits.size):
        most = bits[j] if bits[j] > most else most
    return most


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def _valued(c, weight, noise, noise_of_weight, worth):
    """Write the lower bounds of c^2 / weight."""
    zero = np.float32(0.0)
    for j in range(c.size):
        size = abs(c[j]) - noise
        size = size if size > zero else zero
        worth[j] = size * size / (weight[j] + noise_of_weight)


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def _advanced(v, inverse_root, amount, by_error, q, c, weight, noise, noise_of_weight):
    """Turn v into a direction q, subtract it from c and `weight`, and overwrite v by the output of :func:`_valued`."""
    zero = np.float32(0.0)
    for j in range(v.size):
        direction = v[j] * inverse_root
        q[j] = direction
        moved = c[j] - amount * direction
        c[j] = moved
        left = weight[j] - direction * direction if by_error else weight[j]
        weight[j] = left
        size = abs(moved) - noise
        size = size if size > zero else zero
        v[j] = size * size / (left + noise_of_weight)


@uncounted(cache=True, error_model="numpy")
def _most(c, noise, noise_of_weight, S):
    """Return the largest lower bound of c^2 / weight."""
    most = np.int32(0)
    for start in range(0, c.size, WIDTH):
        stop = min(start + WIDTH, c.size)
        _valued(c[start:stop], S.left[start:stop], noise, noise_of_weight, S.v32)
        most = max(most, _largest(S.bits[: stop - start]))
    S.top[0] = most
    return S.top.view(np.float32)[0]


@uncounted(cache=True, error_model="numpy")
def _compared(c, weight, most, noise, noise_of_weight, above):
    """Write whether the upper bound of each atom is at least `most`; without branches, so that it vectorises."""
    for j in range(c.size):
        size = abs(c[j]) + noise
        above[j] = size * size >= most * (weight[j] - noise_of_weight)


@uncounted(cache=True, error_model="numpy")
def _shortlist(c, most, noise, noise_of_weight, S):
    """List the atoms, in order, whose upper bound is at least `most`; return their number, at most MOST + 1."""
    _compared(c, S.left, most, noise, noise_of_weight, S.above)
    n = 0
    for i in range(S.eights.size):
        if S.eights[i] != 0:
            for j in range(8 * i, 8 * i + 8):
                if S.above[j] and S.left[j] < np.inf:
                    if n == MOST:
                        return MOST + 1
                    S.short[n] = j
                    n += 1
    return n


@uncounted(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _dot(x, y):
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j]) * np.float64(y[j])
    return total


@uncounted(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _exact(c, square, j, atoms, G, support, m, S):
    """Return the correlation of atom j with the residual and its squared norm outside the span; write S.w."""
    left, g, w = np.float64(square), S.g, S.w
    for a in range(m):
        g[a] = G[j, support[a]] if len(G) else _dot(atoms[j], atoms[support[a]])
    g[m:] = 0.0
    for a in range(m):
        inverse, total = S.inverse[a], 0.0
        for b in range(g.size):
            total += inverse[b] * g[b]
        w[a] = total
        c -= S.amounts[a] * total
        left -= total * total
    return c, left


@uncounted(cache=True, error_model="numpy")
def _decided(y, energy, atoms, G, diagonal, by_error, n, support, m, eps, S):
    """Return the best atom of the shortlist, its correlation and squared norm left; -1 where all gains are noise."""
    best, best_c, best_left, most = -1, 0.0, 0.0, 0.0
    for i in range(n):
        j = S.short[i]
        c, left = _exact(_dot(y, atoms[j]), diagonal[j], j, atoms, G, support, m, S)
        if c * c <= (NOISE * eps) ** 2 * energy * diagonal[j] or left <= IN_SPAN * eps * diagonal[j]:
            S.left[j] = np.inf
            continue
        worth = c * c / (left if by_error else np.float64(S.left[j]))
        if worth > most:
            best, best_c, best_left, most = j, c, left, worth
            for a in range(S.w.size):
                S.best[a] = S.w[a]
    return best, best_c, best_left


@uncounted(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _entered(m, root, S):
    """Add a row to the Cholesky factor and its inverse; return the growth of the squared norm of the inverse."""
    row, inverse_root, growth = S.inverse[m], 1.0 / root, 0.0
    row[:] = 0.0
    for a in range(m):
        S.L[m, a] = S.best[a]
        share, other = S.best[a] * inverse_root, S.inverse[a]
        for b in range(row.size):
            row[b] -= share * other[b]
    S.L[m, m], row[m] = root, inverse_root
    for b in range(row.size):
        growth += row[b] * row[b]
    return growth


@uncounted(cache=True, error_model="numpy")
def _updated(row, m, root, by_error, c, noise, noise_of_weight, S):
    """Subtract the direction of the m-th atom from all atoms; return the largest lower bound of a gain."""
    for b in range(m):
        S.w32[b] = S.best[b]
    S.w32[m : m + 8] = np.float32(0.0)
    inverse_root, amount, most = np.float32(1.0 / root), np.float32(S.amounts[m]), np.int32(0)
    for start in range(0, c.size, WIDTH):
        stop = min(start + WIDTH, c.size)
        projected(row, S.w32, m, S.Q, S.v32, start, stop)
        _advanced(
            S.v32[: stop - start],
            inverse_root,
            amount,
            by_error,
            S.Q[m, start:stop],
            c[start:stop],
            S.left[start:stop],
            noise,
            noise_of_weight,
        )
        most = max(most, _largest(S.bits[: stop - start]))
    S.top[0] = most
    return S.top.view(np.float32)[0]


@uncounted(cache=True, error_model="numpy")
def _pursue(c, y, energy, atoms, G, G32, diagonal, k, by_error, eps, support, codes, S):
    """Choose up to k atoms as `compiled_pursuit.pursue` does; return their number, -1 where float32 cannot decide."""
    m, inverse = 0, 1.0
    noise = ROUNDINGS * SINGLE
    near, near_of_weight = np.float32(noise * np.sqrt(energy)), np.float32(noise if by_error else 0.0)
    most = _most(c, near, near_of_weight, S)
    while m < k:
        n = _shortlist(c, most, near, near_of_weight, S)
        if n > MOST:
            return -1
        best, correlation, left = _decided(y, energy, atoms, G, diagonal, by_error, n, support, m, eps, S)
        if best < 0:
            if n == 0:
                break
            most = _most(c, near, near_of_weight, S)
            continue
        root = np.sqrt(left)
        support[m], S.amounts[m], S.left[best] = best, correlation / root, np.inf
        inverse += _entered(m, root, S)
        m += 1
        if m < k:
            noise = ROUNDINGS * SINGLE * np.sqrt(inverse)
            near, near_of_weight = np.float32(noise * np.sqrt(energy)), np.float32(noise if by_error else 0.0)
            most = _updated(G32[best], m - 1, root, by_error, c, near, near_of_weight, S)
    for a in range(m - 1, -1, -1):
        value = S.amounts[a]
        for b in range(a + 1, m):
            value -= S.L[b, a] * codes[b]
        codes[a] = value / S.L[a, a]
    return m


@numba.njit(cache=True, nogil=True, error_model="numpy")
def pursue_rows(C, Y, energies, atoms, G, G32, diagonal, weight, k, by_error, supports, codes, counts):
    """Run the pursuit for every row of the targets Y; a count of -1 leaves a row to float64.

    C = Y D^T and the Gram matrix G32 are float32. G has the precision of the codes; where G is empty, its entries are
    computed from the atoms. C is overwritten. Norms of atoms are near 1, or 0.
    """
    S = _scratch(k, C.shape[1])
    found, single, eps = np.zeros(k), np.empty(len(weight), np.float32), np.finfo(Y.dtype).eps
    for j in range(len(weight)):
        single[j] = weight[j] if diagonal[j] > 0.0 else np.inf  # a zero atom never enters
    for i in range(C.shape[0]):
        S.left[:] = single
        m = _pursue(C[i], Y[i], energies[i], atoms, G, G32, diagonal, k, by_error, eps, supports[i], found, S)
        counts[i] = m
        for a in range(m):
            codes[i, a] = found[a]
