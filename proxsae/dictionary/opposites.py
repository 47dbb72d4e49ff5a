"""Whether the two sides of a signed atom mean opposite things, against two one-sided atoms glued together at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from proxsae.dictionary.arrays import Matrix, checked_dictionary, codes_over, unit
from proxsae.dictionary.directions import balance_of

_DIRECTIONS = 128  # given to the lens at once


class Sides(NamedTuple):
    """Axes with two sides each: codes >= 0 of shape (n_samples, n_axes) and directions (n_axes, n_features)."""

    plus: csr_array
    minus: csr_array
    D_plus: Matrix
    D_minus: Matrix


class Opposition(NamedTuple):
    """How opposite the two sides of axes are; arrays over those that fire often enough on both."""

    axes: NDArray[np.int64]  # the numbers of the axes
    balance: Matrix  # 2 min(n+, n-) / (n+ + n-)
    context_cosine: Matrix  # between the mean activations of either side; -1 is opposite
    lens_plus: Matrix  # do tokens follow the + side that +d promotes? in standard deviations; 0 is no relation
    lens_minus: Matrix  # and the - side those that -d promotes? nan without a lens

    @property
    def lens(self) -> Matrix:
        """The smaller of the two lens scores."""
        return np.minimum(self.lens_plus, self.lens_minus)


def sides_of(Z: Any, D: Any) -> Sides:
    """Return the two sides of each atom: its positive codes along d, its negative ones along -d.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
    D : array of shape (n_components, n_features)
    """
    D = checked_dictionary(D)
    Z = codes_over(D, Z)
    return Sides(csr_array(Z.maximum(0)), csr_array((-Z).maximum(0)), D, -D)


def random_sides(Z: Any, D: Any, n_axes: int, *, least: int = 20, random_state: int = 0) -> Sides:
    """Return the axes of the null hypothesis: a random one-sided atom as the + side, another as the - side.

    Parameters
    ----------
    Z : array or SciPy sparse matrix of shape (n_samples, n_components)
        Codes >= 0, as of TopK; each side of an atom with signed codes counts as an atom of its own.
    D : array of shape (n_components, n_features)
    n_axes : int
    least : int, default 20
        Only atoms with so many non-zeros are drawn.
    random_state : int, default 0

    Raises
    ------
    ValueError
        If fewer than two atoms fire at least `least` times.
    """
    from scipy.sparse import hstack

    sides = sides_of(Z, D)
    codes, atoms = csr_array(hstack([sides.plus, sides.minus])), np.vstack([sides.D_plus, sides.D_minus])
    alive = np.flatnonzero(np.bincount(codes.indices, minlength=len(atoms)) >= least)
    if len(alive) < 2:
        raise ValueError(f"two atoms that fire on {least} samples are needed, {len(alive)} do")
    random = np.random.default_rng(random_state)
    first = random.choice(alive, n_axes)
    other = (np.searchsorted(alive, first) + random.integers(1, len(alive), n_axes)) % len(alive)  # never the same
    columns = codes.tocsc()
    plus, minus = (csr_array(columns[:, chosen]) for chosen in (first, alive[other]))
    return Sides(plus, minus, atoms[first], atoms[alive[other]])


def opposition(
    sides: Sides,
    X: Any,
    next_tokens: Any = None,
    lens: Callable[[Matrix], Any] | None = None,
    *,
    least: int = 20,
) -> Opposition:
    r"""Return how opposite the two sides of each axis are.

    - ``balance`` is :math:`2 \min(n_+, n_-) / (n_+ + n_-)` with the numbers of samples on which either side fires.
    - ``context_cosine``: each side has the mean of :math:`x - \bar x - z d` over the samples on which it fires, the
      activations without what is common to all and without what the atom itself writes there, which is opposite by
      construction. The measure is the cosine of these two means, -1 where the remainder is opposite too.
    - ``lens_plus``: with l(t) the logit that the axis :math:`d_+ - d_-` (for a signed atom, d) gives to token t, the
      mean of l over the tokens that follow where the + side fires, less its mean over all that follow any token, in
      standard deviations of the latter. ``lens_minus`` is that of -l where the - side fires. The score depends on how
      real text continues: that -d demotes the tokens that +d promotes does not raise it.

    Parameters
    ----------
    sides : Sides
        The result of :func:`sides_of`, or the null of :func:`random_sides`.
    X : array of shape (n_samples, n_features)
    next_tokens : int array of shape (n_samples,), optional
        The token that follows each sample; with `lens`.
    lens : callable, optional
        From directions (m, n_features) to logits (m, n_vocabulary).
    least : int, default 20
        Axes with fewer samples on a side are left out.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    X = np.asarray(X)
    if X.shape != (sides.plus.shape[0], sides.D_plus.shape[1]):
        raise ValueError(f"X must have shape {(sides.plus.shape[0], sides.D_plus.shape[1])}, got {X.shape}")
    counts = [np.bincount(codes.indices, minlength=codes.shape[1]) for codes in (sides.plus, sides.minus)]
    axes = np.flatnonzero(np.minimum(*counts) >= least)
    plus, minus = (csr_array(codes.tocsc()[:, axes]) for codes in (sides.plus, sides.minus))
    D_plus, D_minus = sides.D_plus[axes], sides.D_minus[axes]
    n_plus, n_minus = (count[axes] for count in counts)
    common = X.mean(axis=0, dtype=np.float64)
    contexts = [
        unit(_means(codes, n, X) - common - np.asarray(codes.sum(axis=0))[:, None] / n[:, None] * D)
        for codes, n, D in ((plus, n_plus, D_plus), (minus, n_minus, D_minus))
    ]
    scores = np.full(len(axes), np.nan), np.full(len(axes), np.nan)
    if lens is not None:
        scores = _lens_scores(lens, unit(D_plus - D_minus), (plus, minus), np.asarray(next_tokens))
    balance = balance_of(n_plus, n_minus)
    return Opposition(axes, balance, (contexts[0] * contexts[1]).sum(axis=1), *scores)


def _fires(codes: csr_array) -> csr_array:
    return csr_array((np.ones_like(codes.data), codes.indices, codes.indptr), shape=codes.shape)


def _means(codes: csr_array, n: NDArray[np.int64], X: Any) -> Matrix:
    """Return the mean of X over the samples on which each axis fires."""
    return np.asarray(_fires(codes).T @ X, np.float64) / n[:, None]


def _lens_scores(
    lens: Callable[[Matrix], Any], directions: Matrix, codes: tuple[csr_array, csr_array], next_tokens: NDArray[Any]
) -> tuple[Matrix, Matrix]:
    n = codes[0].shape[0]
    if next_tokens.shape != (n,):
        raise ValueError(f"next_tokens must be {n} tokens, one a sample, got shape {next_tokens.shape}")
    scores = np.zeros((2, len(directions)))
    tokens, where = np.unique(next_tokens, return_inverse=True)
    frequency = np.bincount(where) / n
    follows = csr_array((np.ones(n), (np.arange(n), where)), shape=(n, len(tokens)))
    counts = [csr_array(_fires(one).T @ follows) for one in codes]
    for first in range(0, len(directions), _DIRECTIONS):
        chunk = slice(first, first + _DIRECTIONS)
        logits = np.asarray(lens(directions[chunk]), np.float64)[:, tokens]
        mean = logits @ frequency
        logits -= mean[:, None]
        deviation = np.sqrt(np.square(logits) @ frequency)
        for side, sign in enumerate((1, -1)):
            of_side = counts[side][chunk]
            total = np.asarray(of_side.multiply(logits).sum(axis=1)).ravel()
            number = np.asarray(of_side.sum(axis=1)).ravel()
            scores[side, chunk] = sign * total / np.maximum(number, 1) / np.maximum(deviation, 1e-30)
    return scores[0], scores[1]
