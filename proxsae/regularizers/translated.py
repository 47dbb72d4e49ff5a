"""R(z - c): codes that are shrunk to c instead of zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy
from proxsae.regularizers.base import Regularizer, combine
from proxsae.regularizers.basic import Box
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.parameters import as_parameter
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.traits import of_parts
from proxsae.regularizers.wrapper import Wrapper


class Translation(Wrapper, named=False):
    r"""z -> R(z - c), whose prox is :math:`c + \mathrm{prox}_{tR}(u - c)`; ties of a scalar r go to z = 0."""

    center: Any

    builder = "Translated"

    def own_parameters(self) -> list[str]:
        return ["center"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", as_parameter(self.center, "center"))

    def value_of(self, xp: Any, z: Any) -> Any:
        return self.inner_value(xp, z - self.center)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        p = self.inner_prox(xp, u - self.center, t)
        z = self.center + p
        if self.is_convex or not self.is_separable:
            return z
        # Among equals r chose the one nearest to c; here it is the one at zero, if that is one of them.
        # Their values are subtracted first: equal ones would hide the square of a small u. That of z is r(p), since
        # z - c may round beyond an end of the domain.
        saved = self.value_of(xp, 0.0 * u) - self.inner_value(xp, p)
        return xp.where(z * (0.5 * z - u) < t * saved, z, 0.0)

    def in_units(self, scale: float) -> Regularizer:
        return self.replace(inner=self.inner.rescaled(scale), center=self.center * scale)


class TranslatedSeparable(Translation, Separable, named=False):
    """Every coordinate shrunk to its own c_i."""

    def leaves(self, shift: Any) -> Iterator[tuple[Separable, Any]]:
        yield from self.inner.leaves(shift + self.center)

    @property
    def is_conjugate_written(self) -> bool:
        return bool(self.inner.is_conjugate_written)

    def weighted_conjugate(self, xp: Any, v: Any) -> Any:
        return self.inner.weighted_conjugate(xp, v) + v * self.center

    def conditions(self) -> list[tuple[Any, str]]:
        conditions: list[tuple[Any, str]] = self.inner.conditions()
        return conditions


class TranslatedNonSeparable(Translation, NonSeparable, named=False):
    """A whole code shrunk to c."""

    has_conjugate = of_parts("has_conjugate")
    has_conjugate_with_ridge = of_parts("has_conjugate_with_ridge")

    @property
    def value_latex(self) -> str:
        return rf"\left.{self.inner.printed_value()}\right|_{{z - c}}"

    @property
    def prox_latex(self) -> str:
        moved = r"\mathrm{prox}_{tR}(u) = c + \mathrm{prox}_{tQ}(u - c)"
        return rf"{moved}, \quad Q(z) = {self.inner.printed_value()}"

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        # The square in z is one in z - c, plus <a c, z - c> and a/2 ||c||^2.
        center = xp.asarray(self.center) + 0.0 * V
        linear = ((V - 0.5 * ridge * center) * center).sum(-1)
        return linear + self.inner.conjugate_on(xp, V - ridge * center, ridge)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.inner.gauge_on(xp, V)


def _moved(bounds: Box, center: Any) -> Box | None:
    """Return the indicator of the same interval about c; None where its ends overflow or lengths differ."""
    ends = (bounds.lower, bounds.upper, center)
    lower, upper, c = (value if isinstance(value, float) else to_numpy(value) for value in ends)
    if len({np.shape(value) for value in (lower, upper, c)} - {()}) > 1:
        return None
    with np.errstate(over="ignore"):
        low, high = lower + c, upper + c
    return Box(low, high) if np.isfinite(low).all() and np.isfinite(high).all() else None


def Translated(inner: Regularizer, center: Any) -> Regularizer:  # noqa: N802
    r"""Return z -> R(z - c), whose prox is :math:`c + \mathrm{prox}_{tR}(u - c)`.

    Parameters
    ----------
    inner : Regularizer
        R, separable or a single term of whole codes.
    center : float or array of shape (n_components,)
        c.

    Raises
    ------
    TypeError
        If R is a Cardinality, or a sum with a term of whole codes: translate the term and add the rest.
    """
    if isinstance(inner, Separable):
        center = as_parameter(center, "center")
        # Bounds are moved themselves: (c + h) - c may round beyond h, and R would be infinite at its own prox.
        bounds = [term for term in inner.terms if type(term) is Box] if inner.is_convex else []
        moved = [box for term in bounds if (box := _moved(term, center)) is not None]
        if not bounds or len(moved) < len(bounds):
            return TranslatedSeparable(inner, center)
        rest = [term for term in inner.terms if type(term) is not Box]
        return combine([*([TranslatedSeparable(combine(rest), center)] if rest else []), *moved])
    if isinstance(inner, NonSeparable) and not isinstance(inner, Cardinality):
        return TranslatedNonSeparable(inner, center)
    raise TypeError(f"Translated takes a separable regularizer or a single term of whole codes, got {inner}")
