"""Sums and products of rows, and largest entries, as compiled loops that vectorise."""

from __future__ import annotations

import numpy as np

from proxsae.solvers.compiled_scalar import uncounted

LOOK = 32  # entries compared at once

_fast = {"reassoc", "contract"}


@uncounted(fastmath=_fast)
def add_rows(G, index, w, m, a):  # type: ignore[no-untyped-def]
    """Add to `a` the sum over the first m of w_i times row index_i of G, four rows a pass."""
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


@uncounted(fastmath=_fast)
def products_of(D, index, m, x, out):  # type: ignore[no-untyped-def]
    """Write the products of a vector with the first m of the rows index_i of D, in float64, four rows a pass."""
    i = 0
    while i + 4 <= m:
        d0, d1, d2, d3 = D[index[i]], D[index[i + 1]], D[index[i + 2]], D[index[i + 3]]
        v0, v1, v2, v3 = 0.0, 0.0, 0.0, 0.0
        for k in range(len(x)):
            v = np.float64(x[k])
            v0 += v * np.float64(d0[k])
            v1 += v * np.float64(d1[k])
            v2 += v * np.float64(d2[k])
            v3 += v * np.float64(d3[k])
        out[i], out[i + 1], out[i + 2], out[i + 3] = v0, v1, v2, v3
        i += 4
    while i < m:
        row, total = D[index[i]], 0.0
        for k in range(len(x)):
            total += np.float64(x[k]) * np.float64(row[k])
        out[i] = total
        i += 1


@uncounted()
def _any_above(a, cut):  # type: ignore[no-untyped-def]
    found = False
    for k in range(len(a)):
        found |= a[k] > cut
    return found


@uncounted()
def largest(a):  # type: ignore[no-untyped-def]
    """Return the largest entry, or minus infinity; comparing whole blocks with it vectorises, where maxima do not."""
    most = -np.inf
    for start in range(0, len(a), LOOK):
        block = a[start : min(start + LOOK, len(a))]
        if _any_above(block, most):
            for k in range(len(block)):
                most = max(most, block[k])
    return most
