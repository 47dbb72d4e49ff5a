"""Orthogonal pursuits of many samples as compiled loops over their correlations and the Gram matrix.

The directions q_1, q_2, ... are the products with the dictionary of the chosen atoms, each made orthogonal to those
chosen before. With them are updated the Cholesky factor of the Gram matrix of the support, the correlations c of all
atoms with the residual, and the parts of their squared norms outside the span of the support.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numba
import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
from proxsae.solvers.pursuits.compiled_gram import place_of

WIDTH = 512  # atoms updated at once: their sums stay in the first-level cache while all directions pass
LOOK = 32  # atoms compared with the best so far at once
PASS = 8  # directions a pass: each atom's sum is loaded and stored once for eight
IN_SPAN = 64.0  # roundings: an atom with less left of its squared norm lies in the span of the support
NOISE = 16.0  # roundings: a correlation below is that of an atom orthogonal to the residual


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def projected(row, w, n_directions, Q, v, start, stop):
    """Write row - sum_l w_l Q_l of the atoms start..stop to v; w and Q are zero up to the next multiple of four."""
    part = row[start:stop]
    for j in range(part.size):
        v[j] = part[j]
    b = 0
    while b < n_directions:
        w0, w1, w2, w3 = w[b], w[b + 1], w[b + 2], w[b + 3]
        q0, q1, q2, q3 = Q[b, start:stop], Q[b + 1, start:stop], Q[b + 2, start:stop], Q[b + 3, start:stop]
        if n_directions - b <= PASS // 2:
            for j in range(stop - start):
                v[j] -= w0 * q0[j] + w1 * q1[j] + w2 * q2[j] + w3 * q3[j]
        else:
            w4, w5, w6, w7 = w[b + 4], w[b + 5], w[b + 6], w[b + 7]
            q4, q5, q6, q7 = Q[b + 4, start:stop], Q[b + 5, start:stop], Q[b + 6, start:stop], Q[b + 7, start:stop]
            for j in range(stop - start):
                v[j] -= (w0 * q0[j] + w1 * q1[j] + w2 * q2[j] + w3 * q3[j]) + (
                    w4 * q4[j] + w5 * q5[j] + w6 * q6[j] + w7 * q7[j]
                )
        b += PASS


@uncounted(cache=True, fastmath={"contract"}, error_model="numpy")
def _advanced(v, inverse_root, amount, by_error, q, c, weight):
    """Turn the sums v into the next direction q, and subtract it from the correlations and the squared norms left."""
    for j in range(v.size):
        direction = v[j] * inverse_root
        q[j] = direction
        c[j] -= amount * direction
        if by_error:
            weight[j] -= direction * direction


@uncounted(cache=True, error_model="numpy")
def _any_better(c, weight, square, by):
    """Whether c^2 / weight of some atom is above square / by; without divisions and branches, so that it vectorises."""
    better = False
    for j in range(c.size):
        better |= c[j] * c[j] * by > square * weight[j]
    return better


@uncounted(cache=True, error_model="numpy")
def _best_of(c, weight, start, stop, best, square, by):
    """Return the atom of the largest c^2 / weight above square / by, the first among equals, its c^2 and weight."""
    for first in range(start, stop, LOOK):
        last = min(first + LOOK, stop)
        if _any_better(c[first:last], weight[first:last], square, by):
            for j in range(first, last):
                if c[j] * c[j] * by > square * weight[j] and weight[j] > 0:
                    best, square, by = j, c[j] * c[j], weight[j]
    return best, square, by


@uncounted(cache=True, error_model="numpy")
def _drop(c, weight, diagonal, energy, by_error, eps):
    """Drop all atoms that are orthogonal to the residual or, by their weights, in the span of the support."""
    for j in range(c.size):
        noise = NOISE * eps
        if c[j] * c[j] <= noise * noise * energy * diagonal[j] or (
            by_error and weight[j] <= IN_SPAN * eps * diagonal[j]
        ):
            weight[j] = np.inf


@numba.njit(cache=True, error_model="numpy")
def pursue(c, energy, G, diagonal, weight, k, by_error, support, codes, Q, L, amounts, w, v):
    """Choose up to k atoms by the largest c^2 / weight; write their indices and codes and return their number.

    `c` and `weight` are overwritten. With `by_error` the weight of an atom is the part of its squared norm outside the
    span of the support, so that c^2 / weight is twice the fall of the error; otherwise the weight is constant.
    """
    p = c.size
    eps = np.finfo(c.dtype).eps
    zero, one = c.dtype.type(0), c.dtype.type(1)
    best, square, by = _best_of(c, weight, 0, p, -1, zero, one)
    m = 0
    while m < k and best >= 0:
        left = diagonal[best]
        for b in range(m):
            w[b] = Q[b, best]
            left -= w[b] * w[b]
        is_noise = c[best] * c[best] <= (NOISE * eps) ** 2 * energy * diagonal[best]
        if is_noise or left <= IN_SPAN * eps * diagonal[best]:
            weight[best] = np.inf
            _drop(c, weight, diagonal, energy, by_error, eps)
            best, square, by = _best_of(c, weight, 0, p, -1, zero, one)
            continue
        root = np.sqrt(left)
        for b in range(m):
            L[m, b] = w[b]
        L[m, m] = root
        amounts[m] = c[best] / root
        support[m] = best
        weight[best] = np.inf
        m += 1
        if m == k:
            break
        row = G.rows[place_of(G, best)]
        n_directions = m - 1
        for b in range(n_directions, n_directions + 4):
            w[b] = zero
        inverse_root, amount = one / root, amounts[m - 1]
        best, square, by = -1, zero, one
        for start in range(0, p, WIDTH):
            stop = min(start + WIDTH, p)
            projected(row, w, n_directions, Q, v, start, stop)
            _advanced(
                v[: stop - start],
                inverse_root,
                amount,
                by_error,
                Q[m - 1, start:stop],
                c[start:stop],
                weight[start:stop],
            )
            best, square, by = _best_of(c, weight, start, stop, best, square, by)
    for a in range(m - 1, -1, -1):
        value = amounts[a]
        for b in range(a + 1, m):
            value -= L[b, a] * codes[b]
        codes[a] = value / L[a, a]
    return m


@numba.njit(cache=True, nogil=True, error_model="numpy")
def pursue_rows(C, energies, G, diagonal, weight, k, by_error, supports, codes, counts):
    """Run :func:`pursue` for every row of correlations; C is overwritten."""
    p = C.shape[1]
    Q, L = np.zeros((k + 4, p), C.dtype), np.zeros((k, k), C.dtype)
    amounts, w, v = np.zeros(k, C.dtype), np.zeros(k + 4, C.dtype), np.zeros(WIDTH, C.dtype)
    for i in range(C.shape[0]):
        counts[i] = pursue(
            C[i], energies[i], G, diagonal, weight.copy(), k, by_error, supports[i], codes[i], Q, L, amounts, w, v
        )


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fit_rows(Y, D, supports, codes, counts, squares, correlations):
    """Write the squared norms of the residuals, and their correlations with the atoms in use, summed in float64."""
    residual = np.empty(Y.shape[1])
    for i in range(Y.shape[0]):
        residual[:] = Y[i]
        for a in range(counts[i]):
            atom, z = D[supports[i, a]], np.float64(codes[i, a])
            for j in range(residual.size):
                residual[j] -= z * atom[j]
        total = 0.0
        for j in range(residual.size):
            total += residual[j] * residual[j]
        squares[i] = total
        for a in range(counts[i]):
            atom, total = D[supports[i, a]], 0.0
            for j in range(residual.size):
                total += residual[j] * atom[j]
            correlations[i, a] = total
