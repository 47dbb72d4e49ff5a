"""Measures of whether the dictionary or the codes cause a poor reconstruction or recovery."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from proxsae.dictionary.arrays import Matrix, checked_dictionary, csr_codes
from proxsae.dictionary.recovery import code_correlation, match_atoms, matched_cosine, support_scores
from proxsae.dictionary.replacement import initial_atoms
from proxsae.formulas.arrays import to_numpy
from proxsae.metrics import ReconstructionSums, codes_of
from proxsae.regularizers import Cardinality, NonNegative, Regularizer
from proxsae.solvers import solve

COLUMNS = ("fvu", "l0", "cosine", "f1", "iou", "correlation")


class SplitRow(NamedTuple):
    """The scores of one dictionary with one kind of codes; None where the truth is not known."""

    dictionary: str  # "learned", "true", "random" or "rows of X"
    codes: str  # "learned", "refined", "solved" or "OMP"
    fvu: float  # see proxsae.metrics
    l0: float  # mean number of non-zeros
    cosine: float | None  # matched_cosine with the true dictionary
    f1: float | None  # support_scores with the true codes, after matching
    iou: float | None
    correlation: float | None  # code_correlation with the true codes


class ErrorSplit(NamedTuple):
    """A table of the losses of dictionaries and codes; ``print`` shows it."""

    rows: tuple[SplitRow, ...]
    inference: float  # FVU of the learned codes beyond the best codes over the learned dictionary
    dictionary: float | None  # FVU of those beyond the best codes over the true dictionary

    def __str__(self) -> str:
        lines = [f"{'dictionary':<12}{'codes':<10}" + "".join(f"{name:>12}" for name in COLUMNS)]
        for row in self.rows:
            numbers = (getattr(row, name) for name in COLUMNS)
            cells = "".join(f"{'':>12}" if number is None else f"{number:12.4f}" for number in numbers)
            lines.append(f"{row.dictionary:<12}{row.codes:<10}{cells}")
        lines.append(f"FVU lost by the inference: {self.inference:.4f}")
        if self.dictionary is not None:
            lines.append(f"FVU lost by the dictionary: {self.dictionary:.4f}")
        return "\n".join(lines)


def error_split(
    sae: Any, X: Any, D_true: Any = None, Z_true: Any = None, *, signed: bool | None = None, random_state: Any = None
) -> ErrorSplit:
    r"""Return reconstruction and recovery with learned, refined and OMP codes, and over the true dictionary.

    Three codes use the learned D and b: those of the autoencoder; those that :func:`proxsae.solve` reaches from them
    with the same R; and those of orthogonal matching pursuit (OMP) with as many non-zeros as the learned codes have on
    average. Over the true dictionary, with b = 0, there are solved codes, started at zero, and OMP. Controls are OMP
    over random atoms, and OMP of half of X over rows of the other half: reconstruction alone does not tell a learned
    dictionary from these.

    Parameters
    ----------
    sae : fitted ProxSAE
        Or an object with ``transform``, ``components_``, ``intercept_`` and ``regularizer_``.
    X : array of shape (n_samples, n_features)
        Best held out.
    D_true : array of shape (n_true, n_features), optional
        The atoms that X is made of.
    Z_true : array or SciPy sparse matrix of shape (n_samples, n_true), optional
        The codes that X is made of; needs `D_true`.
    signed : bool, optional
        Whether an atom and its negative are the same; by default unless R forces z >= 0.
    random_state : int, RandomState or None
        Draws the controls.

    References
    ----------
    Chanin and Garriga-Alonso (2026), SynthSAEBench, arXiv:2602.14687 (pursuit reconstructs well from poor atoms).

    Examples
    --------
    >>> from proxsae import ProxSAE
    >>> from proxsae.dictionary import error_split, sparse_signals, sphere_atoms
    >>> data = sparse_signals(500, sphere_atoms(20, 10, random_state=0), 2, exact=True, random_state=0)
    >>> sae = ProxSAE("0.3*L1", 20, encoder="solved", n_steps=40, batch_size=100, random_state=0).fit(data.X)
    >>> split = error_split(sae, data.X, data.dictionary, data.codes, random_state=0)
    >>> split.rows[0].cosine > 0.9
    True
    """
    needed = ("transform", "components_", "intercept_", "regularizer_")
    if missing := [name for name in needed if not hasattr(sae, name)]:
        raise ValueError(f"sae must be fitted, with {', '.join(needed)}, got {type(sae).__name__} without {missing[0]}")
    if len(getattr(getattr(sae, "blocks_", None), "sizes", ())) > 1:
        raise ValueError("a crosscoder has units of its own for each of its blocks, and D_true has none")
    if getattr(sae, "is_transcoder_", False):
        raise ValueError("a transcoder decodes to targets, and the codes that are solved for here reconstruct X")
    R, D, b = sae.regularizer_, checked_dictionary(sae.components_), np.asarray(sae.intercept_, dtype=np.float64)
    truth = Truth.of(D_true, Z_true, signed=not R.is_nonnegative if signed is None else signed)
    Z = csr_codes(codes_of(sae, X))
    X = to_numpy(X).astype(np.float64)
    k = int(np.clip(round(Z.nnz / len(X)), 1, len(D)))
    few: Regularizer = Cardinality(k) + NonNegative() if R.is_nonnegative else Cardinality(k)

    def row(name: str, atoms: Matrix, b: Matrix, codes: str) -> SplitRow:
        if codes == "learned":
            found = Z
        elif codes == "OMP":
            found = coded(X, atoms, b, few, method="omp")
        else:
            found = coded(X, atoms, b, R, init=Z if codes == "refined" else None)
        return truth.row(name, codes, X, atoms, b, found)

    rows = [row("learned", D, b, codes) for codes in ("learned", "refined", "OMP")]
    best, lost = min(r.fvu for r in rows[1:]), None
    if truth.D is not None:
        rows += [row("true", truth.D, np.zeros_like(b), codes) for codes in ("solved", "OMP")]
        lost = best - min(r.fvu for r in rows[3:])
    random, mean = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1)), X.mean(axis=0)
    rows.append(row("random", initial_atoms(X - mean, len(D), "random", random), mean, "OMP"))
    order = random.permutation(len(X))
    source, rest = order[: len(X) // 2], order[len(X) // 2 :]  # a row is reconstructed by itself
    atoms = initial_atoms(X[source] - mean, len(D), "data", random)
    found = coded(X[rest], atoms, mean, few, method="omp")
    rows.append(truth.at(rest).row("rows of X", "OMP", X[rest], atoms, mean, found))
    return ErrorSplit(tuple(rows), rows[0].fvu - best, lost)


def coded(X: Matrix, D: Matrix, b: Matrix, R: Regularizer, **options: Any) -> csr_array:
    """Return solved codes, including those that have not converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return csr_codes(solve(X, D, R, intercept=b, sparse_output=True, **options).codes)


class Truth(NamedTuple):
    """The true atoms and codes, as far as they are known."""

    D: Matrix | None
    Z: csr_array | None
    signed: bool

    @classmethod
    def of(cls, D_true: Any, Z_true: Any, *, signed: bool) -> Truth:
        """Return the truth, checked."""
        if D_true is None:
            if Z_true is not None:
                raise ValueError("Z_true needs D_true, whose atoms the learned ones are matched with")
            return cls(None, None, signed)
        D = checked_dictionary(D_true, "D_true")
        Z = None if Z_true is None else csr_codes(Z_true, "Z_true")
        if Z is not None and Z.shape[1] != len(D):
            raise ValueError(f"Z_true must have {len(D)} components as D_true has atoms, got {Z.shape[1]}")
        return cls(D, Z, signed)

    def at(self, rows: Any) -> Truth:
        """Return the truth for some of the samples."""
        return self if self.Z is None else self._replace(Z=self.Z[rows])

    def row(self, name: str, codes: str, X: Matrix, D: Matrix, b: Matrix, Z: csr_array) -> SplitRow:
        """Return the scores of a dictionary with codes."""
        sums = ReconstructionSums()
        sums.add(X, Z @ D + b, Z)
        reconstruction = sums.result()
        cosine = f1 = iou = correlation = None
        if self.D is not None:
            cosine = matched_cosine(D, self.D, signed=self.signed)
        if self.D is not None and self.Z is not None:
            scores = support_scores(Z, self.Z, match_atoms(D, self.D, signed=self.signed))
            f1, iou, correlation = scores.f1, scores.iou, code_correlation(Z, self.Z, signed=self.signed)
        return SplitRow(name, codes, reconstruction["fvu"], reconstruction["l0"], cosine, f1, iou, correlation)
