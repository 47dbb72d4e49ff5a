r"""How far a dictionary is from an orthonormal one; each measure is defined here alone. Atoms count at norm 1."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from proxsae.dictionary.arrays import Matrix, checked_dictionary, cosines_of_others, is_count, unit


def mutual_coherence(D: Any) -> float:
    r"""Return :math:`\mu = \max_{i \ne j} |\langle d_i, d_j \rangle|`, with atoms at norm 1.

    Codes of fewer than :math:`\frac12 (1 + 1/\mu)` non-zeros are unique, and found by orthogonal matching pursuit and
    by L1. 0 for one atom; an atom of zeros has cosine 0 with every other.

    Parameters
    ----------
    D : array of shape (n_components, n_features)

    References
    ----------
    Donoho and Elad (2003), Proc. Natl. Acad. Sci. 100; Tropp (2004), Greed is good, IEEE Trans. Inf. Theory 50.

    Examples
    --------
    >>> mutual_coherence([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    0.7071067811865475
    """
    return float(min(1.0, max(np.abs(C).max() for _, C in cosines_of_others(checked_dictionary(D)))))


def welch_bound(n_components: int, n_features: int) -> float:
    r"""Return :math:`\sqrt{(p - d) / (d (p - 1))}`, below which no p atoms in d dimensions have their coherence.

    0 where p <= d: orthonormal atoms have coherence 0.

    Parameters
    ----------
    n_components, n_features : int
        p and d, at least 1 each.

    References
    ----------
    Welch (1974), Lower bounds on the maximum cross correlation of signals, IEEE Trans. Inf. Theory 20.
    """
    p, d = n_components, n_features
    if not is_count(p) or not is_count(d):
        raise ValueError(f"n_components and n_features must be integers >= 1, got {p!r} and {d!r}")
    return math.sqrt((p - d) / (d * (p - 1))) if p > d else 0.0


class RestrictedIsometry(NamedTuple):
    """Bounds of a restricted isometry constant: lower <= delta_k <= upper."""

    lower: float
    upper: float


def restricted_isometry(D: Any, k: int, *, n_trials: int = 200, random_state: Any = None) -> RestrictedIsometry:
    r"""Return bounds of :math:`\delta_k`, the least number with which codes of k non-zeros keep their norm.

    .. math:: (1 - \delta_k) \|z\|^2 \le \|z D\|^2 \le (1 + \delta_k) \|z\|^2 \quad\text{where } \|z\|_0 \le k,

    with atoms at norm 1. The constant itself is NP-hard. The lower bound is the worst of `n_trials` supports, each
    grown from an atom by the one that makes it worst; the upper bound is the sum of the k - 1 largest moduli of cosines
    of an atom with others, at its largest (Gershgorin).

    Parameters
    ----------
    D : array of shape (n_components, n_features)
        Without an atom of zeros, for which no constant below 1 holds.
    k : int
        From 1 to n_components.
    n_trials : int, default 200
    random_state : int, RandomState or None
        Draws the atoms from which supports grow, where there are more atoms than trials.

    References
    ----------
    Candes and Tao (2005), Decoding by linear programming, IEEE Trans. Inf. Theory 51; Tropp (2004), Greed is good, IEEE
    Trans. Inf. Theory 50 (the sum of cosines).
    """
    D = unit(checked_dictionary(D))
    if not is_count(k) or k > len(D):
        raise ValueError(f"k must be an integer between 1 and n_components = {len(D)}, got {k!r}")
    if not is_count(n_trials):
        raise ValueError(f"n_trials must be an integer >= 1, got {n_trials!r}")
    if (zero := np.flatnonzero(~D.any(axis=1))).size:
        raise ValueError(f"D must not have an atom of zeros, but row {zero[0]} is one")
    if k == 1:
        return RestrictedIsometry(0.0, 0.0)
    order = check_random_state(random_state).permutation(len(D))
    lower = max(_grown(D, first, k, high) for first in order[:n_trials] for high in (True, False))
    largest = [np.partition(np.abs(C), len(D) - k + 1, axis=1)[:, len(D) - k + 1 :] for _, C in cosines_of_others(D)]
    upper = max(float(part.sum(axis=1).max()) for part in largest)
    return RestrictedIsometry(min(lower, upper), upper)


def _grown(D: Matrix, first: int, k: int, high: bool) -> float:
    """Return the deviation of a support that grows towards its extreme direction.

    The atom that has the largest cosine with the image of the extreme eigenvector stretches it further, or shrinks it.
    """
    support = [int(first)]
    image = D[first]
    for _ in range(k - 1):
        C = np.abs(D @ image)
        C[support] = -1.0
        support.append(int(C.argmax()))
        chosen = D[support]
        values, vectors = np.linalg.eigh(chosen @ chosen.T)
        image = vectors[:, -1 if high else 0] @ chosen
    return float(values[-1] - 1.0 if high else 1.0 - values[0])
