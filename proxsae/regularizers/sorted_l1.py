"""Norms of the sorted moduli: SLOPE, and the sum of the k largest."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.integers import checked_count
from proxsae.kernels.isotonic import nonincreasing_fit
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.parameters import as_parameter
from proxsae.regularizers.simplex import largest_modulus


class SortedL1(NonSeparable):
    r"""The sorted L1 norm (SLOPE, OWL), :math:`\sum_i w_i |z|_{(i)}` with :math:`|z|_{(1)} \ge |z|_{(2)} \ge \dots`.

    The prox sorts abs(u), takes off t w, fits a non-increasing sequence, cuts it at 0 and undoes the sorting.

    Parameters
    ----------
    weights : array of shape (n_components,)
        w_1 >= w_2 >= ... >= 0.

    References
    ----------
    Bogdan, van den Berg, Sabatti, Su and Candes (2015), SLOPE: adaptive variable selection, Ann. Appl. Stat. 9;
    Zeng and Figueiredo (2014), The ordered weighted l1 norm, arXiv:1409.4271.
    """

    weights: Any

    is_convex = True
    is_symmetric = True
    degree = 1
    value_latex = r"\sum_i w_i |z|_{(i)}"
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_{(i)} = \mathrm{sign}(u_{(i)}) \max(v_i, 0), \quad "
        r"v = \arg\min_{v_1 \ge v_2 \ge \dots} \sum_i (v_i - |u|_{(i)} + t w_i)^2"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = as_parameter(self.weights, "weights")
        if np.ndim(weights) != 1 or not bool((weights[1:] <= weights[:-1]).all()) or bool((weights < 0).any()):
            raise ValueError(f"SortedL1: weights must be non-increasing and >= 0, one a component, got {self.weights}")
        object.__setattr__(self, "weights", weights)

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return (xp.asarray(self.weights) * falling(xp.abs(Z))).sum(-1)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        return sorted_prox(xp, U, t * xp.asarray(self.weights))

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        r"""Return :math:`\max_k \sum_{i \le k} |v|_{(i)} / \sum_{i \le k} w_i`."""
        space = array_api_compat.array_namespace(V)
        sums = space.cumulative_sum(falling(xp.abs(V)), axis=-1)
        bounds = space.cumulative_sum(xp.asarray(self.weights), axis=-1)
        ratios = xp.where(bounds > 0, sums / xp.where(bounds > 0, bounds, 1.0), xp.where(sums > 0, xp.inf, 0.0))
        return largest_modulus(xp, ratios)

    def own_parameters(self) -> list[str]:
        return [*super().own_parameters(), "weights"]


class OfKLargest(NonSeparable, named=False):
    """A convex function of the moduli that is defined by the k largest of them, or by the k-sparse codes."""

    k: int

    is_convex = True
    is_symmetric = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "k", checked_count(f"{type(self).__name__}: k", self.k))


class SumOfKLargest(OfKLargest):
    r"""The sum of the k largest moduli, :math:`\sum_{i \le k} |z|_{(i)}`: between the L-infinity norm and L1.

    Parameters
    ----------
    k : int
        The number of moduli, >= 1; all moduli if the code has fewer components.

    References
    ----------
    Watson (1992), Linear best approximation using a class of polyhedral norms, Numer. Algorithms 2.
    """

    degree = 1
    prox_latex = SortedL1.prox_latex + r", \quad w_i = 1[i \le k]"

    @property
    def value_latex(self) -> str:
        return rf"\sum_{{i \le {self.k}}} |z|_{{(i)}}"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return falling(xp.abs(Z))[..., : self.k].sum(-1)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        return sorted_prox(xp, U, t * xp.asarray((np.arange(U.shape[-1]) < self.k).astype(np.float64)))

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        r"""Return :math:`\max(\|v\|_\infty, \|v\|_1 / \min(k, n))`."""
        return xp.maximum(largest_modulus(xp, V), xp.abs(V).sum(-1) / max(1, min(self.k, V.shape[-1])))


def falling(A: Array) -> Array:
    """Return the rows sorted, largest first."""
    return array_api_compat.array_namespace(A).sort(A, axis=-1, descending=True)


def sorted_prox(xp: ArrayNamespace, U: Array, thresholds: Array) -> Array:
    """Return the prox of a sorted norm with these thresholds, largest first."""
    space = array_api_compat.array_namespace(U)
    moduli = space.astype(xp.abs(U), space.float64)
    order = space.argsort(moduli, axis=-1, descending=True, stable=True)
    fit = nonincreasing_fit(space.take_along_axis(moduli, order, axis=-1) - thresholds)
    ranks = space.argsort(order, axis=-1)
    return xp.asarray(space.sign(U) * space.take_along_axis(fit.clip(0.0), ranks, axis=-1))
