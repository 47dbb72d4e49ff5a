"""The columns of the page for each atom: where it fires on each side, its nearest atoms, the tokens it raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxsae.dictionary.arrays import checked_dictionary, cosines_of_others, unit
from proxsae.report.examples import TokenPlaces
from proxsae.report.features import clearness

SIDES = (1, -1)  # the order of every axis of two sides: where the code is positive, where it is negative
ANTIPODE = 0.9  # as in bipolarity: two atoms are antipodes from a cosine of -0.9
BINS = 24  # a side, of an atom's histogram
_DIRECTIONS = 128  # given to the lens at once


class Examples(NamedTuple):
    """The strongest activations of each atom and side, one a context; fewer than n are filled up with -1."""

    row: NDArray[np.int64]  # (p, 2, n)
    z: NDArray[np.float32]  # (p, 2, n)
    around: NDArray[np.int8]  # (p, 2, n, 2 width + 1): 127 z / strongest of the atom, at the tokens before and after


class Firing(NamedTuple):
    """When atoms fire; arrays of shape (p, 2), and of one axis more."""

    counts: NDArray[np.int64]
    strongest: NDArray[np.float32]  # largest |z|; 0 where the side never fires
    histogram: NDArray[np.int64]  # (p, 2, BINS): of |z| between 0 and the strongest of the atom
    clearness: NDArray[np.float64]  # (p,)


class Neighbours(NamedTuple):
    """The atoms of largest |cosine| with each, and the histogram of all cosines."""

    atom: NDArray[np.int64]  # (p, n), the nearest first
    cosine: NDArray[np.float64]  # (p, n)
    lowest: NDArray[np.float64]  # (p,): of all others
    highest: NDArray[np.float64]
    histogram: NDArray[np.int64]  # of the pairs, over equal parts of [-1, 1]


def firing(columns: Any) -> Firing:
    """Return how often and how strongly atoms fire on each side.

    Parameters
    ----------
    columns : CSC matrix of shape (n_samples, p)
        Codes.
    """
    p = columns.shape[1]
    atom = np.repeat(np.arange(p), np.diff(columns.indptr))
    side = (columns.data < 0).astype(np.int64)
    fires = columns.data != 0
    atom, side, size = atom[fires], side[fires], np.abs(columns.data[fires])
    strongest = np.zeros((p, 2), dtype=np.float32)
    np.maximum.at(strongest, (atom, side), size)
    most = strongest.max(axis=1)[atom]
    place = np.minimum((BINS * (size / np.where(most > 0, most, 1.0))).astype(np.int64), BINS - 1)
    histogram = np.bincount((2 * atom + side) * BINS + place, minlength=2 * p * BINS).reshape(p, 2, BINS)
    return Firing(histogram.sum(axis=2), strongest, histogram, clearness(columns))


def examples(columns: Any, places: TokenPlaces, n: int, width: int) -> Examples:
    """Return where each side of each atom is strongest.

    Parameters
    ----------
    columns : CSC matrix of shape (n_rows, p)
        Codes of the rows of `places`.
    places : Places
    n, width : int
        Examples a side, and tokens before and after each.
    """
    p = columns.shape[1]
    row = np.full((p, 2, n), -1, dtype=np.int64)
    z = np.zeros((p, 2, n), dtype=np.float32)
    around = np.zeros((p, 2, n, 2 * width + 1), dtype=np.int8)
    of_row = np.zeros(columns.shape[0] + 1, dtype=np.float32)  # the last is that of row -1, always 0
    for atom in range(p):
        entries = slice(columns.indptr[atom], columns.indptr[atom + 1])
        rows, values = columns.indices[entries], columns.data[entries]
        if not values.any():
            continue
        of_row[rows] = 127 * (values / np.abs(values).max())
        for side, sign in enumerate(SIDES):
            found = places.strongest(rows, sign * values, n)
            some = slice(len(found))
            row[atom, side, some] = found
            _, near = places.window(found, width)
            around[atom, side, some] = np.rint(of_row[near])
        of_row[rows] = values
        z[atom] = np.where(row[atom] >= 0, of_row[row[atom]], 0)
        of_row[rows] = 0
    return Examples(row, z, around)


def neighbours(D: Any, n: int, bins: int) -> Neighbours:
    """Return the n nearest atoms of each, antipodes included, and how the cosines of all pairs are distributed.

    Parameters
    ----------
    D : array of shape (p, n_features)
    n : int
        At most p - 1 are returned.
    bins : int
    """
    D = checked_dictionary(D)
    p, n = len(D), min(n, len(D) - 1)
    atom, cosine = np.zeros((p, n), dtype=np.int64), np.zeros((p, n))
    lowest, highest = np.zeros(p), np.zeros(p)
    histogram = np.zeros(bins, dtype=np.int64)
    for rows, C in cosines_of_others(D):
        np.clip(C, -1, 1, out=C)
        lowest[rows], highest[rows] = C.min(axis=1), C.max(axis=1)
        is_later = np.arange(p) > np.arange(rows.start, rows.stop)[:, None]  # each pair once
        histogram += np.histogram(C[is_later], bins=bins, range=(-1, 1))[0]
        own = np.arange(rows.start, rows.stop)
        size = np.abs(C)
        size[own - rows.start, own] = -1.0
        nearest = np.argpartition(-size, max(n - 1, 0), axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(size, nearest, axis=1), axis=1, kind="stable")
        atom[rows] = np.take_along_axis(nearest, order, axis=1)
        cosine[rows] = np.take_along_axis(C, atom[rows], axis=1)
    return Neighbours(atom, cosine, lowest, highest, histogram)


def pushed_tokens(D: Any, lens: Callable[[Any], Any], n: int) -> NDArray[np.int64]:
    """Return the n tokens whose logits +d raises most and those that -d does, shape (p, 2, n).

    Logits are those of the logit lens: a direction goes through the final norm and the head alone. The logits of no
    direction, the biases, are subtracted, so that -d raises the tokens that +d lowers. Each logit is divided by its
    root mean square over 512 atoms: without this, rare tokens, which every direction moves far, would lead for all
    atoms.

    Parameters
    ----------
    D : array of shape (p, n_features)
    lens : callable
        From directions (m, n_features) to logits (m, n_vocabulary).
    n : int
    """
    D = unit(checked_dictionary(D)) * np.sqrt(np.shape(D)[1])
    nothing = np.asarray(lens(np.zeros_like(D[:1])))

    def raised(directions: Any) -> Any:
        for first in range(0, len(directions), _DIRECTIONS):
            yield np.asarray(lens(directions[first : first + _DIRECTIONS])) - nothing

    some = D[:: -(-len(D) // 512)]
    usual = np.sqrt(sum(np.square(logits).sum(axis=0) for logits in raised(some)) / len(some))
    found = []
    for logits in raised(D):
        shares = logits / np.where(usual > 0, usual, 1)
        sides = []
        for sign in SIDES:
            top = np.argpartition(-sign * shares, n - 1, axis=1)[:, :n]
            order = np.argsort(-sign * np.take_along_axis(shares, top, axis=1), axis=1, kind="stable")
            sides.append(np.take_along_axis(top, order, axis=1))
        found.append(np.stack(sides, axis=1))
    return np.concatenate(found)
