r"""The path of the lasso as a compiled loop: where the active set of a row starts.

A zero rests while its correlation c_j satisfies :math:`\lambda l_j \le c_j \le \lambda h_j`. The codes are then linear
in :math:`\lambda` between the points at which an atom enters or leaves the active set. The path runs from the largest
lambda, with no atom, down to 1; each point costs a combination of the rows of the Gram matrix in use and an update of
the inverse of the Gram matrix of the active set. For L1, weighted or not and with or without a sign, the end of the
path is the minimiser; for every other convex R with these ends it is a start. Ties, linearly dependent atoms and long
paths end it early.

References
----------
Osborne, Presnell and Turlach (2000), IMA J. Numer. Anal. 20; Efron, Hastie, Johnstone and Tibshirani (2004), Ann.
Statist. 32.
"""

from __future__ import annotations

import numpy as np

from proxsae.solvers.compiled_rows import LOOK, add_rows
from proxsae.solvers.compiled_scalar import uncounted

FREE = 1e30  # stands for an infinite end, in float32
LONGEST = 1e6  # the largest lambda that a path starts from
LEAST_PIVOT = 1e-8  # share of the squared norm: below it an atom depends on those in use
TURNS = 4  # times as many points as atoms, at most

_fast = {"reassoc", "contract"}


@uncounted(fastmath=_fast)
def _any_before(q, a, low, high, fall, left):  # type: ignore[no-untyped-def]
    """Whether an atom reaches an end before lambda falls by `fall`; without divisions and branches, to vectorise."""
    any_before = False
    for k in range(len(q)):
        moved = q[k] - fall * a[k]
        any_before |= (moved > left * high[k]) | (moved < left * low[k])
    return any_before


@uncounted(error_model="numpy")
def _next(q, a, low, high, lam, fall):  # type: ignore[no-untyped-def]
    """Return the first atom to reach an end before lambda falls by `fall`, or -1, and the fall of lambda until then."""
    first = -1
    for start in range(0, len(q), LOOK):
        stop = min(start + LOOK, len(q))
        if not _any_before(
            q[start:stop], a[start:stop], low[start:stop], high[start:stop], np.float32(fall), np.float32(lam - fall)
        ):
            continue
        for k in range(start, stop):
            v, slope = float(q[k]), float(a[k])  # at ties the quotients are rounding errors
            if v - fall * slope > (lam - fall) * high[k]:
                first, fall = k, min(fall, max((lam * high[k] - v) / (high[k] - slope), 0.0))
            elif v - fall * slope < (lam - fall) * low[k]:
                first, fall = k, min(fall, max((v - lam * low[k]) / (slope - low[k]), 0.0))
    return first, fall


@uncounted(fastmath=_fast, error_model="numpy")
def _entered(G, j, end, index, m, inverse, g, u, w, s):  # type: ignore[no-untyped-def]
    """Update the inverse and the direction for one atom more; return whether that is possible.

    It is impossible where the atom depends linearly on those in use, or would move against its sign, as in a tie.
    """
    row, left, gain = G[j], G[j, j], end
    for b in range(m):
        g[b] = row[index[b]]
    for i in range(m):
        v, others = 0.0, inverse[i]
        for b in range(m):
            v += others[b] * g[b]
        u[i] = v
        left -= v * g[i]
        gain -= v * s[i]
    if not (left > LEAST_PIVOT * G[j, j] and gain * end > 0.0):
        return False
    gain /= left
    for i in range(m):
        share, others = u[i] / left, inverse[i]
        for b in range(m):
            others[b] += share * u[b]
        inverse[i, m] = inverse[m, i] = -share
        w[i] -= gain * u[i]
    inverse[m, m] = 1.0 / left
    index[m], s[m], w[m] = j, end, gain
    return True


@uncounted(fastmath=_fast, error_model="numpy")
def _dropped(i, last, index, inverse, z, w, s):  # type: ignore[no-untyped-def]
    """Update the inverse and the direction for the removal of the i-th atom, whose place the last atom takes."""
    for b in range(last + 1):
        if b != i:
            share, others, row = inverse[b, i] / inverse[i, i], inverse[b], inverse[i]
            for c in range(last + 1):
                others[c] -= share * row[c]
            w[b] -= share * w[i]
    for b in range(last + 1):
        inverse[i, b] = inverse[last, b]
    for b in range(last + 1):
        inverse[b, i] = inverse[b, last]
    index[i], z[i], w[i], s[i] = index[last], z[last], w[last], s[last]


@uncounted()
def _start(Q, inverse_ends):  # type: ignore[no-untyped-def]
    """Return the largest lambda at which an atom reaches an end, and the atom; infinite where an end is zero."""
    lam, first = 0.0, -1
    for j in range(len(Q)):
        v = max(Q[j] * inverse_ends[0, j], Q[j] * inverse_ends[1, j])
        if v > lam:
            lam, first = v, j
    return lam, first


@uncounted(fastmath=_fast)
def _rounded(Q, below, above, unit, q, low, high):  # type: ignore[no-untyped-def]
    """Write correlations and ends in float32, in a unit that avoids overflow."""
    for k in range(len(Q)):
        q[k], low[k], high[k] = Q[k] / unit, max(below[k] / unit, -FREE), min(above[k] / unit, FREE)


@uncounted(fastmath=_fast)
def _moved(q, fall, a):  # type: ignore[no-untyped-def]
    for k in range(len(q)):
        q[k] -= fall * a[k]


@uncounted(fastmath=_fast)
def follow(G, coarse, Q, below, above, inverse_ends, index, z, scratch, wide):  # type: ignore[no-untyped-def]
    """Follow the path to lambda = 1; write the atoms in use and their codes, and return their number.

    Q holds the correlations of the zero code. `coarse`, which is G in float32, decides which atom is next. `wide` has
    room for four rows of Q in float32, `scratch` for a matrix and four vectors of as many atoms as may be in use.
    """
    g, u, w, s, inverse = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4:]
    q, a, low, high = wide[0], wide[1], wide[2], wide[3]
    lam, j = _start(Q, inverse_ends)
    if not 1.0 < lam < LONGEST:
        return 0
    unit = abs(Q[j])
    _rounded(Q, below, above, unit, q, low, high)
    m, most, blocked = np.int64(0), len(u), -1  # literals would compile loops a second time
    for _ in range(TURNS * most):
        if j >= 0:
            end = (above[j] if q[j] > 0.0 else below[j]) / unit
            if m == most or not _entered(G, j, end, index, m, inverse, g, u, w, s):
                break
            z[m], low[j], high[j] = 0.0, -FREE, FREE  # atoms in use do not enter
            m += 1
        a[:] = np.float32(0.0)
        add_rows(coarse, index, w, m, a)
        fall, leaves = lam - 1.0, -1
        for i in range(m):
            if z[i] * w[i] < 0.0 and abs(z[i]) < fall * abs(w[i]):
                fall, leaves = abs(z[i] / w[i]), i
        j, fall = _next(q, a, low, high, lam, fall)
        for i in range(m):
            z[i] += fall * w[i]
        lam -= fall
        if j < 0 and leaves < 0:
            lam = 1.0
            break
        _moved(q, np.float32(fall), a)
        if blocked >= 0:
            low[blocked], high[blocked] = max(below[blocked] / unit, -FREE), min(above[blocked] / unit, FREE)
            blocked = -1
        if j < 0:
            blocked = index[leaves]  # it is at its end still, and would enter again
            m -= 1
            _dropped(leaves, m, index, inverse, z, w, s)
    return _codes(Q, lam * unit, index, m, inverse, z, w, s)


@uncounted(fastmath=_fast)
def _codes(Q, lam, index, m, inverse, z, w, s):  # type: ignore[no-untyped-def]
    """Write the codes of the atoms in use from the float64 correlations, zero where rounding alone gave the sign.

    Return the number of atoms, or 0 where a code is not finite.
    """
    for i in range(m):
        w[i] = 0.0
        for b in range(m):
            w[i] += inverse[i, b] * (Q[index[b]] - lam * s[b])
        if not abs(w[i]) < np.inf:
            return 0
    for i in range(m):
        z[i] = w[i] if z[i] != 0.0 and (w[i] > 0.0) == (z[i] > 0.0) else 0.0
    return m
