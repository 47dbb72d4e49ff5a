"""The active-set method as compiled loops: which zeros enter the active set of every row, and when it is done."""

from __future__ import annotations

import numba
import numpy as np
from numba import float32, float64, int8, int64, void

from proxsae.solvers.compiled_newton import minimise_on_set
from proxsae.solvers.compiled_path import follow
from proxsae.solvers.compiled_rows import add_rows, largest, products_of
from proxsae.solvers.compiled_scalar import by_dtype, prox64, uncounted

CAPACITY = 256  # initial capacity of the active set
ROUNDS = 30  # most rounds of growth in a step with a Gram matrix
FIRST = 2  # times as many zeros as later are in the active set from the zero code
ON_PATH = 128  # atoms in use on a path from the zero code, at most
SETTLED = 1e-12  # of the largest correlation: a move that small ends the passes
POLISHED = 1e-15  # and where a certificate asks for more

FREE = 1e300  # stands for an infinite end

_fast = {"reassoc", "contract"}
_finite = {*_fast, "nnan", "ninf", "nsz"}


@uncounted(fastmath=_finite)
def _beyond(v, below, above, length):  # type: ignore[no-untyped-def]
    """Return how far a correlation lies beyond the ends where a zero rests, over ||d_j||; negative between the ends."""
    return max(v - above, below - v) * length


@uncounted(fastmath=_finite)
def _sizes(q, lengths, score):  # type: ignore[no-untyped-def]
    """Return the largest correlation, and the largest over ||d_j||."""
    for j in range(len(q)):
        score[j] = abs(q[j])
    ref = largest(score)
    for j in range(len(q)):
        score[j] *= lengths[j]
    return ref, largest(score)


@uncounted(fastmath=_finite)
def _scored(q, z, below, above, lengths, score):  # type: ignore[no-untyped-def]
    """Write how far the correlation of each zero lies beyond the ends where the zero rests, and return the largest.

    The score is -FREE for coordinates that are not zero, and for those that always rest, as a zero atom does.
    """
    for j in range(len(q)):
        s = _beyond(float(q[j]), below[j], above[j], lengths[j])
        score[j] = s if (z[j] == 0) & (s > -FREE) else -FREE
    return largest(score)


@uncounted()
def _count(score, cut):  # type: ignore[no-untyped-def]
    n = 0
    for j in range(len(score)):
        n += 1 if score[j] >= cut else 0
    return n


@uncounted()
def _watched(score, low, high, watched, most):  # type: ignore[no-untyped-def]
    """List the zeros that leave zero or are nearest to it: about `most`, at most twice as many; return their number."""
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


@uncounted(fastmath=_fast)
def _products(D, G, index, known, m, A):  # type: ignore[no-untyped-def]
    """Write the unknown entries of the Gram matrix of the active atoms, from G where there is a G."""
    for a in range(known, m):
        if len(G):
            row = G[index[a]]
            for b in range(a + 1):
                A[a, b] = A[b, a] = row[index[b]]
            continue
        products_of(D, index, a + 1, D[index[a]], A[a])
        for b in range(a):
            A[b, a] = A[a, b]


@uncounted(fastmath=_fast)
def _kept(z, index, m, chosen, A, scratch, G, row, q):  # type: ignore[no-untyped-def]
    """Write the codes and correlations of a row, and its non-zeros to the front of the set; return their number.

    The non-zeros are in the order of the dictionary, as at the start of a step: where R is not convex, the order of
    the set decides between local minima.
    """
    n, k = 0, 0
    for a in range(m):
        j = index[a]
        before = np.float64(row[j])
        row[j] = z[a]
        change = np.float64(row[j]) - before
        if change != 0.0:
            chosen[n], z[n] = j, -change
            n += 1
    if len(G):
        add_rows(G, chosen, z, n, q)
    for a in range(m):
        if row[index[a]] != 0:
            b = k
            while b > 0 and index[chosen[b - 1]] > index[a]:
                chosen[b] = chosen[b - 1]
                b -= 1
            chosen[b] = a
            k += 1
    for a in range(k):
        for b in range(k):
            scratch[a, b] = A[chosen[a], chosen[b]]
    for a in range(k):
        chosen[a] = index[chosen[a]]
        for b in range(k):
            A[a, b] = scratch[a, b]
    for a in range(k):
        index[a] = chosen[a]
    return k


@uncounted()
def _move(prox, parameters, row, q, index, m, weights):  # type: ignore[no-untyped-def]
    """Return the largest distance of an active coordinate from its best value, as a correlation."""
    largest = 0.0
    for a in range(m):
        j = index[a]
        z, t = float(row[j]), weights[j]
        new = prox(z + t * q[j], t, parameters[0 if len(parameters) == 1 else j])
        largest = max(largest, abs(new - z) / t)
    return largest


@uncounted(fastmath=_fast)
def _residual(y, D, row, index, m, e):  # type: ignore[no-untyped-def]
    """Write y - z D, with the codes z in a row."""
    for k in range(len(e)):
        e[k] = y[k]
    for a in range(m):
        value, atom = np.float64(row[index[a]]), D[index[a]]
        for k in range(len(e)):
            e[k] -= value * atom[k]


@uncounted(fastmath=_fast)
def _correlated(D, e, q):  # type: ignore[no-untyped-def]
    """Write the correlations of a residual with all atoms."""
    for j in range(len(q)):
        atom, v = D[j], 0.0
        for k in range(len(e)):
            v += float(atom[k]) * e[k]
        q[j] = v


@uncounted(fastmath=_fast)
def _refreshed(correlations, G, row, index, m, z, q):  # type: ignore[no-untyped-def]
    """Write the correlations of a row from those of the zero code."""
    for k in range(len(q)):
        q[k] = correlations[k]
    for a in range(m):
        z[a] = -float(row[index[a]])
    add_rows(G, index, z, m, q)


@numba.njit(nogil=True)
def _enlarged(A, known, capacity):  # type: ignore[no-untyped-def]
    """Return a larger matrix with the same products of known atoms."""
    larger = np.empty((capacity, capacity))
    larger[:known, :known] = A[:known, :known]
    return larger


@by_dtype(
    lambda T: void(
        prox64,
        float64[:, ::1],
        *(T[:, ::1],) * 2,
        float64[:, ::1],
        *(float64[::1],) * 4,
        float32[:, ::1],
        float64,
        int64,
        *(T[:, ::1],) * 4,
        int8[::1],
    ),
    fastmath=_fast,
)
def step(prox, parameters, Y, D, G, weights, lengths, below, above, coarse, rounding, watched, Q, Z, E, V, at_rest):  # type: ignore[no-untyped-def]
    """Write into Z, row by row, the codes that minimise F on a larger active set, and into E the residuals Y - Z D.

    Q holds the correlations E D^T of the codes that come in. `below` and `above` are the ends of the subdifferential of
    each r_j at 0, at most FREE: a zero with its correlation between them rests. With a Gram matrix G, and for a single
    row, the active set grows until every zero rests. Otherwise G is empty and the set grows once, since rows share the
    product with all atoms. Where `coarse`, G in float32, is given, a zero code starts at the end of a lasso path. V
    gets the correlations of the new codes; it is empty unless all codes that come in are zero and G is given.

    Beside the non-zeros, about `watched` zeros that leave zero, or are nearest to it, are in the active set.

    A row in which every coordinate rests, to within `rounding` of the largest correlation, is polished; `at_rest`
    counts for how many steps it has rested. `weights` are 1 / ||d_j||^2 and `lengths` their roots; a zero atom has 0
    and 1. Arithmetic on the active set is float64: rounded to float32, the Gram matrix of linearly dependent atoms need
    not be positive semidefinite.
    """
    p, d = D.shape
    capacity = min(p, CAPACITY)
    A, L = np.empty((capacity, capacity)), np.empty((capacity, capacity))
    work, rest = np.empty((3, capacity)), np.empty((2, capacity))
    z, r, steps = np.empty(capacity), np.empty(capacity), np.empty(capacity)
    support, kinked = np.empty(capacity, np.int64), np.empty(capacity, np.bool_)
    index, score, q, e = np.empty(p, np.int64), np.empty(p), np.empty(p), np.empty(d)
    most = min(p, d, ON_PATH) if len(coarse) else 0
    scratch, wide = np.empty((most + 4, most)), np.empty((4, len(coarse)), np.float32)
    inverse_ends = np.stack((1.0 / below, 1.0 / above))
    for i in range(len(Z)):
        row, m = Z[i], np.int64(0)  # a literal 0 would make Numba compile every loop twice
        q[:] = Q[i]
        for j in range(p):
            if row[j] != 0 and weights[j] == 0:
                row[j] = 0
            if row[j] != 0:
                index[m] = j
                m += 1
        known = np.int64(0)  # number of active atoms whose products are in A
        follows, ends = m == 0 and most > 0, False
        if follows:
            for a in range(follow(G, coarse, q, below, above, inverse_ends, index, z, scratch, wide)):
                row[index[a]] = z[a]
                if row[index[a]] != 0:
                    index[m] = index[a]
                    m += 1
            _refreshed(Q[i], G, row, index, m, z, q)
        for n_round in range(ROUNDS if len(G) or len(Z) == 1 else 1):
            if n_round and not len(G):
                _residual(Y[i], D, row, index, m, e)
                _correlated(D, e, q)
            ref, scale = _sizes(q, lengths, score)
            high = _scored(q, row, below, above, lengths, score)
            zeros_rest = high <= rounding * scale
            if n_round and zeros_rest:
                break
            for a in range(m):
                ref = max(ref, abs(float(row[index[a]])) / weights[index[a]])
            if n_round == 0 and follows and zeros_rest:
                ends = _move(prox, parameters, row, q, index, m, weights) <= rounding * ref
                if ends:
                    at_rest[i] = 1
                    break
            near = watched if m else FIRST * watched
            if high > -FREE:  # else every atom is in the set, or always rests
                m += _watched(score, high - 2.0 * scale, high, index[m:], near)
            if m > capacity:
                capacity = min(2 * m, p)
                A, L = _enlarged(A, known, capacity), np.empty((capacity, capacity))
                work, rest = np.empty((3, capacity)), np.empty((2, capacity))
                z, r, steps = np.empty(capacity), np.empty(capacity), np.empty(capacity)
                support, kinked = np.empty(capacity, np.int64), np.empty(capacity, np.bool_)
            for a in range(m):
                j = index[a]
                z[a], r[a], steps[a] = row[j], q[j], weights[j]
                rest[0, a], rest[1, a], kinked[a] = below[j], above[j], below[j] < above[j]
            if n_round == 0:
                rests = _move(prox, parameters, row, q, index, m, weights) <= rounding * ref
                at_rest[i] = at_rest[i] + 1 if rests else 0
            _products(D, G, index, known, m, A)
            enough = POLISHED if at_rest[i] else SETTLED
            minimise_on_set(
                prox, parameters, A, steps, rest, z, r, index, m, L, work, support, kinked, ref, enough, rounding * ref
            )
            known = m = _kept(z, index, m, support, A, L, G, row, q)
        if len(V):
            if not ends:
                _refreshed(Q[i], G, row, index, m, z, q)
            V[i] = q
        _residual(Y[i], D, row, index, m, e)
        E[i] = e


@by_dtype(lambda T: void(*(T[:, ::1],) * 2, *(float64[::1],) * 4), fastmath=_finite)
def measure(Q, Z, below, above, lengths, beyond):  # type: ignore[no-untyped-def]
    """Write for every row how far the correlation of a zero lies at most beyond the ends where the zero rests."""
    score = np.empty(Q.shape[1])
    for i in range(len(Q)):
        q, z = Q[i], Z[i]
        for j in range(len(q)):
            s = _beyond(float(q[j]), below[j], above[j], lengths[j])
            score[j] = s if z[j] == 0 else 0.0
        beyond[i] = max(largest(score), 0.0)
