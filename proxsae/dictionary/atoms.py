"""Dictionaries to make data of: on the sphere, in clusters, of a given coherence. Every atom has norm 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from sklearn.utils import check_random_state

from proxsae.dictionary.arrays import Matrix, is_count, is_number, unit
from proxsae.dictionary.coherence import mutual_coherence, welch_bound

MARGIN = 0.95  # of the coherence asked for, to which cosines are cut, so that alternating projections end
MOST_PROJECTIONS = 500
CLOSE, ROUNDING = 1e-3, 1e-12  # a coherence this near to the one asked for, as a share of it and besides, is that


def sphere_atoms(n_components: int, n_features: int, *, random_state: Any = None) -> Matrix:
    """Return atoms uniform on the sphere.

    Parameters
    ----------
    n_components, n_features : int
        The shape, at least 1 each.
    random_state : int, RandomState or None
    """
    _check_sizes(n_components, n_features)
    return unit(check_random_state(random_state).standard_normal((n_components, n_features)))


def clustered_atoms(
    n_components: int, n_features: int, n_clusters: int, *, spread: float = 0.5, random_state: Any = None
) -> Matrix:
    r"""Return atoms of a Gaussian mixture: :math:`d_i = c_{k(i)} + \mathrm{spread} \cdot \varepsilon_i`, at norm 1.

    Parameters
    ----------
    n_components, n_features : int
    n_clusters : int
        Of equal sizes up to one; the centres c are uniform on the sphere, :math:`k(i) = i \bmod n_{clusters}`.
    spread : float, default 0.5
        The expected norm of the deviation :math:`\varepsilon`, relative to the centre: cosines within a cluster are
        near :math:`1 / (1 + \mathrm{spread}^2)`.
    random_state : int, RandomState or None
    """
    _check_sizes(n_components, n_features)
    if not is_count(n_clusters) or n_clusters > n_components:
        raise ValueError(f"n_clusters must lie between 1 and n_components = {n_components}, got {n_clusters!r}")
    if not is_number(spread, 0):
        raise ValueError(f"spread must be finite and >= 0, got {spread!r}")
    random = check_random_state(random_state)
    centres = unit(random.standard_normal((n_clusters, n_features)))
    deviations = random.standard_normal((n_components, n_features)) * (spread / n_features**0.5)
    return unit(centres[np.arange(n_components) % n_clusters] + deviations)


def coherent_atoms(n_components: int, n_features: int, coherence: float, *, random_state: Any = None) -> Matrix:
    """Return atoms of a given mutual coherence, within 0.1 % of it.

    Random atoms lean towards a common direction where more coherence is asked for than they have; for less, they are
    driven apart by alternating projections.

    Parameters
    ----------
    n_components, n_features : int
    coherence : float
        Up to 1, and so far above the Welch bound that alternating projections reach it from where they start: in few
        dimensions that is not sure.
    random_state : int, RandomState or None

    Raises
    ------
    ValueError
        If no such dictionary is found.

    References
    ----------
    Tropp, Dhillon, Heath and Strohmer (2005), Designing structured tight frames via an alternating projection method,
    IEEE Trans. Inf. Theory 51.
    """
    if not is_number(coherence, 0, 1):
        raise ValueError(f"coherence must lie between 0 and 1, got {coherence!r}")
    random = check_random_state(random_state)
    D = sphere_atoms(n_components, n_features, random_state=random)
    if n_components == 1 and coherence > 0:
        raise ValueError(f"one atom has coherence 0, and {coherence} was asked for")
    D = _driven_apart(D, max(coherence, 0.01 * welch_bound(n_components, n_features)))  # orthogonal ones would vanish
    found = mutual_coherence(D)
    if found > coherence * (1 + CLOSE) + ROUNDING:
        raise ValueError(
            f"no {n_components} atoms of coherence {coherence} were found in {n_features} dimensions: the least was "
            f"{found:.3g}, and the Welch bound is {welch_bound(n_components, n_features):.3g}"
        )
    common = unit(random.standard_normal((1, n_features)))

    def leaning(share: float) -> Matrix:
        return unit((1.0 - share) ** 0.5 * D + share**0.5 * common)

    if coherence == 1.0:
        return np.repeat(common, n_components, axis=0)
    if found >= coherence:
        return D
    return leaning(brentq(lambda share: mutual_coherence(leaning(share)) - coherence, 0.0, 1.0, xtol=1e-12))


def _driven_apart(D: Matrix, coherence: float) -> Matrix:
    """Return the atoms once their coherence is as low as asked for, or the best of many projections.

    By turns the Gram matrix is made one of small cosines, and one of rank n_features.
    """
    best, least = D, mutual_coherence(D)
    for _ in range(MOST_PROJECTIONS):
        if least <= coherence * (1 + CLOSE) + ROUNDING:
            break
        if len(D) <= D.shape[1]:
            return np.asarray(np.linalg.svd(D, full_matrices=False)[2])
        G = np.clip(D @ D.T, -MARGIN * coherence, MARGIN * coherence)
        np.fill_diagonal(G, 1.0)
        values, vectors = np.linalg.eigh(G)
        kept = slice(len(values) - D.shape[1], None)
        D = unit(vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0)))
        if (now := mutual_coherence(D)) < least:
            best, least = D, now
    return best


def _check_sizes(n_components: int, n_features: int) -> None:
    if not is_count(n_components) or not is_count(n_features):
        raise ValueError(f"n_components and n_features must be integers >= 1, got {n_components!r} and {n_features!r}")
