"""Regularizers made of other regularizers, whose traits they inherit."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer, combine
from proxsae.regularizers.parameters import as_positive
from proxsae.regularizers.traits import Scope, of_parts


class Sum(Regularizer, named=False):
    """A sum of terms."""

    weight: Any = field(default=1.0, init=False)

    is_convex = of_parts("is_convex")
    is_nonnegative = of_parts("is_nonnegative", any)

    def scaled(self, weight: Any) -> Any:
        return combine([term.scaled(weight) for term in self.terms])

    def in_units(self, scale: float) -> Any:
        return combine([term.rescaled(scale) for term in self.terms])

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        return " + ".join(term.spelled(arrays) for term in self.terms)


class Wrapper(Regularizer, named=False):
    """A function of one regularizer, `inner`, which carries the weight."""

    inner: Any
    weight: Any = field(default=1.0, init=False)

    is_convex = of_parts("is_convex")
    is_indicator = of_parts("is_indicator")
    has_formula = of_parts("has_formula")

    @property
    def scope(self) -> Scope:
        scope: Scope = self.inner.scope
        return scope

    def merged(self, other: Regularizer) -> Regularizer | None:
        if type(self) is not type(other) or self.replace(inner=other.inner) != other:
            return None
        together = self.inner + other.inner if self.is_separable else self.inner.merged(other.inner)
        return None if together is None else self.replace(inner=together)

    def scaled(self, weight: Any) -> Regularizer:
        return self.replace(inner=self.inner.scaled(weight))

    def inner_value(self, xp: Any, z: Any) -> Any:
        """Return the value of `inner`: of each coordinate where it is separable, else of each code."""
        return self.inner.weighted_value(xp, z) if self.is_separable else self.inner.value_on(xp, z)

    def inner_prox(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the prox of t times `inner`."""
        return self.inner.weighted_prox(xp, u, t) if self.is_separable else self.inner.prox_on(xp, u, t)


class Rescaling(Wrapper, named=False):
    r"""The function :math:`s^2 R(z / s)`, whose prox is :math:`s\,\mathrm{prox}_{tR}(u / s)`: codes in other units."""

    scale: Any

    builder = "Rescaled"
    is_nonnegative = of_parts("is_nonnegative")
    is_scale_free = of_parts("is_scale_free")
    is_symmetric = of_parts("is_symmetric")
    is_least_at_zero = of_parts("is_least_at_zero")
    is_radial = of_parts("is_radial")

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", as_positive(self.scale, "scale", "Rescaled"))

    @property
    def tolerance(self) -> float:
        return self.scale * self.inner.tolerance if self.scale > 1 else float(self.inner.tolerance)

    @property
    def limit(self) -> float:
        return float(self.scale * self.inner.limit)

    def own_parameters(self) -> list[str]:
        return ["scale"]

    def value_of(self, xp: Any, z: Any) -> Any:
        return self.scale * self.scale * self.inner_value(xp, z / self.scale)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return self.scale * self.inner_prox(xp, u / self.scale, t)

    def in_units(self, scale: float) -> Regularizer:
        return self.replace(scale=self.scale * scale)
