"""The rules of sums of scalar functions: each is a small class that states its condition and has an exact prox.

A term names the rule by which it joins the terms of lower rank (``joined``). The ranks put the rules in the only order
in which their conditions hold: core, ridge, box, count, tilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxsae.formulas.latex import scalar_prox, step_times_weight
from proxsae.regularizers.base import no_rule
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.traits import of_parts
from proxsae.regularizers.wrapper import Sum


class SeparableSum(Sum, Separable, named=False):
    """The sum of a separable regularizer and one more term; the subclass is the rule for its prox."""

    inner: Separable
    outer: Any

    is_symmetric = of_parts("is_symmetric")
    is_least_at_zero = of_parts("is_least_at_zero")
    has_formula = of_parts("has_formula")

    def __post_init__(self) -> None:
        if not self.holds():
            raise ValueError(no_rule(self.inner, self.outer))

    def holds(self) -> bool:
        """Whether the condition of the rule is met; completing the square has none."""
        return True

    def value_of(self, xp: Any, z: Any) -> Any:
        return self.inner.weighted_value(xp, z) + self.outer.weighted_value(xp, z)

    @property
    def terms(self) -> tuple[Separable, ...]:
        return (*self.inner.terms, *self.outer.terms)

    def leaves(self, shift: Any) -> Iterator[tuple[Separable, Any]]:
        yield from self.inner.leaves(shift)
        yield from self.outer.leaves(shift)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*self.inner.conditions(), *self.outer.conditions()]


class WithRidge(SeparableSum, named=False):
    r"""r + (a/2) z^2: the prox is :math:`\mathrm{prox}_{t/(1+ta)\,r}(u / (1 + ta))`, for every r."""

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        shrink = 1.0 + t * self.outer.weight
        return self.inner.weighted_prox(xp, u / shrink, t / shrink)


class WithBox(SeparableSum, named=False):
    r"""r + i{l <= z <= h}, or r + i{z >= 0}.

    For convex r the prox of r is projected (a convex function of one variable on an interval is least at the projection
    of its minimiser). For an r that is least at zero, as every r that is even and grows with abs(z) is,
    :math:`r + i\{z \ge 0\}` takes the prox of max(u, 0) instead: a negative u is best at 0, and the prox of a positive
    one is never negative.
    """

    def holds(self) -> bool:
        return self.inner.is_convex or (self.inner.is_least_at_zero and self.outer.is_scale_free)

    @property
    def is_conjugate_written(self) -> bool:
        return self.outer.is_scale_free and self.inner.is_symmetric and self.inner.is_conjugate_written

    def weighted_conjugate(self, xp: Any, v: Any) -> Any:
        return self.inner.weighted_conjugate(xp, xp.maximum(v, 0.0))  # at a negative v the best z is 0

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Project after the prox where r is convex, before it otherwise."""
        if self.inner.is_convex:
            return self.outer.prox_of(xp, self.inner.weighted_prox(xp, u, t), t)
        return self.inner.weighted_prox(xp, self.outer.prox_of(xp, u, t), t)


class WithCount(SeparableSum, named=False):
    r"""r + w 1[z != 0] by the gain rule: the prox of r where freeing z gains more than t w, and 0 elsewhere."""

    def holds(self) -> bool:
        return self.inner.is_zero_at_zero()

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        z = self.inner.weighted_prox(xp, u, t)
        # Both over abs(z): a square would overflow, or lose a tiny z that costs nothing.
        size = xp.where(xp.abs(z) > 0, xp.abs(z), 1.0)
        value = self.inner.weighted_value(xp, z)
        gain = xp.sign(z) * (u - 0.5 * z) - t * (value / size)
        chosen = xp.where(gain > t * (self.outer.weight / size), z, 0.0)
        return xp.where(value < xp.inf, chosen, z)  # a value overflows far beyond any price

    def printed_entry(self, u: str) -> str:
        # The gain written out would repeat the prox five times: name it, as the rule does.
        worth = rf"{self.inner.printed_entry(u)} & \text{{where its gain exceeds }} {step_times_weight(self.outer)}"
        return rf"\begin{{cases}} {worth} \\ 0 & \text{{otherwise}} \end{{cases}}"


class WithTilt(SeparableSum, named=False):
    r"""r + c z: the prox is :math:`\mathrm{prox}_{tr}(u - tc)`, for every r."""

    @property
    def is_conjugate_written(self) -> bool:
        return self.inner.is_conjugate_written

    def weighted_conjugate(self, xp: Any, v: Any) -> Any:
        return self.inner.weighted_conjugate(xp, v - self.outer.weight * self.outer.slope)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return self.inner.weighted_prox(xp, self.outer.weighted_prox(xp, u, t), t)

    def printed_entry(self, u: str) -> str:
        return rf"\left. {self.inner.printed_entry('v_i')} \right|_{{v_i = {scalar_prox(self.outer, u)}}}"
