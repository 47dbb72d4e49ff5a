"""Sums of rows and largest entries as compiled loops that vectorise."""

from __future__ import annotations

import numpy as np

from proxsae.solvers.compiled_scalar import uncounted

LOOK = 32  # entries compared at once

_fast = {"reassoc", "contract"}


@uncounted(fastmath=_fast)
def add_rows(G, index, w, m, a):  # type: ignore[no-untyped-def]
    """Add to `a` the sum of w_i times row index_i of G, of the first m, four rows a pass."""
    number = a.dtype.type
    i = 0
    while i + 4 <= m:
        w0, w1, w2, w3 = number(w[i]), number(w[i + 1]), number(w[i + 2]), number(w[i + 3])
        g0, g1, g2, g3 = G[index[i]], G[index[i + 1]], G[index[i + 2]], G[index[i + 3]]
        for k in range(len(a)):
            a[k] += (w0 * g0[k] + w1 * g1[k]) + (w2 * g2[k] + w3 * g3[k])
        i += 4
    while i < m:
        w0, g0 = number(w[i]), G[index[i]]
        for k in range(len(a)):
            a[k] += w0 * g0[k]
        i += 1


@uncounted()
def _any_above(a, cut):  # type: ignore[no-untyped-def]
    found = False
    for k in range(len(a)):
        found |= a[k] > cut
    return found


@uncounted()
def largest(a):  # type: ignore[no-untyped-def]
    """Return the largest entry, or minus infinity: blocks are compared with it first, since maxima do not vectorise."""
    most = -np.inf
    for start in range(0, len(a), LOOK):
        block = a[start : min(start + LOOK, len(a))]
        if _any_above(block, most):
            for k in range(len(block)):
                most = max(most, block[k])
    return most
