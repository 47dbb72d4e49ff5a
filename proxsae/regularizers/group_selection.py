"""Whole groups of coordinates are kept or removed: the gain rule over groups, with any partner."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.kernels.top_k import top_k_mask
from proxsae.regularizers.base import Regularizer, Scope, no_rule, spelled_value
from proxsae.regularizers.basic import Zero
from proxsae.regularizers.groups import group_costs, set_groups
from proxsae.regularizers.nonseparable import NonSeparable, check_step
from proxsae.regularizers.partition import Partition, as_groups, check_groups, groups_width, partition, same_groups


class GroupL0(NonSeparable):
    r"""The number of non-zero groups, :math:`\sum_g c_g 1[z_g \ne 0]`, plus a partner that is 0 at 0.

    Gain rule: a group is kept, at the prox of the partner, where freeing it gains more than t c_g; without a partner,
    where :math:`\|u_g\|_2 > \sqrt{2 t c_g}`. The partner is any separable R, or any with the same groups.

    Parameters
    ----------
    groups : int or integer array of shape (n_components,)
        As in :class:`GroupL2`.
    group_weights : array of shape (largest label + 1,), optional
        c_g >= 0, 1 unless given.
    partner : Regularizer
        Written as a sum, ``R + GroupL0(groups)``.
    """

    groups: Any
    group_weights: Any = None
    partner: Regularizer = field(default_factory=Zero, kw_only=True)

    is_convex = False
    value_latex = r"\sum_g c_g 1[z_g \ne 0]"

    def __post_init__(self) -> None:
        super().__post_init__()
        set_groups(self)

    @property
    def scope(self) -> Scope:
        """A group."""
        return "group"

    @property
    def is_nonnegative(self) -> bool:
        """Whether the partner requires z >= 0."""
        return self.partner.is_nonnegative

    @property
    def prox_latex(self) -> str:
        """The gain rule."""
        return gain_rule_latex(self.partner, r"\text{where freeing } u_g \text{ gains more than } t w c_g")

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""
        return (*partner_terms(self.partner), self.replace(partner=Zero()))

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return the weighted number of non-zero groups."""
        parts = partition(self.groups, Z.shape[-1])
        return self._counts(xp, Z, parts).sum(-1)

    def _counts(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
        return xp.where(parts.sums(xp.abs(xp.sign(Z))) > 0, group_costs(self, xp, parts), 0.0)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return super().value_on(xp, Z) + self.partner.value_on(xp, Z)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, U, step)
        parts = partition(self.groups, U.shape[-1])
        Z = self.partner.prox_on(xp, U, step)
        worth = gains(self.partner, xp, U, step, Z, parts) > step * xp.asarray(self.weight) * group_costs(
            self, xp, parts
        )
        return xp.where(parts.spread(worth), Z, 0.0)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the prox without weight and partner."""
        return self.replace(weight=1.0, partner=Zero()).prox_on(xp, U, t)

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
        """Return the value of each group."""
        return xp.asarray(self.weight) * self._counts(xp, Z, parts) + self.partner.group_values(xp, Z, parts)

    def scaled(self, weight: Any) -> GroupL0:
        """Scale the count and the partner."""
        return self.replace(weight=self.weight * weight, partner=self.partner.scaled(weight))

    def rescaled(self, scale: float) -> GroupL0:
        """Return s^2 R(z/s): the count is multiplied by s^2."""
        return self.replace(weight=self.weight * scale * scale, partner=self.partner.rescaled(scale))

    @property
    def width(self) -> int | None:
        return groups_width(self.groups)

    def is_sum_over(self, groups: Any) -> bool:
        return same_groups(self.groups, groups)

    rank = 6

    def joined(self, total: Any) -> Regularizer:
        if not (total.is_zero_at_zero() if total.is_separable else total.is_sum_over(self.groups)):
            raise ValueError(no_rule(total, self))
        return self.replace(partner=total)

    def check_width(self, n_components: int) -> None:
        check_groups(self.groups, n_components, type(self).__name__)
        self.partner.check_width(n_components)

    def arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        return [spelled_value(value, arrays) for value in (self.groups, self.group_weights) if value is not None]

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the partner and the count joined by +."""
        return with_partner(self.partner, super().spelled(arrays), arrays)


class GroupCardinality(NonSeparable):
    r"""The indicator of at most s non-zero groups, plus a partner that is 0 at 0: group top-s.

    Gain rule: the prox keeps the s groups of largest gain, and takes the prox of the partner there. Among equal gains
    the lowest label wins. Without a partner the gain of a group is :math:`\frac12 \|u_g\|_2^2`.

    Parameters
    ----------
    s : int
        Groups allowed, >= 0.
    groups : int or integer array of shape (n_components,)
        As in :class:`GroupL2`.
    partner : Regularizer
        Any separable R, or any with the same groups; written as a sum, ``R + GroupCardinality(s, groups)``.
    """

    s: int
    groups: Any
    partner: Regularizer = field(default_factory=Zero, kw_only=True)

    is_convex = False
    is_indicator = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.s, bool) or not isinstance(self.s, int | np.integer) or self.s < 0:
            raise ValueError(f"s must be an integer >= 0, got {self.s!r}")
        object.__setattr__(self, "s", int(self.s))
        object.__setattr__(self, "groups", as_groups(self.groups))

    @property
    def scope(self) -> Scope:
        """The groups of a code compete."""
        return "sample"

    @property
    def is_nonnegative(self) -> bool:
        """Whether the partner requires z >= 0."""
        return self.partner.is_nonnegative

    @property
    def is_scale_free(self) -> bool:
        """Whether the partner is the indicator of a cone."""
        return self.partner.is_scale_free

    @property
    def value_latex(self) -> str:
        """The constraint."""
        return rf"\iota_{{\{{\#\{{g : z_g \ne 0\}} \le {self.s}\}}}}(z)"

    @property
    def prox_latex(self) -> str:
        """The gain rule."""
        return gain_rule_latex(self.partner, rf"g \text{{ among the {self.s} groups of largest gain}}")

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""
        return (*partner_terms(self.partner), self.replace(partner=Zero()))

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return 0 where at most s groups are not zero, and infinity elsewhere."""
        counts = (partition(self.groups, Z.shape[-1]).sums(xp.abs(xp.sign(Z))) > 0).sum(-1)
        return xp.where(counts <= self.s, 0.0 * Z.sum(-1), xp.inf)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return super().value_on(xp, Z) + self.partner.value_on(xp, Z)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, U, step)
        parts = partition(self.groups, U.shape[-1])
        Z = self.partner.prox_on(xp, U, step)
        keep = top_k_mask(gains(self.partner, xp, U, step, Z, parts), self.s)
        return xp.where(parts.spread(keep), Z, 0.0)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the prox without partner."""
        return self.replace(partner=Zero()).prox_on(xp, U, t)

    def scaled(self, weight: Any) -> GroupCardinality:
        """Scale the partner; the constraint has no weight."""
        return self.replace(partner=self.partner.scaled(weight))

    def rescaled(self, scale: float) -> GroupCardinality:
        """Rescale the partner; the constraint has no units."""
        return self.replace(partner=self.partner.rescaled(scale))

    @property
    def width(self) -> int | None:
        return groups_width(self.groups)

    rank = 7

    def merged(self, other: Any) -> Regularizer | None:
        same = isinstance(other, GroupCardinality) and same_groups(self.groups, other.groups)
        return self.replace(s=min(self.s, other.s)) if same else None

    def joined(self, total: Any) -> Regularizer:
        if not (total.is_zero_at_zero() if total.is_separable else total.is_sum_over(self.groups)):
            raise ValueError(no_rule(total, self))
        return self.replace(partner=total)

    def check_width(self, n_components: int) -> None:
        check_groups(self.groups, n_components, type(self).__name__)
        self.partner.check_width(n_components)

    def arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        return [str(self.s), spelled_value(self.groups, arrays)]

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the partner and the constraint joined by +."""
        return with_partner(self.partner, super().spelled(arrays), arrays)


def gains(R: Regularizer, xp: ArrayNamespace, U: Array, step: Array, Z: Array, parts: Partition) -> Array:
    r"""Return what each group of Z = prox_{tR}(U) gains over zero, :math:`\langle z, u - z/2 \rangle - t R_g(z_g)`."""
    return parts.sums(Z * (U - 0.5 * Z)) - step * R.group_values(xp, Z, parts)


def partner_terms(partner: Regularizer) -> tuple[Regularizer, ...]:
    """Return the terms of a partner, none for Zero."""
    return () if isinstance(partner, Zero) else partner.terms


def with_partner(partner: Regularizer, text: str, arrays: dict[str, Array] | None) -> str:
    """Return the partner and the text joined by +."""
    return text if isinstance(partner, Zero) else f"{partner.spelled(arrays)} + {text}"


def gain_rule_latex(partner: Regularizer, where: str) -> str:
    """Return the gain rule as LaTeX."""
    inner = "u_g" if isinstance(partner, Zero) else r"\mathrm{prox}_{tQ}(u)_g"
    rule = rf"\mathrm{{prox}}_{{tR}}(u)_g = \begin{{cases}} {inner} & {where} \\ 0 & \text{{otherwise}} \end{{cases}}"
    return rule if isinstance(partner, Zero) else rf"{rule}, \quad {partner.latex().replace('R(z)', 'Q(z)')}"
