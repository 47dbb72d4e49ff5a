"""Measures of whether learned atoms and codes are the true ones, each defined here alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from proxsae.dictionary.arrays import Matrix, checked_dictionary, csr_codes, unit


class Matching(NamedTuple):
    """Pairs of a learned and a true atom, one-to-one, by ascending number of the true one.

    There are as many pairs as the smaller dictionary has atoms.
    """

    learned: NDArray[np.intp]  # row of D
    true: NDArray[np.intp]  # row of D_true
    sign: Matrix  # 1, or -1 where the learned atom is the negative
    cosine: Matrix  # of the pair, with the sign: >= 0 where signs are matched


def match_atoms(D: Any, D_true: Any, *, signed: bool = True) -> Matching:
    r"""Return the one-to-one matching of two dictionaries with the largest sum of cosines (Hungarian method).

    Parameters
    ----------
    D, D_true : arrays of shape (n_components, n_features)
        Learned and true atoms, in any number; they are scaled to norm 1.
    signed : bool, default True
        Codes may be negative, so that an atom and its negative are the same: moduli of cosines are matched. False, for
        codes >= 0: the cosines themselves.

    Raises
    ------
    TypeError, ValueError
        If a dictionary is not a finite matrix with at least one atom, or the numbers of features differ.

    References
    ----------
    Kuhn (1955), The Hungarian method for the assignment problem, Naval Res. Logist. Quart. 2.
    """
    D_true = checked_dictionary(D_true, "D_true")
    C = unit(checked_dictionary(D, n_features=D_true.shape[1])) @ unit(D_true).T
    return _matched(np.clip(C, -1.0, 1.0), signed)


def _matched(C: Matrix, signed: bool) -> Matching:
    learned, true = linear_sum_assignment(np.abs(C) if signed else C, maximize=True)
    order = np.argsort(true)
    learned, true = learned[order], true[order]
    found = C[learned, true]
    sign = np.where(found < 0, -1.0, 1.0) if signed else np.ones_like(found)
    return Matching(learned, true, sign, sign * found)


def matched_cosine(D: Any, D_true: Any, *, signed: bool = True) -> float:
    """Return the mean over the true atoms of the cosine with the learned atom that :func:`match_atoms` gives each.

    A true atom without a partner counts 0. Learned atoms without a partner do not count: the precision of
    :func:`support_scores` measures their cost.

    Parameters
    ----------
    D, D_true, signed
        As for :func:`match_atoms`.

    Examples
    --------
    >>> matched_cosine([[0.0, -3.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    1.0
    """
    D_true = checked_dictionary(D_true, "D_true")
    return float(match_atoms(D, D_true, signed=signed).cosine.sum() / len(D_true))


class SupportScores(NamedTuple):
    """How well the non-zeros of codes agree with the true ones, counted over all samples and atoms."""

    precision: float  # of the learned non-zeros, the share that are true
    recall: float  # of the true non-zeros, the share that are found
    f1: float  # 2 common / (learned + true)
    iou: float  # common / (learned + true - common)


def support_scores(Z: Any, Z_true: Any, matching: Matching | None = None) -> SupportScores:
    """Return precision, recall, F1 and intersection over union of the non-zeros of codes.

    Non-zeros are counted over the whole set, not averaged over samples; signs do not count. Learned non-zeros of atoms
    without a partner count as false positives, true non-zeros of atoms without a partner as false negatives. 0 / 0 is
    1.

    Parameters
    ----------
    Z, Z_true : arrays or SciPy sparse matrices of shape (n_samples, n_components)
        Learned and true codes of the same samples.
    matching : Matching, optional
        The matching of learned and true atoms by :func:`match_atoms`; by default atoms of the same number are matched.

    Raises
    ------
    TypeError, ValueError
        If Z and Z_true are not codes of the same samples, or do not fit one another or the matching.
    """
    Z, Z_true = _same_samples(Z, Z_true)
    n_learned, n_true = Z.nnz, Z_true.nnz
    if matching is not None:
        _check_matching(matching, Z, Z_true)
        Z, Z_true = Z[:, matching.learned], Z_true[:, matching.true]
    elif Z.shape != Z_true.shape:
        raise ValueError(
            f"Z and Z_true must have the same shape, or a matching is needed, got {Z.shape}, {Z_true.shape}"
        )
    common = int((Z.astype(bool).multiply(Z_true.astype(bool))).nnz)
    return SupportScores(
        _ratio(common, n_learned),
        _ratio(common, n_true),
        _ratio(2 * common, n_learned + n_true),
        _ratio(common, n_learned + n_true - common),
    )


def code_correlation(Z: Any, Z_true: Any, *, signed: bool = True) -> float:
    r"""Return the mean correlation coefficient (MCC) of learned and true codes over the samples.

    Every true atom whose code is not constant over the samples is matched with a learned atom so that the sum of the
    Pearson correlations of their codes (of the moduli of correlations, where `signed`) is largest; the mean is over
    these true atoms. A constant learned code has correlation 0, and a true atom without a partner counts 0. Where all
    true codes are constant the result is 1 if the learned codes are constant as well, else 0.

    Parameters
    ----------
    Z, Z_true : arrays or SciPy sparse matrices of shape (n_samples, n_components) and (n_samples, n_true)
        Learned and true codes of the same samples.
    signed : bool, default True
        As for :func:`match_atoms`.

    References
    ----------
    Hyvarinen and Morioka (2016), Unsupervised feature extraction by time-contrastive learning and nonlinear ICA, NIPS
    29.
    """
    Z, Z_true = _same_samples(Z, Z_true)
    (C, C_true), n = (_standardised(codes) for codes in (Z, Z_true)), max(1, Z.shape[0])
    (scaled, mean), (scaled_true, mean_true) = C, C_true
    varies = np.flatnonzero(np.diff(scaled_true.tocsc().indptr) > 0)
    if not varies.size:
        return float(scaled.nnz == 0)
    R = (scaled.T @ scaled_true[:, varies]).toarray() - n * np.outer(mean, mean_true[varies])
    return float(_matched(np.clip(R, -1.0, 1.0), signed).cosine.sum() / len(varies))


def _standardised(Z: csr_array) -> tuple[csr_array, Matrix]:
    """Return codes divided by the norms of their centred columns, and their means; zeros where they are constant."""
    n = max(1, Z.shape[0])
    largest = np.abs(Z).max(axis=0).toarray().ravel() if Z.nnz else np.zeros(Z.shape[1])
    Z = csr_array(Z.multiply(1.0 / np.where(largest > 0, largest, 1.0)[None, :]))
    squares, mean = np.asarray(Z.multiply(Z).sum(axis=0)).ravel(), np.asarray(Z.sum(axis=0)).ravel() / n
    spread = squares - n * mean**2
    varies = spread > 1e-12 * squares
    factor = np.where(varies, 1.0 / np.sqrt(np.where(varies, spread, 1.0)), 0.0)
    Z = csr_array(Z.multiply(factor[None, :]))
    Z.eliminate_zeros()
    return Z, mean * factor


def seed_stability(dictionaries: Sequence[Any], *, signed: bool = True) -> float:
    """Return the mean over pairs of dictionaries, learned from different seeds, of their :func:`matched_cosine`.

    Parameters
    ----------
    dictionaries : sequence of arrays of shape (n_components, n_features)
        Two or more, all of one shape.
    signed : bool, default True
        As for :func:`match_atoms`.
    """
    Ds = [checked_dictionary(D, f"dictionaries[{i}]") for i, D in enumerate(dictionaries)]
    if len(Ds) < 2:
        raise ValueError(f"dictionaries must hold at least two, got {len(Ds)}")
    if len({D.shape for D in Ds}) > 1:
        raise ValueError(f"dictionaries must have one shape, got {', '.join(str(D.shape) for D in Ds)}")
    return float(np.mean([matched_cosine(one, other, signed=signed) for one, other in combinations(Ds, 2)]))


def _same_samples(Z: Any, Z_true: Any) -> tuple[csr_array, csr_array]:
    Z, Z_true = csr_codes(Z), csr_codes(Z_true, "Z_true")
    if Z.shape[0] != Z_true.shape[0]:
        raise ValueError(f"Z and Z_true must be codes of the same samples, got {Z.shape[0]} and {Z_true.shape[0]}")
    return Z, Z_true


def _check_matching(matching: Any, Z: csr_array, Z_true: csr_array) -> None:
    if not isinstance(matching, Matching):
        raise TypeError(f"matching must be what match_atoms gives, got {type(matching).__name__}")
    for name, numbers, codes in (("learned", matching.learned, Z), ("true", matching.true, Z_true)):
        if len(numbers) and numbers.max() >= codes.shape[1]:
            raise ValueError(f"matching has the {name} atom {numbers.max()}, and the codes have {codes.shape[1]}")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
