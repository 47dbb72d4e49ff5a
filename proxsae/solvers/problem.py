"""The sparse-coding problem for a fixed dictionary: the smooth part, its gradient, and the step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers import Regularizer

EXACT_SIZE = 2048  # up to this order the largest eigenvalue comes from a full symmetric eigensolver
GRAM_LIMIT = 20_000  # atoms: what compiled methods keep of a Gram matrix is 3.2 GB at most
NOMINAL_ITERATIONS = 50  # iterations among which the cost of a Gram matrix is shared
NONCONVEX_SHARE = 0.99  # of 1/L: strictly below it the steps are square-summable, so the residual tends to 0


@dataclass(frozen=True)
class Problem:
    r"""Minimise :math:`F(z) = \frac12 \|y - z D\|^2 + R(z)` for every row y = x - b of the targets.

    NumPy arrays or Torch tensors; on tensors every operation is differentiable.
    """

    targets: Array  # Y = X - b, (n_samples, n_features)
    dictionary: Array  # D, (n_components, n_features)
    regularizer: Regularizer  # R
    step: float  # t, at most 1 / L
    gram: Array | None = None  # D D^T, (n_components, n_components), where it makes the gradient cheaper
    correlations: Array | None = None  # Y D^T, (n_samples, n_components), with the Gram matrix
    tools: Any = None  # what the algorithm has prepared for R and D
    coarse: Array | None = None  # the Gram matrix in float32, where a path is followed on it first

    def gradient(self, Z: Array) -> Array:
        """Return the gradient (Z D - Y) D^T of the smooth part."""
        if self.gram is None:
            return (Z @ self.dictionary - self.targets) @ self.dictionary.T
        return Z @ self.gram - self.correlations

    def proximal_step(self, Z: Array) -> Array:
        """Return prox_{tR}(z - t gradient(z)); from z = 0 this is prox_{tR}(t y D^T), an SAE encoder."""
        return self.regularizer.prox_unchecked(Z - self.step * self.gradient(Z), self.step)

    def at(self, rows: Array) -> Problem:
        """Return the problem of some of the samples."""
        correlations = None if self.correlations is None else self.correlations[rows]
        return replace(self, targets=self.targets[rows], correlations=correlations)


def gram_is_cheaper(n_samples: int, n_components: int, n_features: int) -> bool:
    """Compare multiplications: p^2 d + n p d once and n p^2 an iteration, or 2 n p d an iteration."""
    n, p, d = n_samples, n_components, n_features
    return p * d + n * d + NOMINAL_ITERATIONS * n * p < NOMINAL_ITERATIONS * 2 * n * d


def lipschitz_constant(D: Array) -> float:
    """Return L, the largest eigenvalue of D D^T: the Lipschitz constant of the gradient, computed in float64.

    Exact to rounding up to order ``EXACT_SIZE``; beyond, a Lanczos estimate within 1e-4, raised by 1e-3, or where
    Lanczos does not converge the bound that the largest row and column sums of abs(D) give.
    """
    xp = array_api_compat.array_namespace(D)
    D = xp.astype(D, xp.float64, copy=False)
    largest = float(xp.max(xp.abs(D)))
    if largest == 0:
        return 0.0
    unit = 2.0 ** math.floor(math.log2(largest))  # a power of two: nothing rounds, and no square overflows
    D = D / unit
    if D.shape[0] > D.shape[1]:
        D = D.T
    exact = D.shape[0] <= EXACT_SIZE
    L = max(0.0, float(xp.linalg.eigvalsh(D @ D.T)[-1])) if exact else _lanczos_bound(D)
    return L * unit * unit


def _lanczos_bound(D: Array) -> float:
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    def product(v: Array) -> Array:
        return to_numpy(D @ (D.T @ xp.asarray(v.ravel(), device=array_api_compat.device(D))))

    xp = array_api_compat.array_namespace(D)
    order = D.shape[0]
    start = np.random.default_rng(0).standard_normal(order)
    operator = LinearOperator((order, order), matvec=product, dtype=np.float64)
    try:
        largest = eigsh(operator, k=1, which="LA", tol=1e-4, v0=start, return_eigenvectors=False)[0]
    except ArpackError:
        sums = [float(xp.max(xp.sum(xp.abs(D), axis=axis))) for axis in (0, 1)]
        return sums[0] * sums[1]
    return 1.001 * max(0.0, float(largest))


def default_step(L: float, R: Regularizer) -> float:
    """Return 1/L for a convex R, a little less otherwise, and 1 where the gradient is constant."""
    if L == 0:
        return 1.0
    return (1.0 if R.is_convex else NONCONVEX_SHARE) / L
