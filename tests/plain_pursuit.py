"""Pursuits as a few lines of NumPy, for one sample: what the compiled kernels are held equal to.

c are the correlations of the atoms with the sample and G their Gram matrix; `prox(u, t, atoms)` and `value(z, atoms)`
are the penalties of the codes of some atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Penalty = tuple[Callable[..., Any], Callable[..., Any]]
LEAST_FALL = 1e-12  # of the squared norm of the sample


def fall_of(c: Any, curvature: Any, atoms: Any, penalty: Penalty) -> Any:
    """Return what F falls by when the code of each atom is freed from zero."""
    prox, value = penalty
    z = prox(c / curvature, 1.0 / curvature, atoms)
    return z * (c - 0.5 * curvature * z) - value(z, atoms)


def refit(c: Any, G: Any, support: list[int], penalty: Penalty) -> tuple[float, Any]:
    """Return F, less half the squared norm of the sample, and the codes that minimise it on a support."""
    prox, value = penalty
    z, A, b = np.zeros(len(support)), G[np.ix_(support, support)], c[support]
    for _ in range(100_000):
        before = z.copy()
        for a, j in enumerate(support):
            z[a] = prox(z[a] + (b[a] - A[a] @ z) / A[a, a], 1.0 / A[a, a], j)
        if np.abs(z - before).max(initial=0.0) <= 1e-15 * np.abs(z).max(initial=0.0):
            break
    return float(0.5 * z @ A @ z - b @ z + np.sum(value(z, np.array(support, int)))), z


def pursue(c: Any, energy: float, G: Any, k: int, penalty: Penalty, *, by_error: bool) -> list[int]:
    """Return the support of orthogonal matching pursuit, or by error, of orthogonal least squares."""
    support: list[int] = []
    given_up: list[int] = []
    norms = np.diag(G)
    while len(support) < k:
        z = refit(c, G, support, penalty)[1]
        correlation = c - z @ G[support]
        left = norms - np.sum(G[support] * np.linalg.solve(G[np.ix_(support, support)], G[support]), axis=0)
        curvature = left if by_error else norms
        may = np.flatnonzero((left > 1e-13 * norms) & ~np.isin(np.arange(len(c)), support + given_up))
        rank = fall_of(correlation[may], curvature[may], may, penalty) * (1.0 if by_error else norms[may])
        if not (rank > 0).any():
            break
        best = may[int(np.argmax(rank))]
        lowers = fall_of(correlation[best], norms[best], best, penalty) > LEAST_FALL * energy
        (support if lowers else given_up).append(int(best))
    return support
