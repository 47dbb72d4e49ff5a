r"""Steps of the dictionary, as pure functions: for fixed codes no step increases the error of reconstruction.

K-SVD changes the codes as well, and does not increase the error with R.

With codes Z, targets Y = X - b, :math:`A = Z^T Z` and :math:`B = Z^T Y`, that error is

.. math:: \tfrac12 \|Y - Z D\|^2 = \tfrac12 \langle D, A D\rangle - \langle D, B\rangle + \tfrac12 \|Y\|^2 .
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, issparse

from proxsae.dictionary.arrays import Matrix
from proxsae.regularizers import Regularizer
from proxsae.regularizers.cardinality import separable_part
from proxsae.solvers.threads import blocks_of, in_threads, n_threads

AtomSet = Literal["sphere", "ball"]
BLOCK = 64  # atoms whose corrections are kept up to date one by one; the others by a product
DAMPING = 1e-10  # of the diagonal of A: what the least squares of few samples leave undecided stays


class Statistics(NamedTuple):
    """Sums over samples that a dictionary step needs; with forgetting, older samples count less."""

    seen: float  # number of samples, however old
    weight: float  # number of samples, older ones counting less
    code_sum: Matrix  # sum of z, (n_components,)
    sample_sum: Matrix  # sum of x, (n_features,)
    gram: Matrix  # sum of z z^T, (n_components, n_components)
    moments: Matrix  # sum of z x^T, (n_components, n_features)

    @classmethod
    def zeros(cls, n_components: int, n_features: int) -> Statistics:
        """Return the sums over no samples."""
        p, d = n_components, n_features
        return cls(0.0, 0.0, np.zeros(p), np.zeros(d), np.zeros((p, p)), np.zeros((p, d)))

    @classmethod
    def standing_for(cls, D: Matrix, b: Matrix, n_samples: float, square: float) -> Statistics:
        """Return sums for which D and b are optimal: those of samples with uncorrelated codes of this mean square."""
        gram = n_samples * square * np.eye(len(D))
        return cls(n_samples, n_samples, np.zeros(len(D)), n_samples * b, gram, gram.diagonal()[:, None] * D)

    def plus(self, Z: csr_array, X: Matrix, keep: float = 1.0, weights: Any = None) -> Statistics:
        """Return the sums with samples X, their codes Z and weights added; the old sums are multiplied by `keep`."""
        from proxsae.dictionary.compiled_updates import add_products

        w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
        Z, X = csr_array(Z, dtype=np.float64), np.ascontiguousarray(X, dtype=np.float64)
        gram, moments = keep * self.gram, keep * self.moments
        add_products(gram, moments, Z.indptr, Z.indices, Z.data, X, w)
        return Statistics(
            self.seen + len(X),
            keep * self.weight + float(w.sum()),
            keep * self.code_sum + Z.T @ w,
            keep * self.sample_sum + w @ X,
            gram,
            moments,
        )

    def rescaled(self, scale: Matrix) -> Statistics:
        """Return the sums for codes whose columns are multiplied by `scale`, (n_components,); 0 forgets an atom."""
        return self._replace(
            code_sum=self.code_sum * scale,
            gram=self.gram * scale * scale[:, None],
            moments=self.moments * scale[:, None],
        )

    @property
    def centred(self) -> tuple[Matrix, Matrix]:
        """A and B of the problem in which b is always the best one for D."""
        mean = self.code_sum / (self.weight or 1.0)
        return self.gram - np.outer(self.code_sum, mean), self.moments - np.outer(mean, self.sample_sum)

    def intercept(self, D: Matrix) -> Matrix:
        """Return the best b for D, the mean of x - z D."""
        b: Matrix = (self.sample_sum - self.code_sum @ D) / (self.weight or 1.0)
        return b


def onto(U: Matrix, atoms: AtomSet, nonnegative: bool, instead: Matrix) -> Matrix:
    """Return the nearest atoms: rows of norm 1 or at most 1, >= 0 on request; `instead` where no atom is nearest."""
    from proxsae.dictionary.compiled_updates import project

    U = np.array(U, dtype=np.float64, order="C")
    project(U, np.array(np.broadcast_to(instead, U.shape), dtype=np.float64), atoms == "ball", bool(nonnegative))
    return U


def descend_atoms(D: Matrix, A: Matrix, B: Matrix, *, atoms: AtomSet = "sphere", nonnegative: bool = False) -> Matrix:
    r"""Return D after a pass of block coordinate descent, in which each block is one atom.

    :math:`d_j \leftarrow \Pi(d_j + (B_j - A_j D) / A_{jj})`, with the projection :math:`\Pi` on the sphere or the ball,
    is the best atom with the others held; an atom that no code uses stays.

    Parameters
    ----------
    D : array of shape (n_components, n_features)
        Admissible atoms; products with all atoms are computed in their dtype.
    A, B : arrays of shape (n_components, n_components) and (n_components, n_features)
        :math:`A = Z^T Z` and :math:`B = Z^T Y`.
    atoms : {"sphere", "ball"}, default "sphere"
        Norm 1, or at most 1.
    nonnegative : bool, default False
        Atoms >= 0.

    Raises
    ------
    ValueError
        If A or B do not fit D.

    References
    ----------
    Mairal, Bach, Ponce and Sapiro (2010), Online learning for matrix factorization and sparse coding, JMLR 11.
    """
    _check_sums(D, A, B, atoms)
    from proxsae.dictionary.compiled_updates import descend_block

    D = D.copy()
    diagonal = A.diagonal()
    used = np.flatnonzero(diagonal > 1e-14 * max(diagonal.max(initial=0.0), 0.0))
    features = blocks_of(D.shape[1], -(-D.shape[1] // n_threads()))
    for first in range(0, len(used), BLOCK):
        block = used[first : first + BLOCK]
        moving, rows, C = D[block].astype(np.float64), A[block].astype(D.dtype, copy=False), B[block]
        in_threads(partial(_subtract_product, C, rows, D), features)
        descend_block(moving, C, A[np.ix_(block, block)], diagonal[block], atoms == "ball", bool(nonnegative))
        D[block] = moving
    return D


def _subtract_product(C: Matrix, A: Matrix, D: Matrix, part: slice) -> None:
    """Subtract A D from C, of some features."""
    C[:, part] -= A @ D[:, part]


def _check_sums(D: Matrix, A: Matrix, B: Matrix, atoms: str) -> None:
    p, d = D.shape
    if A.shape != (p, p) or B.shape != (p, d):
        raise ValueError(f"A and B must have shapes {(p, p)} and {(p, d)} as D has {(p, d)}, got {A.shape}, {B.shape}")
    if atoms not in get_args(AtomSet):
        raise ValueError(f"atoms must be one of {', '.join(get_args(AtomSet))}, got {atoms!r}")


def least_squares_atoms(D: Matrix, A: Matrix, B: Matrix, *, atoms: AtomSet = "sphere") -> tuple[Matrix, Matrix]:
    r"""Return the dictionary of least squares, :math:`A^{-1} B`, at norm 1 or at most 1, and the former norms.

    The method of optimal directions: codes multiplied by the norms, (n_components,), reconstruct as before. Where A is
    singular, D moves only in directions that the codes decide.

    Parameters
    ----------
    D, A, B, atoms
        As for :func:`descend_atoms`.

    Returns
    -------
    atoms : array of shape (n_components, n_features)
    norms : array of shape (n_components,)

    References
    ----------
    Engan, Aase and Husoy (1999), Method of optimal directions for frame design, ICASSP.
    """
    _check_sums(D, A, B, atoms)
    unit = 1.0 / np.sqrt(np.where(A.diagonal() > 0, A.diagonal(), 1.0))  # atoms used seldom count as much as others
    damped = A * unit * unit[:, None]
    damped[np.diag_indices_from(damped)] = 1.0 + DAMPING
    U = D + unit[:, None] * cho_solve(cho_factor(damped, lower=True), unit[:, None] * (B - A @ D))
    norms = np.linalg.norm(U, axis=1)
    scale = norms if atoms == "sphere" else np.maximum(norms, 1.0)
    return onto(U, atoms, False, D), scale


def ksvd_atoms(
    D: Matrix, Z: csr_array, Y: Matrix, R: Regularizer, *, nonnegative: bool = False, weights: Any = None
) -> tuple[Matrix, csr_array]:
    r"""Return D and Z after a pass of approximate K-SVD: each atom and then its own codes, the others held.

    With E the residual without atom j on the samples that use it, :math:`d_j \leftarrow E^T z_j` at norm 1 and
    :math:`z_j \leftarrow \mathrm{prox}_{r_j}(E d_j)`, one power iteration for the largest singular pair. For unit atoms
    these codes are optimal on their support for every R that is a sum over coordinates, with or without a cardinality;
    for other R the codes stay as they are. Atoms must have norm 1.

    Parameters
    ----------
    D : array of shape (n_components, n_features)
    Z : csr_array of shape (n_samples, n_components)
    Y : array of shape (n_samples, n_features)
        X - b.
    R : Regularizer
    nonnegative : bool, default False
        Atoms >= 0.
    weights : array of shape (n_samples,), optional
        w, the weights of the samples: :math:`d_j \leftarrow E^T (w z_j)`.

    References
    ----------
    Aharon, Elad and Bruckstein (2006), K-SVD, IEEE Trans. Signal Process. 54; Rubinstein, Zibulevsky and Elad (2008),
    Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit, Technion.
    """
    if not issparse(Z) or Z.shape != (len(Y), len(D)) or Y.shape[1:] != D.shape[1:]:
        raise ValueError(
            "D, Z and Y must have shapes (n_components, n_features), (n_samples, n_components), sparse, and "
            f"(n_samples, n_features), got {D.shape}, {type(Z).__name__} of {Z.shape} and {Y.shape}"
        )
    D = D.copy()
    residual = Y - Z @ D
    columns = Z.tocsc(copy=True)
    part = separable_part(R)
    for j in range(len(D)):
        entries = slice(columns.indptr[j], columns.indptr[j + 1])
        rows, z = columns.indices[entries], columns.data[entries]
        if not z.any():
            continue
        without = residual[rows] + np.outer(z, D[j])
        pull = z if weights is None else weights[rows] * z
        D[j] = onto((pull @ without)[None], "sphere", nonnegative, D[j])[0]
        if part is not None:
            z = part.at(np.full(len(z), j)).prox_unchecked(without @ D[j])
        residual[rows] = without - np.outer(z, D[j])
        columns.data[entries] = z
    codes = csr_array(columns)
    codes.eliminate_zeros()
    return D, codes
