"""Measures of whether features use both of their directions, in the atoms and in the codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxsae.dictionary.arrays import Matrix, checked_dictionary, codes_over, cosines_of_others, is_number


class Bipolarity(NamedTuple):
    """How far features use two directions."""

    antipodal: float  # share of the atoms that have another at a cosine <= -threshold
    two_sided: float | None  # mean balance of the atoms that fire; 0 where none does
    balance: Matrix | None  # of each atom, from 0 (one sign, or none) to 1 (both as often)


def bipolarity(D: Any, Z: Any = None, *, threshold: float = 0.9) -> Bipolarity:
    r"""Return the share of antipodal atoms, and how two-sided the codes fire.

    An atom is antipodal if another has :math:`\cos(d_i, d_j) \le -\mathrm{threshold}`: codes >= 0 need such a pair
    for a feature that signed codes hold in one atom. With n+ and n- the numbers of positive and negative codes of an
    atom, its balance is :math:`2 \min(n_+, n_-) / (n_+ + n_-)`.

    Parameters
    ----------
    D : array of shape (n_components, n_features)
    Z : array or SciPy sparse matrix of shape (n_samples, n_components), optional
        Without it only the atoms are measured.
    threshold : float, default 0.9
        In (0, 1].

    Examples
    --------
    >>> bipolarity([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]]).antipodal
    0.6666666666666666
    """
    D = checked_dictionary(D)
    if not is_number(threshold, 0, 1) or threshold == 0:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold!r}")
    rounding = 4 * np.finfo(np.float64).eps
    antipodal = sum(int((C.min(axis=1) <= rounding - threshold).sum()) for _, C in cosines_of_others(D)) / len(D)
    if Z is None:
        return Bipolarity(antipodal, None, None)
    Z = codes_over(D, Z)
    positive, negative = (np.bincount(Z.indices[side], minlength=len(D)) for side in (Z.data > 0, Z.data < 0))
    fires, balance = positive + negative, balance_of(positive, negative)
    return Bipolarity(antipodal, float(balance[fires > 0].mean()) if fires.any() else 0.0, balance)


def balance_of(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[Any]:
    """Return 2 min(n+, n-) / (n+ + n-): 1 where codes of both signs are as many, 0 where one sign is alone."""
    balance: NDArray[Any] = 2.0 * np.minimum(positive, negative) / np.maximum(positive + negative, 1)
    return balance
