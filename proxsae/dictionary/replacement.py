"""Initial atoms, and replacements of atoms that are dead or double: distinct rows of the data."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from proxsae.dictionary.arrays import Matrix, cosines_of_others, unit

Start = Literal["data", "k-means++", "random"]
DOUBLE = 0.99  # two atoms of at least this cosine are one


def initial_atoms(
    Y: Matrix, n_components: int, how: Start, random: np.random.Generator, *, nonnegative: bool = False
) -> Matrix:
    r"""Return distinct atoms of norm 1; random ones where the data have too few directions.

    Parameters
    ----------
    Y : array of shape (n_samples, n_features)
        Centred rows.
    n_components : int
    how : {"data", "k-means++", "random"}
        "data": rows drawn uniformly. "k-means++": rows drawn one by one with a probability proportional to what the
        best atom so far leaves of them, :math:`\|y\|^2 - \max_j \langle y, d_j\rangle^2`. "random": uniform on the
        sphere.
    random : Generator
    nonnegative : bool, default False
        Return atoms >= 0: the positive parts of these rows.

    Raises
    ------
    ValueError
        If `how` is none of these, Y is no finite matrix, or no atom is asked for.

    References
    ----------
    Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA.
    """
    if how not in get_args(Start):
        raise ValueError(f"how must be one of {', '.join(get_args(Start))}, got {how!r}")
    if Y.ndim != 2 or n_components < 1:
        raise ValueError(f"Y must be a matrix and n_components at least 1, got shape {Y.shape} and {n_components}")
    if not np.isfinite(Y).all():
        raise ValueError("Y must be finite, got NaN or infinity")
    if how == "random":
        rows = Y[:0]
    elif how == "data":
        rows = Y[random.permutation(len(Y))]
    else:
        rows = Y[_spread_rows(Y, n_components, random)]
    rows = np.maximum(rows, 0.0) if nonnegative else rows
    return filled(distinct(rows, n_components), n_components, random, nonnegative)


def _spread_rows(Y: Matrix, most: int, random: np.random.Generator) -> list[int]:
    squares = (Y * Y).sum(axis=1)
    left = squares.copy()
    chosen: list[int] = []
    rounding = 1e-12 * squares.max(initial=0.0)
    while len(chosen) < most and left.max(initial=0.0) > rounding:
        row = int(np.searchsorted(np.cumsum(left), random.random() * left.sum(), side="right").clip(0, len(Y) - 1))
        chosen.append(row)
        left = np.minimum(left, np.maximum(squares - (Y @ unit(Y[row : row + 1])[0]) ** 2, 0.0))
        left[row] = 0.0
    return chosen


def distinct(rows: Matrix, most: int, present: Matrix | None = None) -> Matrix:
    """Return the first rows, at norm 1 and at most `most`, that are not zero and repeat no row or present atom."""
    kept = np.zeros((0, rows.shape[1]))
    others = kept if present is None else unit(present)
    position = 0
    while len(kept) < most and position < len(rows):
        block = unit(rows[position : position + most - len(kept)])
        position += len(block)
        near = (np.abs(block @ np.vstack([others, kept]).T) >= DOUBLE).any(axis=1) | ~block.any(axis=1)
        block = block[~near]
        again = np.tril(np.abs(block @ block.T) >= DOUBLE, -1).any(axis=1)
        kept = np.vstack([kept, block[~again]])
    return kept


def filled(D: Matrix, n_components: int, random: np.random.Generator, nonnegative: bool) -> Matrix:
    """Return the atoms and as many random ones as are missing."""
    missing = random.standard_normal((n_components - len(D), D.shape[1]))
    return np.vstack([D, unit(np.abs(missing) if nonnegative else missing)])


def doubles(D: Matrix, usage: Matrix, *, signed: bool) -> NDArray[np.bool_]:
    """Return a mask of the atoms that repeat another atom which is used more, or as much and comes first.

    Where codes have signs, an atom and its negative count as equal.
    """
    rank = np.empty(len(D), dtype=np.intp)
    rank[np.argsort(-usage, kind="stable")] = np.arange(len(D))
    found = np.zeros(len(D), dtype=bool)
    for rows, C in cosines_of_others(D):
        found[rows] = (((np.abs(C) if signed else C) >= DOUBLE) & (rank < rank[rows, None])).any(axis=1)
    return found


def with_replacements(
    D: Matrix, which: NDArray[np.bool_], residual: Matrix, random: np.random.Generator, *, nonnegative: bool = False
) -> Matrix:
    """Return the dictionary with some atoms replaced by the residuals of the worst-reconstructed samples.

    Residuals along an atom that is already there are passed over; where too few others are left, random atoms are used.
    """
    n = int(which.sum())
    if not n:
        return D
    residual = np.maximum(residual, 0.0) if nonnegative else residual
    squares = (residual * residual).sum(axis=1)
    worst = np.argsort(-squares, kind="stable")[: 4 * n]
    new = filled(distinct(residual[worst], n, D[~which]), n, random, nonnegative)
    D = D.copy()
    D[which] = new
    return D
