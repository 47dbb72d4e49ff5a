"""Every support of k atoms, each refitted, as compiled loops."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numba
import numpy as np
from numba import int64, void

from proxsae.solvers.compiled_scalar import prox64, uncounted
from proxsae.solvers.pursuits.compiled_refit import (
    FINE,
    counts,
    gram64,
    indices,
    matrix,
    refit,
    scratch,
    value64,
    vector,
)


@uncounted(error_model="numpy")
def _following(support, p):
    """Move to the next combination in lexicographic order; return whether there is one."""
    k = support.size
    for a in range(k - 1, -1, -1):
        if support[a] < p - k + a:
            support[a] += 1
            for b in range(a + 1, k):
                support[b] = support[b - 1] + 1
            return True
    return False


@numba.njit(
    void(prox64, value64, matrix, matrix, vector, gram64, int64, indices, matrix, counts),
    nogil=True,
    cache=True,
    error_model="numpy",
)
def enumerate_rows(prox, value, P, C, energies, G, k, supports, codes, counts):
    """Write the best support of k atoms and its codes for every row of correlations; the first wins among equals."""
    S = scratch(k, 0, False)
    support, z = np.empty(k, np.int64), np.empty(k)
    for i in range(C.shape[0]):
        c, least = C[i], np.inf
        for a in range(k):
            support[a] = a
        while True:
            z[:] = 0.0
            refit(c, G, support, z, k, P, prox, value, FINE * np.sqrt(energies[i]), S)
            F = 0.0
            for a in range(k):
                F += value(z[a], P[support[a]]) - 0.5 * z[a] * (c[support[a]] + S.r[a])
            if F < least:
                least = F
                supports[i], codes[i] = support, z
            if not _following(support, C.shape[1]):
                break
        counts[i] = k
