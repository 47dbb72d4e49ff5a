"""The calculus of sums: which two regularizers have an exact prox together, and which.

Every rule is one small class that states its condition. `combine` merges what merges, then applies the rules in the one
order in which their conditions hold: core, ridge, box, count, tilt, cardinality.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, TypeVar

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy
from proxsae.regularizers.asymmetric import Tilt
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L0, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.translated import TranslatedSeparable

T = TypeVar("T", bound=Regularizer)


class SeparableSum(Separable, named=False):
    """The sum of a separable regularizer and one more term; the subclass is the rule for its prox."""

    inner: Separable
    outer: Separable
    weight: Any = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        if not self.holds():
            raise ValueError(no_rule(self.inner, self.outer))

    @abstractmethod
    def holds(self) -> bool:
        """Whether the condition of the rule is met."""

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return the sum of the two values."""
        return self.inner.weighted_value(xp, z) + self.outer.weighted_value(xp, z)

    @property
    def is_convex(self) -> bool:
        """Whether both terms are convex."""
        return self.inner.is_convex and self.outer.is_convex

    @property
    def is_symmetric(self) -> bool:
        """Whether both terms are even and non-decreasing in abs(z)."""
        return self.inner.is_symmetric and self.outer.is_symmetric

    @property
    def is_least_at_zero(self) -> bool:
        """Whether both terms are least at zero."""
        return self.inner.is_least_at_zero and self.outer.is_least_at_zero

    @property
    def is_algebraic(self) -> bool:
        """Whether the formulas of both terms are algebraic."""
        return self.inner.is_algebraic and self.outer.is_algebraic

    @property
    def has_formula(self) -> bool:
        """Whether the formulas of both terms can be compiled."""
        return self.inner.has_formula and self.outer.has_formula

    @property
    def is_nonnegative(self) -> bool:
        """Whether a term requires z >= 0."""
        return self.inner.is_nonnegative or self.outer.is_nonnegative

    @property
    def terms(self) -> tuple[Separable, ...]:
        """The summands, as typed."""
        return (*self.inner.terms, *self.outer.terms)

    def conditions(self) -> list[tuple[Any, str]]:
        """Return the conditions of both terms."""
        return self.inner.conditions() + self.outer.conditions()

    def scaled(self, weight: Any) -> Separable:
        """Return the sum of the scaled terms."""
        return combine_separable([term.scaled(weight) for term in self.terms])

    def rescaled(self, scale: float) -> Separable:
        """Return the sum of the rescaled terms."""
        return combine_separable([term.rescaled(scale) for term in self.terms])

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the terms joined by +."""
        return " + ".join(term.spelled(arrays) for term in self.terms)


class WithRidge(SeparableSum, named=False):
    r"""r + (a/2) z^2: the prox is :math:`\mathrm{prox}_{t/(1+ta)\,r}(u / (1 + ta))`, for every r."""

    outer: SquaredL2

    def holds(self) -> bool:
        """Complete the square: no condition."""
        return True

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the prox of r at the shrunk point and the shrunk step."""
        shrink = 1.0 + t * self.outer.weight
        return self.inner.weighted_prox(xp, u / shrink, t / shrink)


class WithBox(SeparableSum, named=False):
    r"""r + i{l <= z <= h}, or r + i{z >= 0}.

    For convex r the prox of r is projected (a convex function of one variable on an interval is least at the projection
    of its minimiser). For an r that is least at zero, as every r that is even and grows with abs(z) is,
    :math:`r + i\{z \ge 0\}` takes the prox of max(u, 0) instead: a negative u is best at 0, and the prox of a positive
    one is never negative.
    """

    outer: Box | NonNegative

    def holds(self) -> bool:
        """Require a convex r, or one that is least at zero and z >= 0."""
        return self.inner.is_convex or (self.inner.is_least_at_zero and isinstance(self.outer, NonNegative))

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Project after the prox where r is convex, before it otherwise."""
        if self.inner.is_convex:
            return self.outer.prox_of(xp, self.inner.weighted_prox(xp, u, t), t)
        return self.inner.weighted_prox(xp, self.outer.prox_of(xp, u, t), t)


class WithCount(SeparableSum, named=False):
    r"""r + w 1[z != 0] by the gain rule: the prox of r where freeing z gains more than t w, and 0 elsewhere."""

    outer: L0

    def holds(self) -> bool:
        """Require r(0) = 0."""
        return is_zero_at_zero(self.inner)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the prox of r where it is worth its count."""
        z = self.inner.weighted_prox(xp, u, t)
        # Both over abs(z): a square would overflow, or lose a tiny z that costs nothing.
        size = xp.where(xp.abs(z) > 0, xp.abs(z), 1.0)
        gain = xp.sign(z) * (u - 0.5 * z) - t * (self.inner.weighted_value(xp, z) / size)
        return xp.where(gain > t * (self.outer.weight / size), z, 0.0)


class WithTilt(SeparableSum, named=False):
    r"""r + c z: the prox is :math:`\mathrm{prox}_{tr}(u - tc)`, for every r."""

    outer: Tilt

    def holds(self) -> bool:
        """Complete the square: no condition."""
        return True

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the prox of r at the shifted point."""
        return self.inner.weighted_prox(xp, self.outer.weighted_prox(xp, u, t), t)


def combine(terms: Sequence[Regularizer]) -> Regularizer:
    """Return the sum of the terms, or raise where no rule gives its prox exactly.

    Raises
    ------
    ValueError
        Naming the two terms that have no rule together.
    """
    if not all(isinstance(term, Separable | Cardinality) for term in terms):
        from proxsae.regularizers.nonseparable_sums import combine_nonseparable

        return combine_nonseparable(terms)
    selections = [term for term in terms if isinstance(term, Cardinality)]
    separable = combine_separable([term for term in terms if isinstance(term, Separable)])
    if not selections:
        return separable
    if len({selection.scope for selection in selections}) > 1:
        raise ValueError(no_rule(selections[0], selections[1]))
    if not is_zero_at_zero(separable):
        raise ValueError(no_rule(separable, selections[0]))
    return Cardinality(min(s.k for s in selections), selections[0].scope, separable)


def combine_separable(terms: Sequence[Separable]) -> Separable:
    """Return the sum of separable terms."""
    kinds = merged(terms, _merge)
    ridges = [term for term in kinds if isinstance(term, SquaredL2)]
    boxes = [term for term in kinds if isinstance(term, Box | NonNegative)]
    counts = [term for term in kinds if isinstance(term, L0)]
    tilts = [term for term in kinds if isinstance(term, Tilt)]
    cores: list[Separable] = [
        term for term in kinds if not isinstance(term, SquaredL2 | Box | NonNegative | L0 | Tilt | Zero)
    ]
    if len(cores) > 1:
        raise ValueError(no_rule(cores[0], cores[1]))
    if counts and not cores and not any(isinstance(box, Box) for box in boxes):
        cores, counts = [*counts], []  # alone it is even and has a formula of its own

    if cores:
        total: Separable = cores[0]
        for ridge in ridges:
            total = WithRidge(total, ridge)
    else:
        total = ridges[0] if ridges else Zero()
    for box in boxes:
        total = box if isinstance(total, Zero) else WithBox(total, box)
    for count in counts:
        total = WithCount(total, count)
    for tilt in tilts:
        total = tilt if isinstance(total, Zero) else WithTilt(total, tilt)
    return total


def merged(terms: Sequence[T], merge: Callable[[T, T], T | None]) -> list[T]:
    """Return the terms with every pair that `merge` puts together put together."""
    result: list[T] = []
    for term in terms:
        for i, other in enumerate(result):
            together = merge(other, term)
            if together is not None:
                result[i] = together
                break
        else:
            result.append(term)
    return result


def _merge(a: Separable, b: Separable) -> Separable | None:
    if isinstance(a, Box | NonNegative) and isinstance(b, Box | NonNegative):
        return _intersection(a, b)
    if isinstance(a, Tilt) and isinstance(b, Tilt):
        return Tilt(a.weight * a.slope + b.weight * b.slope)
    if isinstance(a, TranslatedSeparable) and isinstance(b, TranslatedSeparable):
        same = np.array_equal(to_numpy(a.center), to_numpy(b.center))
        return TranslatedSeparable(combine_separable([*a.inner.terms, *b.inner.terms]), a.center) if same else None
    if type(a) is not type(b):
        return None
    if a.is_indicator:
        return a if a == b else None
    return a.replace(weight=a.weight + b.weight) if a.replace(weight=1.0) == b.replace(weight=1.0) else None


def _intersection(a: Box | NonNegative, b: Box | NonNegative) -> Box | NonNegative:
    if isinstance(a, NonNegative) and isinstance(b, NonNegative):
        return a
    lower_a, lower_b = (to_numpy(box.lower) if isinstance(box, Box) else 0.0 for box in (a, b))
    upper = [to_numpy(box.upper) for box in (a, b) if isinstance(box, Box)]
    return Box(np.maximum(lower_a, lower_b), np.minimum(upper[0], upper[-1]))


def is_zero_at_zero(r: Separable) -> bool:
    """Whether r(0) = 0: pinning a coordinate to zero is then allowed and free."""
    sizes = [np.shape(value)[0] for _, value in r.parameters() if np.ndim(value)]
    origin = np.zeros(max(sizes, default=1))
    xp = ArrayNamespace(origin)
    return bool(np.all(r.on(xp).weighted_value(xp, origin) == 0))


def no_rule(a: Regularizer, b: Regularizer) -> str:
    """Return the sentence that refuses a sum."""
    numerically = "; Numeric(...) computes a sum of scalar functions" if a.is_separable and b.is_separable else ""
    return f"no calculus rule gives the exact prox of ({a}) + ({b}){numerically}"
