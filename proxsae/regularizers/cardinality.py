"""The gain rule: which units of a code are kept, for any kind of unit and any penalty inside a unit.

A unit is a coordinate, a group of coordinates, or an entry of a whole batch. Let Q be a sum over units, each part 0 at
0. Freeing a unit, in place of setting it to zero, gains

    g = 1/2 ||u||^2 - min_z [1/2 ||z - u||^2 + t Q(z)] = <z, u - z/2> - t Q(z) >= 0,   z = prox_{tQ}(u),

so that Q plus a price c for each unit that is not zero keeps the units that gain more than t c, and Q with at most k
such units keeps the k that gain most; those that are kept take the prox of Q.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, Literal

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.integers import checked_count
from proxsae.kernels.top_k import Largest, matrix_support, row_support, top_k_mask
from proxsae.regularizers.base import Regularizer, no_rule
from proxsae.regularizers.basic import Zero
from proxsae.regularizers.nonseparable import NonSeparable, check_step, feasible
from proxsae.regularizers.parameters import as_parameter, spelled_value
from proxsae.regularizers.partition import Coordinates, Grouped, Units
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.traits import of_parts


def twice_gains(
    Q: Regularizer, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Units
) -> tuple[Array, Array]:
    """Return twice the gain of each unit of Z = prox_{tQ}(U), divided by the square of a scale; and that scale.

    Twice the gain without a partner is ||u||^2. The scale is a power of two, so that no square over- or underflows.
    """
    scale = xp.magnitudes(U, units)
    divisors = units.spread(scale)
    z, u = Z / divisors, U / divisors
    return units.sums(z * (2.0 * u - z)) - 2.0 * (step / scale) * (Q.group_values(xp, Z, units) / scale), scale


def ranks(Q: Regularizer, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Units) -> Array:
    """Return numbers in the order of the gains: the norms of the units where there is no partner."""
    return xp.in_order(*twice_gains(Q, xp, U, step, Z, units))


class Selection(NonSeparable):
    """A cost of the units that are not zero, plus a partner that is 0 at 0; its prox is the gain rule."""

    partner: Regularizer = field(default_factory=Zero, kw_only=True)

    rank = 7
    is_nonnegative = of_parts("is_nonnegative")
    is_indicator = of_parts("is_indicator")
    is_scale_free = of_parts("is_scale_free")

    @abstractmethod
    def units(self, n_components: int) -> Units:
        """Return the units that are kept or removed as one."""

    @abstractmethod
    def selected(self, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Units) -> Array:
        """Return Z = prox_{tQ}(U) with the units whose gain is too small set to zero."""

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        return self.selected(xp, U, step, self.partner.prox_on(xp, U, step), self.units(U.shape[-1]))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        at_weight_one = self.map_parameters(lambda name, value: 1.0 if name == "weight" else value)
        return at_weight_one.replace(partner=Zero()).prox_on(xp, U, t)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return super().value_on(xp, Z) + self.partner.value_on(xp, Z)

    def active(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return which units are not zero."""
        return self.units(Z.shape[-1]).sums(xp.abs(xp.sign(Z))) > 0

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        partner = () if isinstance(self.partner, Zero) else self.partner.terms
        return (*partner, self.replace(partner=Zero()))

    def scaled(self, weight: Any) -> Selection:
        return self.replace(partner=self.partner.scaled(weight))

    def in_units(self, scale: float) -> Selection:
        return self.replace(partner=self.partner.rescaled(scale))

    def fits(self, partner: Regularizer) -> bool:
        """Whether a partner is a sum over the units, 0 at 0."""
        return partner.is_zero_at_zero() if isinstance(partner, Separable) else False

    def joined(self, total: Regularizer) -> Regularizer:
        if not self.fits(total):
            raise ValueError(no_rule(total, self))
        return self.replace(partner=total)

    def printed_value(self) -> str:
        own = super().printed_value()
        return own if isinstance(self.partner, Zero) else f"{own} + {self.partner.printed_value()}"

    def arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        given = [getattr(self, f.name) for f in fields(self) if f.init and not f.kw_only]
        return [spelled_value(value, arrays) for value in given if value is not None]

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        partner = "" if isinstance(self.partner, Zero) else f"{self.partner.spelled(arrays)} + "
        return partner + super().spelled(arrays)


class Cardinality(Selection):
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
    partner : Separable
        Written as a sum, ``R + Cardinality(k)``.

    References
    ----------
    Beck and Eldar (2013), Sparsity constrained nonlinear optimization, SIAM J. Optim. 23;
    Bussmann, Leask and Nanda (2024), BatchTopK sparse autoencoders, arXiv:2412.06410.
    """

    k: int
    scope: Literal["sample", "batch"] = "sample"
    partner: Separable = field(default_factory=Zero, kw_only=True)
    weight: Any = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "k", checked_count("Cardinality: k", self.k, 0))
        if self.scope not in ("sample", "batch"):
            raise ValueError(f'scope must be "sample" or "batch", got {self.scope!r}')

    def units(self, n_components: int) -> Units:
        return Coordinates()

    def merged(self, other: Regularizer) -> Regularizer | None:
        if not isinstance(other, Cardinality) or other.scope != self.scope:
            return None
        return Cardinality(min(self.k, other.k), self.scope)

    def rank_sign(self, step: Array) -> float | None:
        """Return m if max(u, m u) orders the coordinates as their gains do, else None.

        Where all coordinates share one r, the gain is a convex function of u with minimum 0 at 0: it grows with abs(u)
        for an even r (m = -1), and with max(u, 0) for one that requires z >= 0 and is least at 0 (m = 1). These ranks
        do not round.
        """
        shape = np.shape(step)
        if self.partner.is_uniform and (not shape or (self.scope == "sample" and shape[-1] == 1)):
            if self.partner.is_nonnegative and self.partner.is_least_at_zero:
                return 1.0
            if self.partner.is_symmetric:
                return -1.0
        return None

    def ranks(self, xp: ArrayNamespace, U: Array, step: Array, Z: Array) -> Array:
        """Return numbers like U in the order of the gains."""
        sign = self.rank_sign(step)
        return ranks(self.partner, xp, U, step, Z, Coordinates()) if sign is None else xp.maximum(U, sign * U)

    def selected(self, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Units) -> Array:
        rank = self.ranks(xp, U, step, Z)
        if self.scope == "sample":
            return xp.where(top_k_mask(rank, self.k), Z, 0.0)
        n_rows = 1 if U.ndim == 1 else U.shape[0]
        return xp.where(top_k_mask(rank.reshape(1, -1), self.k * n_rows).reshape(U.shape), Z, 0.0)

    def support_rule(self, n_components: int, dtype: str, step: float = 1.0) -> Callable[[Array], tuple[Array, Array]]:
        """Return where the prox may be non-zero, see :meth:`Regularizer.support_rule`: the gains are ranked."""
        sign = self.rank_sign(step)
        if self.scope == "sample" and sign is not None:
            return Largest(self.k, sign)

        def selected(U: Array) -> tuple[Array, Array]:
            rank, sign = self.ranked(U, step)
            if self.scope == "batch":
                return matrix_support(rank, self.k * len(U), sign)
            return row_support(rank, self.k, sign)

        return selected

    def ranked(self, U: Array, step: float = 1.0) -> tuple[Array, float]:
        """Return numbers v like U, and m, such that max(v, m v) is in the order of the gains."""
        if (sign := self.rank_sign(step)) is not None:
            return U, sign
        xp = ArrayNamespace(U)
        t = xp.asarray(step)
        return self.ranks(xp, U, t, self.partner.prox_on(xp, U, t)), 1.0

    def at(self, indices: Any) -> Cardinality:
        """Return the regularizer of the entries at these coordinates, whose gains can be compared."""
        return self.replace(partner=self.partner.at(indices))

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        counts = self.active(xp, Z).sum(-1)
        allowed = counts <= self.k if self.scope == "sample" else (counts.sum() <= self.k * len(counts)) | (counts < 0)
        return feasible(xp, allowed, Z)

    @property
    def value_latex(self) -> str:
        bound = {"sample": r"\|z\|_0 \le %d", "batch": r"\|Z\|_0 \le %d\,n"}[self.scope] % self.k
        return rf"\iota_{{\{{{bound}\}}}}(z)"

    @property
    def prox_latex(self) -> str:
        many = {"sample": "%d", "batch": r"%d\,n"}[self.scope] % self.k
        where = rf"i \text{{ among the }} {many} \text{{ largest gains of the {self.scope}}}"
        return _kept_latex("i", self.partner.printed_entry("u_i"), where)

    def arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        return [str(self.k)] if self.scope == "sample" else [str(self.k), '"batch"']


def separable_part(R: Regularizer) -> Separable | None:
    """Return the separable part, which acts on the kept coordinates, or None where coordinates interact."""
    part = R.partner if isinstance(R, Cardinality) else R
    return part if isinstance(part, Separable) else None


class GroupSelection(Grouped, Selection):
    """A selection of groups."""

    def fits(self, partner: Regularizer) -> bool:
        return super().fits(partner) or (not partner.is_separable and partner.is_sum_over(self.groups))


class GroupL0(GroupSelection):
    r"""The number of non-zero groups, :math:`\sum_g c_g 1[z_g \ne 0]`, plus a partner that is 0 at 0.

    Gain rule: a group is kept, at the prox of the partner, where freeing it gains more than t c_g; without a partner,
    where :math:`\|u_g\|_2 > \sqrt{2 t c_g}`. The partner is any separable R, or any with the same groups.

    Parameters
    ----------
    groups : int or integer array of shape (n_components,)
        As in :class:`OfNorms`.
    group_weights : array of shape (largest label + 1,), optional
        c_g >= 0, 1 unless given.
    partner : Regularizer
        Written as a sum, ``R + GroupL0(groups)``.
    """

    groups: Any
    group_weights: Any = None

    is_indicator = False
    is_scale_free = False
    scope = "group"
    rank = 6
    value_latex = r"\sum_g c_g 1[z_g \ne 0]"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_groups()

    def selected(self, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Any) -> Array:
        check_step(self, step)
        gains, scale = twice_gains(self.partner, xp, U, step, Z, units)
        prices = 2.0 * (step / scale) * (xp.asarray(self.weight) * self.costs(xp, units) / scale)
        return xp.where(units.spread(gains > prices), Z, 0.0)

    def scaled(self, weight: Any) -> Selection:
        return self.replace(weight=self.weight * as_parameter(weight, "weight"), partner=self.partner.scaled(weight))

    def in_units(self, scale: float) -> Selection:
        return self.replace(weight=self.weight * scale * scale, partner=self.partner.rescaled(scale))

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return xp.where(self.active(xp, Z), self.costs(xp, self.units(Z.shape[-1])), 0.0).sum(-1)

    def is_sum_over(self, groups: Any) -> bool:
        return self.has_groups(groups)

    def group_values(self, xp: ArrayNamespace, Z: Array, units: Any) -> Array:
        counted = xp.where(self.active(xp, Z), self.costs(xp, units), 0.0)
        return xp.asarray(self.weight) * counted + self.partner.group_values(xp, Z, units)

    @property
    def prox_latex(self) -> str:
        return _kept_groups_latex(self.partner, r"\text{where freeing } u_g \text{ gains more than } t w c_g")


class GroupCardinality(GroupSelection):
    r"""The indicator of at most s non-zero groups, plus a partner that is 0 at 0: group top-s.

    Gain rule: the prox keeps the s groups of largest gain, and takes the prox of the partner there. Among equal gains
    the lowest label wins. Without a partner the gain of a group is :math:`\frac12 \|u_g\|_2^2`.

    Parameters
    ----------
    s : int
        Groups allowed, >= 0.
    groups : int or integer array of shape (n_components,)
        As in :class:`OfNorms`.
    partner : Regularizer
        Any separable R, or any with the same groups; written as a sum, ``R + GroupCardinality(s, groups)``.
    """

    s: int
    groups: Any
    weight: Any = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "s", checked_count("GroupCardinality: s", self.s, 0))
        self.read_groups()

    def merged(self, other: Regularizer) -> Regularizer | None:
        if not isinstance(other, GroupCardinality) or not self.has_groups(other.groups):
            return None
        return self.replace(s=min(self.s, other.s))

    def selected(self, xp: ArrayNamespace, U: Array, step: Array, Z: Array, units: Units) -> Array:
        check_step(self, step)
        keep = top_k_mask(ranks(self.partner, xp, U, step, Z, units), self.s)
        return xp.where(units.spread(keep), Z, 0.0)

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return feasible(xp, self.active(xp, Z).sum(-1) <= self.s, Z)

    @property
    def value_latex(self) -> str:
        return rf"\iota_{{\{{\#\{{g : z_g \ne 0\}} \le {self.s}\}}}}(z)"

    @property
    def prox_latex(self) -> str:
        return _kept_groups_latex(self.partner, rf"g \text{{ among the {self.s} groups of largest gain}}")


def _kept_latex(unit: str, inside: str, where: str) -> str:
    rule = rf"\begin{{cases}} {inside} & {where} \\ 0 & \text{{otherwise}} \end{{cases}}"
    return rf"\mathrm{{prox}}_{{tR}}(u)_{unit} = {rule}"


def _kept_groups_latex(partner: Regularizer, where: str) -> str:
    if isinstance(partner, Zero):
        return _kept_latex("g", "u_g", where)
    inside = _kept_latex("g", r"\mathrm{prox}_{tQ}(u)_g", where)
    return rf"{inside}, \quad Q(z) = {partner.printed_value()}"
