"""Cardinality: at most k non-zeros, with any separable partner, by the gain rule."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.kernels.top_k import matrix_support, row_support, top_k_mask
from proxsae.regularizers.base import Regularizer, no_rule
from proxsae.regularizers.basic import Zero
from proxsae.regularizers.separable import Separable


class Cardinality(Regularizer):
    r"""The indicator of :math:`\|z\|_0 \le k`, plus a separable partner :math:`\sum_i r_i` with r_i(0) = 0.

    Gain rule: freeing coordinate i gains :math:`g_i = \frac12 u_i^2 - \min_z [\frac12 (z - u_i)^2 + t r_i(z)] \ge 0`,
    so the prox keeps the k coordinates of largest gain and applies the scalar prox of r_i there. Among equal gains the
    lowest index wins. ``Cardinality(k)`` is AbsTopK, ``NonNegative() + Cardinality(k)`` is TopK, and
    ``lam * L1() + Cardinality(k)`` is soft-TopK.

    Parameters
    ----------
    k : int
        Non-zeros allowed, >= 0: in each sample, or on average over the rows of the matrix at batch scope.
    scope : {"sample", "batch"}, default "sample"
        ``"batch"`` is BatchTopK: the k n largest gains of an n-row matrix.
    separable : Separable
        The partner; written as a sum, ``R + Cardinality(k)``.

    References
    ----------
    Beck and Eldar (2013), Sparsity constrained nonlinear optimization, SIAM J. Optim. 23;
    Bussmann, Leask and Nanda (2024), BatchTopK sparse autoencoders, arXiv:2412.06410.
    """

    k: int
    scope: Literal["sample", "batch"] = "sample"
    separable: Separable = field(default_factory=Zero)
    weight: Any = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        k: Any = self.k
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0:
            raise ValueError(f"k must be an integer >= 0, got {k!r}")
        if self.scope not in ("sample", "batch"):
            raise ValueError(f'scope must be "sample" or "batch", got {self.scope!r}')
        object.__setattr__(self, "k", int(k))

    @property
    def is_indicator(self) -> bool:
        """Whether the partner is an indicator."""
        return self.separable.is_indicator

    @property
    def is_nonnegative(self) -> bool:
        """Whether the partner requires z >= 0."""
        return self.separable.is_nonnegative

    @property
    def is_scale_free(self) -> bool:
        """Whether the partner is the indicator of a cone."""
        return self.separable.is_scale_free

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""
        partner = () if isinstance(self.separable, Zero) else self.separable.terms
        return (*partner, Cardinality(self.k, self.scope))

    def scaled(self, weight: Any) -> Cardinality:
        """Scale the partner; the constraint has no weight."""
        return Cardinality(self.k, self.scope, self.separable.scaled(weight))

    def rescaled(self, scale: float) -> Cardinality:
        """Rescale the partner; the constraint has no units."""
        return Cardinality(self.k, self.scope, self.separable.rescaled(scale))

    rank = 7

    def merged(self, other: Any) -> Regularizer | None:
        same = isinstance(other, Cardinality) and other.scope == self.scope
        return Cardinality(min(self.k, other.k), self.scope) if same else None

    def joined(self, total: Any) -> Regularizer:
        if not (isinstance(total, Separable) and total.is_zero_at_zero()):
            raise ValueError(no_rule(total, self))
        return Cardinality(self.k, self.scope, total)

    def printed_value(self) -> str:
        bound = {"sample": r"\|z\|_0 \le %d", "batch": r"\|Z\|_0 \le %d\,n"}[self.scope] % self.k
        partner = "" if isinstance(self.separable, Zero) else f" + {self.separable.printed_value()}"
        return rf"\iota_{{\{{{bound}\}}}}(z){partner}"

    def printed_prox(self) -> str:
        partner = self.separable.printed_entry("u_i")
        where = rf"i \text{{ among the {self.k} largest gains of the {self.scope}}}"
        cases = rf"\begin{{cases}} {partner} & {where} \\ 0 & \text{{otherwise}} \end{{cases}}"
        return rf"\mathrm{{prox}}_{{tR}}(u)_i = {cases}"

    def in_units(self, scale: float) -> Cardinality:
        return self.rescaled(scale)

    def mirror(self, step: Array) -> float | None:
        """Return m if max(u, m u) orders the coordinates as their gains do, else None.

        Where all coordinates share one r, the gain is a convex function of u with minimum 0 at 0: it grows with abs(u)
        for an even r (m = -1), and with max(u, 0) for one that requires z >= 0 and is least at 0 (m = 1). These ranks
        do not round.
        """
        if self.separable.is_uniform and (self.scope == "sample" or np.ndim(step) == 0):
            if self.separable.is_nonnegative and self.separable.is_least_at_zero:
                return 1.0
            if self.separable.is_symmetric:
                return -1.0
        return None

    def ranks(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        """Return an array like U that orders the coordinates as their gains do."""
        mirror = self.mirror(step)
        return self.separable.gains(U, step) if mirror is None else xp.maximum(U, mirror * U)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        ranks = self.ranks(xp, U, step)
        if self.scope == "batch":
            n_rows = 1 if U.ndim == 1 else U.shape[0]
            keep = top_k_mask(ranks.reshape(1, -1), self.k * n_rows).reshape(U.shape)
        else:
            keep = top_k_mask(ranks, self.k)
        return xp.where(keep, self.separable.prox_on(xp, U, step), 0.0)

    def support(self, U: Array, step: float = 1.0) -> tuple[Array, Array]:
        """Return the pattern of the non-zeros of the prox, see :meth:`Regularizer.support`."""
        mirror = self.mirror(step)
        if mirror is None:
            U, mirror = self.separable.gains(U, step), 1.0
        if self.scope == "batch":
            return matrix_support(U, self.k * len(U), mirror)
        return row_support(U, self.k, mirror)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        counts = (Z != 0).sum(-1)
        allowed = counts <= self.k if self.scope == "sample" else (counts.sum() <= self.k * len(counts)) | (counts < 0)
        return xp.where(allowed, self.separable.value_on(xp, Z), xp.inf)

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the partner and the constraint joined by +."""
        scope = "" if self.scope == "sample" else ', "batch"'
        partner = "" if isinstance(self.separable, Zero) else f"{self.separable.spelled(arrays)} + "
        return f"{partner}Cardinality({self.k}{scope})"
