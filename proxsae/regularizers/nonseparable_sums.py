"""Sums with a term that looks at a whole code, or at groups: which have an exact prox, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.asymmetric import Tilt
from proxsae.regularizers.base import Regularizer, Scope
from proxsae.regularizers.basic import NonNegative, SquaredL2, Zero
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.conjugate import beyond_slopes_at_zero
from proxsae.regularizers.group_selection import GroupCardinality, GroupL0
from proxsae.regularizers.nonseparable import NonSeparable, check_step
from proxsae.regularizers.partition import Partition, same_groups
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import combine_separable, is_zero_at_zero, merged, no_rule


class NonSeparableSum(Regularizer, named=False):
    r"""R(z) + f(z) + (a/2) ||z||^2 + <c, z>, with f separable and taken by R.

    Completing the square leaves the prox of R + f at :math:`(u - tc)/(1 + ta)` and the step :math:`t/(1 + ta)`.
    """

    core: NonSeparable
    base: Separable
    ridge: SquaredL2
    tilt: Tilt
    weight: Any = field(default=1.0, init=False)

    @property
    def is_convex(self) -> bool:
        """Whether R and f are convex."""
        return self.core.is_convex and self.base.is_convex

    @property
    def is_nonnegative(self) -> bool:
        """Whether a term requires z >= 0."""
        return self.core.is_nonnegative or self.base.is_nonnegative

    @property
    def scope(self) -> Scope:
        """The scope of R."""
        return self.core.scope

    def is_sum_over(self, groups: Any) -> bool:
        return self.core.is_sum_over(groups)

    @property
    def separable(self) -> Separable:
        """The separable terms."""
        ridge = [self.ridge] if self.ridge.weight else []
        tilt = [self.tilt] if np.any(self.tilt.slope) else []
        return combine_separable([*self.base.terms, *ridge, *tilt])

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""
        return (*self.core.terms, *(term for term in self.separable.terms if not isinstance(term, Zero)))

    def scaled(self, weight: Any) -> Regularizer:
        """Return the sum of the scaled terms."""
        return combine_nonseparable([term.scaled(weight) for term in self.terms])

    def rescaled(self, scale: float) -> Regularizer:
        """Return the sum of the rescaled terms."""
        return combine_nonseparable([term.rescaled(scale) for term in self.terms])

    def in_units(self, scale: float) -> Regularizer:
        return self.rescaled(scale)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return self.core.value_on(xp, Z) + self.separable.value_on(xp, Z)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, U, step)
        shrink = 1.0 + step * xp.asarray(self.ridge.weight)
        return self.core.prox_with(xp, self.tilt.prox_on(xp, U, step) / shrink, step / shrink, self.base)

    @property
    def has_conjugate(self) -> bool:
        """Whether R has one, with the ridge if there is one."""
        core = self.core.has_conjugate_with_ridge if self.ridge.weight else self.core.has_conjugate
        return core and self.base.has_conjugate

    def conjugate_on(self, xp: ArrayNamespace, V: Array) -> Array:
        V = self._left_to_core(xp, V)
        if self.ridge.weight:
            return self.core.conjugate_with_ridge(xp, V, xp.asarray(self.ridge.weight))
        return self.core.conjugate_on(xp, V)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return 0.0 * V.sum(-1) if self.ridge.weight else self.core.gauge_on(xp, self._left_to_core(xp, V))

    def _left_to_core(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return where R* + f* + tilt at v is R* alone: less the tilt, and less what f takes.

        R grows with every abs(z_i), so where v_i is not beyond the slopes of f at 0, z_i = 0 is best.
        """
        V = V - self.tilt.on(xp).slope
        return V if isinstance(self.base, Zero) else beyond_slopes_at_zero(self.base, V)

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
        """Return the value of each group."""
        return self.core.group_values(xp, Z, parts) + self.separable.group_values(xp, Z, parts)

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the terms joined by +."""
        return " + ".join(term.spelled(arrays) for term in self.terms)


def combine_nonseparable(terms: Sequence[Regularizer]) -> Regularizer:
    """Return the sum of terms of which at least one is joint.

    Raises
    ------
    ValueError
        Naming the two terms that have no rule together.
    """
    separable = [term for term in terms if isinstance(term, Separable)]
    joint = merged([term for term in terms if isinstance(term, NonSeparable)], _merge)
    inner = [r for r in joint if not isinstance(r, GroupL0 | GroupCardinality)]
    counts = [r for r in joint if isinstance(r, GroupL0)]
    selections = [r for r in joint if isinstance(r, GroupCardinality)]
    strangers = [*inner[1:], *(term for term in terms if isinstance(term, Cardinality))]
    if strangers:
        raise ValueError(no_rule(joint[0], strangers[0]))
    total = _with_separable(inner[0], separable) if inner else combine_separable(separable)
    rule: Any
    for rule in (*counts, *selections):
        fits = is_zero_at_zero(total) if isinstance(total, Separable) else total.is_sum_over(rule.groups)
        if not fits:
            raise ValueError(no_rule(total, rule))
        total = rule.replace(partner=total)
    return total


def _with_separable(core: NonSeparable, terms: Sequence[Separable]) -> Regularizer:
    """Return R plus separable terms: what completing the square takes, and a partner that R takes."""
    whole = combine_separable(terms)
    ridges = [term for term in whole.terms if isinstance(term, SquaredL2)]
    tilts = [term for term in whole.terms if isinstance(term, Tilt)]
    rest = [term for term in whole.terms if not isinstance(term, SquaredL2 | Tilt)]
    if core.is_nonnegative:
        rest = [term for term in rest if not isinstance(term, NonNegative)]
    base = combine_separable(rest)
    if any(np.ndim(ridge.weight) for ridge in ridges) or not core.takes(base):
        raise ValueError(no_rule(core, whole))
    if isinstance(base, Zero) and not ridges and not tilts:
        return core
    ridge = ridges[0] if ridges else SquaredL2(weight=0.0)
    slope = tilts[0].weight * tilts[0].slope if tilts else 0.0
    return NonSeparableSum(core, base, ridge, Tilt(slope))


def _merge(a: NonSeparable, b: NonSeparable) -> NonSeparable | None:
    if isinstance(a, GroupCardinality) and isinstance(b, GroupCardinality) and same_groups(a.groups, b.groups):
        return a.replace(s=min(a.s, b.s))
    if type(a) is not type(b):
        return None
    if a.is_indicator:
        return a if a == b else None
    return a.replace(weight=a.weight + b.weight) if a.replace(weight=1.0) == b.replace(weight=1.0) else None
