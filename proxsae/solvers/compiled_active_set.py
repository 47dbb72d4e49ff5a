"""The active-set method as compiled loops: one outer step for every row, in blocks of rows."""

from __future__ import annotations

import numba
import numpy as np
from numba import float32, float64, int8, void

from proxsae.solvers.compiled_descent import prox64

CAPACITY = 256  # of the active set, to begin with
ROUNDS = 30  # of growth that a step takes with a Gram matrix, at most
PASSES = 100  # of coordinate descent and Newton steps on one active set, at most
FIRST, WATCHED = 48, 24  # zeros in the active set beside the non-zeros, from the zero code and later; up to twice
CALM = 3  # passes without a coordinate that leaves or reaches zero, before a Newton step
IMPATIENT = 16  # passes after which one is made anyway
FAR = 1e4  # a Newton step that changes a coordinate by more, relative to its size, is cut
SETTLED = 1e-12  # of the largest correlation: a move that small ends the passes
POLISHED = 1e-15  # and where a certificate asks for more
FLAT = 1e-9  # a slope of the prox below this is none: the coordinate rests at a kink or a bound
LEAST_PIVOT = 1e-10  # of its diagonal entry: an atom with a smaller one depends on those before it

FREE = 1e300  # stands for an infinite end
LARGEST = float(np.finfo(np.float64).max) / 16  # beyond, a sum of a few overflows

_fast = {"reassoc", "contract"}
_finite = {*_fast, "nnan", "ninf", "nsz"}


@numba.njit(void(prox64, float64[:, ::1], float64, float64[:, ::1]), nogil=True, cache=True)
def dead_zones(prox, parameters, t, ends):  # type: ignore[no-untyped-def]
    """Write the least and the largest number with prox 0, of parameters in a row each; infinite where all are."""
    number = np.empty(1)
    bits = number.view(np.int64)  # positive floats are ordered as the integers of the same bits
    for i in range(len(parameters)):
        for side in range(2):
            sign = 2.0 * side - 1.0
            number[0] = LARGEST
            low, high = 0, bits[0] + 1
            while high - low > 1:
                middle = low + (high - low) // 2
                bits[0] = middle
                if prox(sign * number[0], t, parameters[i]) == 0.0:
                    low = middle
                else:
                    high = middle
            bits[0] = low
            ends[i, side] = sign * (np.inf if number[0] == LARGEST else number[0])


@numba.njit(fastmath=_fast, nogil=True)
def _descended(prox, parameters, A, steps, rest, z, r, index, m):  # type: ignore[no-untyped-def]
    """Set each coordinate to its best value; return the largest move and how many left or reached zero.

    A zero whose correlation is between its ends in `rest` stays, and its prox need not be asked.
    """
    one = len(parameters) == 1
    largest, flips = 0.0, 0
    for a in range(m):
        if z[a] == 0.0 and rest[0, a] <= r[a] <= rest[1, a]:
            continue
        new = prox(z[a] + steps[a] * r[a], steps[a], parameters[0 if one else index[a]])
        change = new - z[a]
        if change != 0.0:
            flips += (new == 0.0) != (z[a] == 0.0)
            z[a] = new
            row = A[a]
            for b in range(m):
                r[b] -= change * row[b]
            largest = max(largest, abs(change) / steps[a])
    return largest, flips


@numba.njit(nogil=True)
def _piece(prox, parameter, z, r, t):  # type: ignore[no-untyped-def]
    """Return whether z is inside a quadratic piece of its r, and there the slope of r at z and its curvature.

    The prox at u = z + t r is z~ with (u - z~) / t the slope of r at z~; its own slope m gives the curvature
    (1 / m - 1) / t. Two probes of the prox beside u measure m, closer ones where the two differ.
    """
    u = z + t * r
    at = prox(u, t, parameter)
    width = 1e-5 * max(abs(u), abs(z))
    up, down = 0.0, 0.0
    for _ in range(3):
        up, down = (prox(u + width, t, parameter) - at) / width, (at - prox(u - width, t, parameter)) / width
        if abs(up - down) <= 1e-4:
            break
        width *= 1e-3
    m = 0.5 * (up + down)
    if min(up, down) < FLAT or not m < np.inf:
        return False, 0.0, 0.0
    curvature = max(1.0 / m - 1.0, 0.0) / t
    slope = (u - at) / t + curvature * (z - at)
    return _is_on(prox, parameter, z, z, slope, curvature, t, False), slope, curvature


@numba.njit(nogil=True)
def _is_on(prox, parameter, new, z, slope, curvature, t, kinked):  # type: ignore[no-untyped-def]
    """Whether `new` lies on the same piece as z: there the prox of new + t r'(new) is new."""
    if kinked and new * z < 0.0:  # both sides of 0 may have the same slope
        return False
    v = new + t * (slope + curvature * (new - z))
    return abs(prox(v, t, parameter) - new) <= 1e-9 * (abs(new) + abs(z)) + 1e-15 * abs(v)


@numba.njit(nogil=True)
def _end_of_piece(prox, parameter, z, delta, slope, curvature, t, kinked):  # type: ignore[no-untyped-def]
    """Return the share of the move that stays on the piece, and the value of the coordinate where it ends."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _is_on(prox, parameter, z + middle * delta, z, slope, curvature, t, kinked):
            low = middle
        else:
            high = middle
    beyond = z + high * delta
    return low, prox(beyond + t * (slope + curvature * (beyond - z)), t, parameter)


@numba.njit(fastmath=_fast, nogil=True)
def _moved(prox, parameters, A, steps, z, r, index, m, kinked, support, k, slopes, curvatures, delta):  # type: ignore[no-untyped-def]
    """Move along delta to where the first piece ends, at most all of it; return whether it was all of it."""
    one = len(parameters) == 1
    share, first, end = 1.0, -1, 0.0
    for i in range(k):  # far steps come from atoms that nearly depend on one another
        a = support[i]
        reach = FAR * (abs(z[a]) + steps[a] * abs(slopes[i]))
        if share * abs(delta[i]) > reach:
            share = reach / abs(delta[i])
    for i in range(k):
        a = support[i]
        p = parameters[0 if one else index[a]]
        if not _is_on(prox, p, z[a] + share * delta[i], z[a], slopes[i], curvatures[i], steps[a], kinked[a]):
            delta_i = share * delta[i]
            part, value = _end_of_piece(prox, p, z[a], delta_i, slopes[i], curvatures[i], steps[a], kinked[a])
            share, first, end = share * part, i, value
    for i in range(k):
        a = support[i]
        change = end - z[a] if i == first else share * delta[i]
        z[a] += change
        slopes[i] += curvatures[i] * change
        row = A[a]
        for b in range(m):
            r[b] -= change * row[b]
    return first < 0


@numba.njit(fastmath=_fast, nogil=True)
def _factored(A, support, k, curvatures, L):  # type: ignore[no-untyped-def]
    """Write the Cholesky factor of A + diag(curvatures) on the support, zero for atoms that depend on those before."""
    for i in range(k):
        for j in range(i + 1):
            v = A[support[i], support[j]]
            for h in range(j):
                v -= L[i, h] * L[j, h]
            if i != j:
                L[i, j] = v / L[j, j] if L[j, j] > 0.0 else 0.0
            else:
                diagonal = A[support[i], support[i]] + curvatures[i]
                v += curvatures[i]
                L[i, i] = np.sqrt(v) if v > LEAST_PIVOT * diagonal else 0.0


@numba.njit(fastmath=_fast, nogil=True)
def _solve(L, k, x):  # type: ignore[no-untyped-def]
    """Overwrite x by the solution for it on the right; zero for the dependent atoms."""
    for i in range(k):
        v = x[i]
        for h in range(i):
            v -= L[i, h] * x[h]
        x[i] = v / L[i, i] if L[i, i] > 0.0 else 0.0
    for i in range(k - 1, -1, -1):
        v = x[i]
        for h in range(i + 1, k):
            v -= L[h, i] * x[h]
        x[i] = v / L[i, i] if L[i, i] > 0.0 else 0.0


@numba.njit(nogil=True)
def _newton(prox, parameters, A, steps, z, r, index, m, kinked, L, work, support, noise):  # type: ignore[no-untyped-def]
    """Step to the minimum for these pieces, or to where the first one ends.

    An atom that depends on others of the support is left out. Then F is linear along the exchange of the one for the
    others: it is followed downhill, where that is more than noise, to where a piece ends, which takes an atom out.
    """
    one = len(parameters) == 1
    slopes, curvatures, delta = work[0], work[1], work[2]
    k = 0
    for a in range(m):
        if z[a] != 0.0 or not kinked[a]:
            inside, slope, curvature = _piece(prox, parameters[0 if one else index[a]], z[a], r[a], steps[a])
            if inside:
                support[k], slopes[k], curvatures[k] = a, slope, curvature
                k += 1
    _factored(A, support, k, curvatures, L)
    for i in range(k):
        delta[i] = r[support[i]] - slopes[i]
    _solve(L, k, delta)
    if not _moved(prox, parameters, A, steps, z, r, index, m, kinked, support, k, slopes, curvatures, delta):
        return
    for i in range(k):
        downhill = r[support[i]] - slopes[i]
        if L[i, i] == 0.0 and abs(downhill) > noise:
            for h in range(k):
                delta[h] = -A[support[h], support[i]]
            _solve(L, k, delta)
            delta[i] = 1.0
            far = FAR * (abs(z[support[i]]) + steps[support[i]] * abs(slopes[i])) * np.sign(downhill)
            for h in range(k):
                delta[h] *= far
            _moved(prox, parameters, A, steps, z, r, index, m, kinked, support, k, slopes, curvatures, delta)
            return


@numba.njit(nogil=True)
def _solved(prox, parameters, A, steps, rest, z, r, index, m, L, work, support, kinked, ref, settled, noise):  # type: ignore[no-untyped-def]
    """Solve on the active set: passes of coordinate descent, and Newton steps once the zeros stand still."""
    calm = 0
    for n_pass in range(1, PASSES + 1):
        move, flips = _descended(prox, parameters, A, steps, rest, z, r, index, m)
        if move <= settled * ref:
            return
        calm = calm + 1 if flips == 0 else 0
        if calm >= CALM or n_pass % IMPATIENT == 0:
            _newton(prox, parameters, A, steps, z, r, index, m, kinked, L, work, support, noise)


@numba.njit(fastmath=_finite, nogil=True)
def _beyond(v, below, above, length):  # type: ignore[no-untyped-def]
    """Return by how much a correlation lies beyond the ends where a zero rests, over ||d_j||; negative between them."""
    return max(v - above, below - v) * length


@numba.njit(fastmath=_finite, nogil=True)
def _scored(q, z, below, above, lengths, score):  # type: ignore[no-untyped-def]
    """Write how far the correlation of each zero is beyond the ends where it rests, and -FREE for the others.

    Return the largest correlation of all, and the least and the largest score of a zero.
    """
    ref, low, high = 0.0, FREE, -FREE
    for j in range(len(q)):
        v, is_zero = float(q[j]), z[j] == 0
        s = _beyond(v, below[j], above[j], lengths[j])
        ref, low, high = max(ref, abs(v)), min(low, s if is_zero else FREE), max(high, s if is_zero else -FREE)
        score[j] = s if is_zero else -FREE
    return ref, low, high


@numba.njit(nogil=True)
def _count(score, cut):  # type: ignore[no-untyped-def]
    n = 0
    for j in range(len(score)):
        n += 1 if score[j] >= cut else 0
    return n


@numba.njit(nogil=True)
def _watched(score, low, high, watched, most):  # type: ignore[no-untyped-def]
    """List the zeros that are nearest to leave, or leave: about `most` of them, up to twice; return how many."""
    for _ in range(8):  # halve the range of the cut, towards the largest score
        cut = 0.5 * (low + high)
        count = _count(score, cut)
        if count > most:
            low = cut
        else:
            high = cut
            if 2 * count > most:
                break
    n = 0
    for j in range(len(score)):
        if score[j] >= high and n < min(2 * most, len(watched)):
            watched[n] = j
            n += 1
    return n


@numba.njit(fastmath=_fast, nogil=True)
def _products(D, G, index, known, m, A):  # type: ignore[no-untyped-def]
    """Write the Gram matrix of the active atoms but for those known, from the whole one where it is there."""
    for a in range(known, m):
        if len(G):
            row = G[index[a]]
            for b in range(a + 1):
                A[a, b] = A[b, a] = row[index[b]]
            continue
        atom = D[index[a]]
        for b in range(a + 1):
            other, v = D[index[b]], 0.0
            for k in range(len(atom)):
                v += float(atom[k]) * float(other[k])
            A[a, b] = A[b, a] = v


@numba.njit(nogil=True)
def _enlarged(A, known, capacity):  # type: ignore[no-untyped-def]
    """Return a larger matrix with the same products of known atoms."""
    larger = np.empty((capacity, capacity))
    larger[:known, :known] = A[:known, :known]
    return larger


@numba.njit(
    [
        void(
            prox64,
            float64[:, ::1],
            *(T[:, ::1],) * 2,
            float64[:, ::1],
            *(float64[::1],) * 4,
            float64,
            *(T[:, ::1],) * 3,
            int8[::1],
        )
        for T in (float32, float64)
    ],
    nogil=True,
    cache=True,
    fastmath=_fast,
)
def step(prox, parameters, Y, D, G, weights, lengths, below, above, rounding, Q, Z, E, at_rest):  # type: ignore[no-untyped-def]
    """Write into Z, row by row, the codes that minimise F on a larger active set, and into E the residuals Y - Z D.

    Q holds the correlations E D^T of the codes that come in. `below` and `above` are the ends of the subdifferential of
    each r_j at 0, at most FREE: a zero with its correlation between them rests. A row whose every coordinate rests, to
    within `rounding` of the largest correlation, is polished; `at_rest` counts how often in a row. `weights` are
    1 / ||d_j||^2 and `lengths` their roots, and for a zero atom 0 and 1. G is the Gram matrix, or empty. Arithmetic on
    the active set is float64: rounded to float32, products of atoms that depend on one another are no Gram matrix any
    more.
    """
    p, d = D.shape
    one = len(parameters) == 1
    capacity = min(p, CAPACITY)
    A, L = np.empty((capacity, capacity)), np.empty((capacity, capacity))
    work, rest = np.empty((3, capacity)), np.empty((2, capacity))
    z, r, steps = np.empty(capacity), np.empty(capacity), np.empty(capacity)
    support, kinked = np.empty(capacity, np.int64), np.empty(capacity, np.bool_)
    index, score, q = np.empty(p, np.int64), np.empty(p), np.empty(p)
    for i in range(len(Z)):
        row, m = Z[i], 0
        q[:] = Q[i]
        for j in range(p):
            if row[j] != 0 and weights[j] == 0:
                row[j] = 0
            if row[j] != 0:
                index[m] = j
                m += 1
        known = 0  # of the active atoms, with products that are in A
        for n_round in range(ROUNDS if len(G) else 1):
            ref, low, high = _scored(q, row, below, above, lengths, score)
            for a in range(m):
                ref = max(ref, abs(float(row[index[a]])) / weights[index[a]])
            if n_round and high <= rounding * ref:
                break
            m += _watched(score, low, high, index[m:], WATCHED if m else FIRST)
            if m > capacity:
                capacity = 2 * m
                A, L = _enlarged(A, known, capacity), np.empty((capacity, capacity))
                work, rest = np.empty((3, capacity)), np.empty((2, capacity))
                z, r, steps = np.empty(capacity), np.empty(capacity), np.empty(capacity)
                support, kinked = np.empty(capacity, np.int64), np.empty(capacity, np.bool_)
            move = 0.0
            for a in range(m):
                j = index[a]
                z[a], r[a], t = row[j], q[j], weights[j]
                steps[a], kinked[a] = t, below[j] < above[j]
                rest[0, a], rest[1, a] = below[j], above[j]
                move = max(move, abs(prox(z[a] + t * r[a], t, parameters[0 if one else j]) - z[a]) / t)
            if n_round == 0:
                at_rest[i] = at_rest[i] + 1 if move <= rounding * ref else 0
            _products(D, G, index, known, m, A)
            settled = POLISHED if at_rest[i] else SETTLED
            _solved(prox, parameters, A, steps, rest, z, r, index, m, L, work, support, kinked, ref, settled, rounding * ref)
            if len(G):
                for a in range(m):
                    before = row[index[a]]
                    row[index[a]] = z[a]
                    change = float(row[index[a]]) - before
                    if change != 0.0:
                        column = G[index[a]]
                        for j in range(p):
                            q[j] -= change * column[j]
            known = 0
            for a in range(m):
                row[index[a]] = z[a]
                if row[index[a]] != 0:
                    support[known], index[known] = a, index[a]
                    known += 1
            for a in range(known):
                for b in range(known):
                    A[a, b] = A[support[a], support[b]]
            m = known
        e = E[i]
        e[:] = Y[i]
        for a in range(m):
            value, atom = row[index[a]], D[index[a]]
            for k in range(d):
                e[k] -= value * atom[k]


@numba.njit(
    [void(*(T[:, ::1],) * 2, *(float64[::1],) * 4) for T in (float32, float64)],
    nogil=True,
    cache=True,
    fastmath=_finite,
)
def measure(Q, Z, below, above, lengths, beyond):  # type: ignore[no-untyped-def]
    """Write for every row by how much the correlation of a zero is beyond the ends where it rests, at most."""
    for i in range(len(Q)):
        q, z, most = Q[i], Z[i], 0.0
        for j in range(len(q)):
            s = _beyond(float(q[j]), below[j], above[j], lengths[j])
            most = max(most, s if z[j] == 0 else 0.0)
        beyond[i] = most
