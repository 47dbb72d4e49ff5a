"""R(z - c): codes that are drawn to c instead of zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.base import Regularizer, Scope, as_parameter, spelled_number
from proxsae.regularizers.nonseparable import Joint
from proxsae.regularizers.separable import Separable, with_prefix


@dataclass(frozen=True, repr=False, eq=False)
class TranslatedSeparable(Separable):
    r"""z -> r(z - c), whose prox is :math:`c + \mathrm{prox}_{tr}(u - c)`, for every separable r; ties go to z = 0."""

    inner: Separable
    center: Any
    weight: Any = field(default=1.0, init=False)

    is_symmetric = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", as_parameter(self.center, "center"))

    @property
    def is_convex(self) -> bool:
        """Whether r is convex."""
        return self.inner.is_convex

    @property
    def is_indicator(self) -> bool:  # type: ignore[override]
        """Whether r is an indicator."""
        return self.inner.is_indicator

    @property
    def is_algebraic(self) -> bool:
        """Whether the formulas of r are algebraic."""
        return self.inner.is_algebraic

    @property
    def has_formula(self) -> bool:
        """Whether the formulas of r can be compiled."""
        return self.inner.has_formula

    def conditions(self) -> list[tuple[Any, str]]:
        """Return the conditions of r."""
        return self.inner.conditions()

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return r(z - c)."""
        return self.inner.weighted_value(xp, z - self.center)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the prox of r around c."""
        z = self.center + self.inner.weighted_prox(xp, u - self.center, t)
        if self.is_convex:
            return z
        # Among equals r chose the one nearest to c; here it is the one at zero, if that is one of them.
        gain = z * (u - 0.5 * z) - t * self.value_of(xp, z)
        return xp.where(gain > -t * self.value_of(xp, 0.0 * u), z, 0.0)

    def scaled(self, weight: Any) -> Separable:
        """Scale r."""
        return TranslatedSeparable(self.inner.scaled(weight), self.center)

    def rescaled(self, scale: float) -> Separable:
        """Return s^2 r(z/s - c), which is centred at s c."""
        return TranslatedSeparable(self.inner.rescaled(scale), self.center * scale)

    def parameters(self) -> list[tuple[str, Any]]:
        return [*((f"inner.{name}", value) for name, value in self.inner.parameters()), ("center", self.center)]

    def map_parameters(self, function: Callable[[str, Any], Any]) -> Self:
        """Map the parameters of r, and c."""
        copy = object.__new__(type(self))
        object.__setattr__(copy, "inner", self.inner.map_parameters(partial(with_prefix, "inner", function)))
        object.__setattr__(copy, "center", function("center", self.center))
        object.__setattr__(copy, "weight", 1.0)
        return copy

    def cvxpy_value(self, z: Any) -> tuple[Any, list[Any]]:
        """Return r(z - c) as a cvxpy expression, and its constraints."""
        inner: Any = self.inner
        return inner.cvxpy_value(z - self.center)  # type: ignore[no-any-return]

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return ``Translated(r, c)``."""
        return f"Translated({self.inner.spelled(arrays)}, {spelled_number(self.center, arrays)})"


@dataclass(frozen=True, repr=False, eq=False)
class TranslatedJoint(Joint):
    r"""z -> R(z - c), whose prox is :math:`c + \mathrm{prox}_{tR}(u - c)`, for every R of a whole code."""

    inner: Joint
    center: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", as_parameter(self.center, "center"))

    @property
    def is_convex(self) -> bool:
        """Whether R is convex."""
        return self.inner.is_convex

    @property
    def is_indicator(self) -> bool:  # type: ignore[override]
        """Whether R is an indicator."""
        return self.inner.is_indicator

    @property
    def scope(self) -> Scope:
        """The scope of R."""
        return self.inner.scope

    @property
    def value_latex(self) -> str:
        """R at z - c."""
        return rf"\left.{self.inner.latex().removeprefix('R(z) = ')}\right|_{{z - c}}"

    @property
    def prox_latex(self) -> str:
        """The shifted prox."""
        return r"\mathrm{prox}_{tR}(u) = c + \mathrm{prox}_{tQ}(u - c), \quad " + self.inner.latex().replace(
            "R", "Q", 1
        )

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return R(z - c)."""
        return self.inner.value_on(xp, Z - xp.asarray(self.center))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the prox of R around c."""
        center = xp.asarray(self.center)
        return center + self.inner.prox_on(xp, U - center, t)

    @property
    def has_conjugate(self) -> bool:
        """Whether R has."""
        return self.inner.has_conjugate

    @property
    def has_conjugate_with_ridge(self) -> bool:
        """Whether R has."""
        return self.inner.has_conjugate_with_ridge

    def conjugate_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.inner.conjugate_on(xp, V) + (V * xp.asarray(self.center)).sum(-1)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.inner.gauge_on(xp, V)

    def conjugate_with_ridge(self, xp: ArrayNamespace, V: Array, a: Array) -> Array:
        r"""Return :math:`\langle c, v\rangle - \frac a2 \|c\|^2` and that of R at :math:`v - ac`, by the square."""
        center = xp.asarray(self.center) + 0.0 * V
        linear = ((V - 0.5 * a * center) * center).sum(-1)
        return linear + self.inner.conjugate_with_ridge(xp, V - a * center, a)

    def scaled(self, weight: Any) -> TranslatedJoint:
        """Scale R."""
        return TranslatedJoint(self.inner.scaled(weight), self.center)

    def rescaled(self, scale: float) -> TranslatedJoint:
        """Return s^2 R(z/s - c), which is centred at s c."""
        inner: Any = self.inner.rescaled(scale)
        return TranslatedJoint(inner, self.center * scale)

    def check_width(self, n_components: int) -> None:
        self.inner.check_width(n_components)
        if np.ndim(self.center) and len(self.center) != n_components:
            raise ValueError(f"Translated: center has {len(self.center)} entries and the codes have {n_components}")

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return ``Translated(R, c)``."""
        return f"Translated({self.inner.spelled(arrays)}, {spelled_number(self.center, arrays)})"

    def _cvxpy_of(self, z: Any) -> tuple[Any, list[Any]]:
        return self.inner.cvxpy_value(z - self.center)


def Translated(inner: Regularizer, center: Any) -> Regularizer:  # noqa: N802
    r"""Return z -> R(z - c), whose prox is :math:`c + \mathrm{prox}_{tR}(u - c)`.

    Parameters
    ----------
    inner : Regularizer
        R, separable or one term that looks at a whole code.
    center : float or array of shape (n_components,)
        c.

    Raises
    ------
    TypeError
        If R is a selection or a sum with a joint term: translate the term and add the rest.
    """
    if isinstance(inner, Separable):
        return TranslatedSeparable(inner, center)
    if isinstance(inner, Joint):
        return TranslatedJoint(inner, center)
    raise TypeError(f"Translated takes a separable regularizer or a single joint term, got {inner}")
