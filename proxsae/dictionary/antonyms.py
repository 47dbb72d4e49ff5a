"""Whether one atom carries a pair of words with opposite signs, and how many atoms the pair takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from proxsae.dictionary.arrays import Matrix, checked_dictionary, csr_codes


class PairCode(NamedTuple):
    """How the codes tell a pair of words apart."""

    atom: int | None  # the atom that carries the pair with opposite signs, or None
    sign: int  # the sign of that atom on the first word; 0 without an atom
    explained: Matrix  # share of the difference explained by the 1, 2, 3 ... atoms whose codes differ most
    n_half: int | None  # how many atoms explain half of the difference, None where all together do not


def pair_code(Z_a: Any, Z_b: Any, X_a: Any, X_b: Any, D: Any, *, most: int = 64) -> PairCode:
    r"""Return how codes tell two words apart, each read in several contexts.

    An atom carries the pair with opposite signs if its code is positive on one word and negative on the other, each in
    at least half of the contexts; among several such atoms the one of largest :math:`|\bar z_a - \bar z_b| \|d\|`
    counts. With :math:`\delta = \bar x_a - \bar x_b` and the atoms ordered by that number, the first m explain

    .. math:: 1 - \|\delta - \sum_{i \le m} (\bar z_a - \bar z_b)_i d_i\|^2 / \|\delta\|^2.

    Parameters
    ----------
    Z_a, Z_b : array or SciPy sparse matrix of shape (n_contexts, n_components)
    X_a, X_b : array of shape (n_contexts, n_features)
    D : array of shape (n_components, n_features)
    most : int, default 64
        Number of atoms that are counted.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    D = checked_dictionary(D)
    codes = [csr_codes(Z).toarray() for Z in (Z_a, Z_b)]
    X_a, X_b = np.asarray(X_a, np.float64), np.asarray(X_b, np.float64)
    for Z, X in zip(codes, (X_a, X_b), strict=True):
        if Z.shape != (len(X), len(D)) or X.shape[1] != D.shape[1] or not len(X):
            raise ValueError(f"codes of shape {Z.shape} and rows of shape {X.shape} do not fit D of shape {D.shape}")
    difference = codes[0].mean(axis=0) - codes[1].mean(axis=0)
    size = np.abs(difference) * np.linalg.norm(D, axis=1)
    fires = [[(sign * Z > 0).mean(axis=0) >= 0.5 for sign in (1, -1)] for Z in codes]
    opposite = (fires[0][0] & fires[1][1]) | (fires[0][1] & fires[1][0])
    atom = int(np.argmax(np.where(opposite, size, -1.0))) if opposite.any() else None
    delta = X_a.mean(axis=0) - X_b.mean(axis=0)
    order = np.argsort(-size, kind="stable")[:most]
    left = delta - np.cumsum(difference[order, None] * D[order], axis=0)
    total = float(delta @ delta)
    explained = 1.0 - np.square(left).sum(axis=1) / total if total > 0 else np.zeros(len(order))
    enough = np.flatnonzero(explained >= 0.5)
    sign = 0 if atom is None else int(np.sign(difference[atom]))
    return PairCode(atom, sign, explained, int(enough[0]) + 1 if len(enough) else None)
