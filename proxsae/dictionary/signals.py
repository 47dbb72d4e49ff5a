"""Samples made of known atoms with known sparse codes."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix, vstack
from scipy.special import ndtri
from sklearn.utils import check_random_state

from proxsae.dictionary.arrays import Matrix, checked_dictionary, is_number
from proxsae.formulas.integers import is_count

BLOCK = 2**22  # entries of the dense codes that are drawn at once
OFTEN = 30  # firings expected of an atom by its rate; by chance none in e^-30 of all draws
SURE = -40.0  # a threshold that every g exceeds


class SparseSignals(NamedTuple):
    """Samples with their true codes and dictionary: X = codes @ dictionary + noise."""

    X: Matrix  # (n_samples, n_features)
    codes: csr_matrix  # (n_samples, n_components)
    dictionary: Matrix  # (n_components, n_features)
    rates: Matrix  # how often each atom is asked to fire, (n_components,)
    is_bipolar: NDArray[np.bool_]  # which atoms fire with both signs, (n_components,)


def sparse_signals(
    n_samples: int,
    dictionary: Any,
    l0: float,
    *,
    exact: bool = False,
    bipolar: float = 1.0,
    zipf: float = 0.0,
    correlation: float = 0.0,
    n_factors: int = 8,
    parents: Any = None,
    exclusive: bool = False,
    magnitudes: tuple[float, float] = (1.0, 2.0),
    noise: float = 0.0,
    random_state: Any = None,
) -> SparseSignals:
    r"""Return samples x = z D + noise with sparse codes z of known structure, in the manner of SynthSAEBench.

    The atoms of a sample are drawn by a Gaussian copula: atom i fires where :math:`g_i > \Phi^{-1}(1 - r_i)`, with g
    standard normal and r_i its rate. Rates follow Zipf's law, :math:`r_i \propto i^{-\mathrm{zipf}}`, at most 1, and
    sum to `l0`.

    Parameters
    ----------
    n_samples : int
    dictionary : array of shape (n_components, n_features)
        D.
    l0 : float
        Mean number of non-zeros of a sample by the rates; `exclusive` lowers it.
    exact : bool, default False
        Every sample takes the l0 atoms (an integer) that exceed their threshold most, no child before its parent. The
        rates then hold for equal rates without `parents` and are a tendency else: count the codes that are drawn.
    bipolar : float, default 1.0
        Share of the atoms whose codes have random signs; the others fire with z > 0. 1: signed codes, 0: codes >= 0.
    zipf : float, default 0.0
        Exponent; 0: all atoms fire equally often.
    correlation : float, default 0.0
        Share in [0, 1) of the variance of g that `n_factors` common factors with random loadings explain.
    n_factors : int, default 8
    parents : array of int of shape (n_components,), optional
        A hierarchy, such as :func:`forest` gives: atom i fires only where atom parents[i] < i does; -1 for roots. The
        rates still hold, since a child fires more often where its parent does. With a correlation and unequal rates
        they do not hold, since the parent then tells something of the child, nor where `exact`: roots then take most of
        the non-zeros, and a warning tells of atoms that are never drawn.
    exclusive : bool, default False
        Among the children of one parent only the child that exceeds its threshold most fires.
    magnitudes : (low, high), default (1.0, 2.0)
        The modulus of a code that is not zero is uniform between these.
    noise : float, default 0.0
        Standard deviation of Gaussian noise on every feature.
    random_state : int, RandomState or None

    Raises
    ------
    ValueError
        If a parameter is not as described.

    References
    ----------
    Chanin and Garriga-Alonso (2026), SynthSAEBench: evaluating sparse autoencoders on scalable realistic synthetic
    data, arXiv:2602.14687.

    Examples
    --------
    >>> from proxsae.dictionary import sparse_signals, sphere_atoms
    >>> data = sparse_signals(100, sphere_atoms(20, 10, random_state=0), 3, exact=True, random_state=0)
    >>> data.X.shape, data.codes.nnz
    ((100, 10), 300)
    """
    D = checked_dictionary(dictionary, "dictionary")
    n_components = len(D)
    rates = firing_rates(n_components, l0, zipf)
    parents = None if parents is None else np.asarray(parents)
    levels = _levels(parents, n_components)
    _check(n_samples, l0, exact, bipolar, correlation, n_factors, magnitudes, noise)
    random = check_random_state(random_state)
    is_bipolar = np.zeros(n_components, dtype=bool)
    is_bipolar[random.permutation(n_components)[: round(bipolar * n_components)]] = True
    loadings = random.standard_normal((n_factors, n_components))
    loadings *= (correlation / (loadings**2).sum(axis=0)) ** 0.5
    thresholds = np.maximum(-ndtri(_conditional(rates, parents)), SURE)
    parts = []
    size = max(1, BLOCK // n_components)
    for first in range(0, n_samples, size):
        n = min(size, n_samples - first)
        g = (1.0 - correlation) ** 0.5 * random.standard_normal((n, n_components))
        excess = g + random.standard_normal((n, n_factors)) @ loadings - thresholds
        fires = _most(_none_before_its_parent(excess, levels, parents), int(l0)) if exact else excess > 0
        for level in levels:
            _follow_parents(fires, excess, level, parents, exclusive)
        Z = fires * random.uniform(*magnitudes, size=fires.shape)
        Z *= np.where(is_bipolar & (random.random_sample(fires.shape) < 0.5), -1.0, 1.0)
        parts.append(csr_array(Z))
    codes = csr_matrix(vstack(parts, format="csr"))
    n_missing = int(((codes.getnnz(axis=0) == 0) & (rates * n_samples > OFTEN)).sum())
    if exact and parents is not None and n_missing:
        warnings.warn(
            f"{n_missing} of {n_components} atoms, low in the hierarchy, are in no sample: with exact=True the atoms "
            "above them take all non-zeros",
            stacklevel=2,
        )
    X = codes @ D
    if noise > 0:
        X += noise * random.standard_normal(X.shape)
    return SparseSignals(X, codes, D, rates, is_bipolar)


def firing_rates(n_components: int, l0: float, zipf: float = 0.0) -> Matrix:
    """Return rates proportional to i^-zipf for i = 1, 2, ..., cut at 1, that sum to l0."""
    if not is_number(l0, 0, n_components) or l0 == 0:
        raise ValueError(f"l0 must lie between 0 and the {n_components} atoms, got {l0!r}")
    if not is_number(zipf, 0):
        raise ValueError(f"zipf must be finite and >= 0, got {zipf!r}")
    logarithms = -zipf * np.log(np.arange(1.0, n_components + 1))
    rates: Matrix = np.zeros(n_components)
    full, left = np.zeros(n_components, dtype=bool), l0
    while not full.all():
        weights = np.exp(logarithms[~full] - logarithms[~full].max())  # else all of them may underflow
        rates[~full] = weights * (left / weights.sum())
        if rates[~full].max() <= 1.0:
            break
        full |= rates >= 1.0  # those at 1 stay there, the others share what is left
        rates[full], left = 1.0, l0 - full.sum()
    return rates


def forest(n_components: int, n_roots: int, n_children: int) -> NDArray[np.int64]:
    """Return the parents of a forest, numbered level by level: the first atoms are roots, the others n_children each.

    Parameters
    ----------
    n_components : int
    n_roots : int
        From 1 to n_components.
    n_children : int
        The number of children of an atom, at least 1; the last level may be incomplete.

    Returns
    -------
    parents : int64 array of shape (n_components,)
        The number of an earlier atom, -1 for roots: what :func:`sparse_signals` takes.
    """
    is_forest = all(map(is_count, (n_components, n_roots, n_children)))
    if not is_forest or n_roots > n_components:
        raise ValueError(
            f"a forest of {n_components} atoms needs 1 to {n_components} roots and at least one child, got {n_roots} "
            f"and {n_children}"
        )
    number = np.arange(n_components)
    return np.where(number < n_roots, -1, (number - n_roots) // n_children)


def _levels(parents: Any, n_components: int) -> list[NDArray[np.intp]]:
    """Return the atoms of each depth below the roots."""
    if parents is None:
        return []
    is_one_each = parents.shape == (n_components,) and parents.dtype.kind in "iu"
    if not (is_one_each and ((parents >= -1) & (parents < np.arange(n_components))).all()):
        raise ValueError(f"parents must hold for each of the {n_components} atoms the number of an earlier one, or -1")
    depth = np.zeros(n_components, dtype=int)
    for atom in np.flatnonzero(parents >= 0):
        depth[atom] = depth[parents[atom]] + 1
    return [np.flatnonzero(depth == level) for level in range(1, depth.max() + 1)]


def _conditional(rates: Matrix, parents: Any) -> Matrix:
    """Return the rates given that the parents fire: parents come earlier, so that their rates are no lower."""
    if parents is None:
        return rates
    return np.where(parents >= 0, rates / rates[parents], rates)


def _most(excess: Matrix, k: int) -> NDArray[np.bool_]:
    fires = np.zeros(excess.shape, dtype=bool)
    np.put_along_axis(fires, np.argpartition(-excess, k - 1, axis=1)[:, :k], True, axis=1)
    return fires


def _none_before_its_parent(excess: Matrix, levels: list[NDArray[np.intp]], parents: Any) -> Matrix:
    """Return the excess over the thresholds, lowered where that of the parent is not larger."""
    excess = excess.copy()
    for level in levels:
        of_parents = excess[:, parents[level]]
        excess[:, level] = np.minimum(excess[:, level], np.nextafter(of_parents, -np.inf))
    return excess


def _follow_parents(fires: Any, excess: Matrix, level: Any, parents: Any, exclusive: bool) -> None:
    """Silence, in place, atoms of a level whose parents are silent; if `exclusive`, all but one child of a parent."""
    level = level[np.argsort(parents[level], kind="stable")]
    fires[:, level] &= fires[:, parents[level]]
    if exclusive:
        sizes = np.where(fires[:, level], excess[:, level], -np.inf)
        _, starts, counts = np.unique(parents[level], return_index=True, return_counts=True)
        largest = np.repeat(np.maximum.reduceat(sizes, starts, axis=1), counts, axis=1)
        fires[:, level] &= sizes == largest


def _check(
    n_samples: Any, l0: Any, exact: bool, bipolar: Any, correlation: Any, n_factors: Any, magnitudes: Any, noise: Any
) -> None:
    if not is_count(n_samples):
        raise ValueError(f"n_samples must be an integer >= 1, got {n_samples!r}")
    if exact and int(l0) != l0:
        raise ValueError(f"l0 must be an integer where it is exact, got {l0!r}")
    if not is_number(bipolar, 0, 1):
        raise ValueError(f"bipolar must lie between 0 and 1, got {bipolar!r}")
    if not is_number(correlation, 0, 1) or correlation == 1 or not is_count(n_factors):
        raise ValueError(f"correlation must lie in [0, 1) with n_factors >= 1, got {correlation!r} and {n_factors!r}")
    low, high = magnitudes if np.shape(magnitudes) == (2,) else (np.nan, np.nan)
    if not is_number(low, 0) or not is_number(high, low) or low == 0:
        raise ValueError(f"magnitudes must be (low, high) with 0 < low <= high, got {magnitudes!r}")
    if not is_number(noise, 0):
        raise ValueError(f"noise must be finite and >= 0, got {noise!r}")
