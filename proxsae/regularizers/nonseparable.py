"""Regularizers that look at a whole code, or at groups of it: what they share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, dtype_name
from proxsae.regularizers.base import Regularizer, Scope, as_parameter, spelled_number
from proxsae.regularizers.basic import NonNegative, Zero
from proxsae.regularizers.separable import Separable


@dataclass(frozen=True, repr=False, eq=False)
class Joint(Regularizer):
    r"""w r(z), with r a function of the whole code.

    A subclass writes, at weight one and over arrays whose last axis is the code, :meth:`value_of` and :meth:`prox_of`;
    and, where r is convex and they have closed forms, :meth:`dual_norm_of` if r is a norm, else :meth:`conjugate_of`.

    Parameters
    ----------
    weight : float, default 1
        What ``weight * R`` sets.
    """

    weight: Any = field(default=1.0, kw_only=True)

    is_separable = False
    is_indicator = False
    # Whether r ignores signs and grows with every abs(z_i).
    is_absolute = False
    # Whether r is a non-decreasing convex function of the Euclidean norm, or a sum of such over groups.
    is_radial = False

    @property
    @abstractmethod
    def value_latex(self) -> str:
        """The value at weight one as LaTeX."""

    @property
    @abstractmethod
    def prox_latex(self) -> str:
        """The prox as LaTeX."""

    @property
    def is_nonnegative(self) -> bool:
        """Whether r is infinite unless every z_i >= 0."""
        return False

    @property
    def is_scale_free(self) -> bool:
        """Whether r is the indicator of a cone."""
        return False

    @property
    def scope(self) -> Scope:
        """A whole code."""
        return "sample"

    def __post_init__(self) -> None:
        weight = as_parameter(self.weight, "weight")
        if np.ndim(weight) or not bool(weight >= 0):
            raise ValueError(f"{type(self).__name__}: the weight must be one number >= 0, got {self.weight}")
        object.__setattr__(self, "weight", weight)

    @abstractmethod
    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return r of each code at weight one, shape (...,)."""

    @abstractmethod
    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the prox of t r at weight one; t is a number or has shape (..., 1)."""

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        r"""Return :math:`\sup_{r(z) \le 1} \langle v, z\rangle` of a norm r: r* is the indicator of its unit ball."""
        raise NotImplementedError

    def conjugate_of(self, xp: ArrayNamespace, V: Array) -> Array:
        r"""Return :math:`r^*(v) = \sup_z \langle v, z\rangle - r(z)` at weight one, never by way of the prox."""
        raise NotImplementedError

    def conjugate_with_ridge(self, xp: ArrayNamespace, V: Array, a: Array) -> Array:
        r"""Return the conjugate of :math:`w r + \frac a2 \|z\|^2`, a > 0."""
        raise NotImplementedError

    def writes(self, method: str) -> bool:
        """Whether the class that writes the value writes this too: a subclass may be another function."""
        writer = next(cls for cls in type(self).__mro__ if "value_of" in vars(cls))
        return method in vars(writer)

    @property
    def has_conjugate(self) -> bool:
        """Whether the class of r writes its conjugate."""
        return self.writes("dual_norm_of") or self.writes("conjugate_of")

    @property
    def has_conjugate_with_ridge(self) -> bool:
        """Whether the class of r writes its conjugate with a ridge added."""
        return self.writes("conjugate_with_ridge")

    def conjugate_on(self, xp: ArrayNamespace, V: Array) -> Array:
        if self.writes("dual_norm_of"):
            return feasible(xp, self.gauge_on(xp, V) <= 1.0 + slack(V), V)
        if self.is_indicator:
            return self.conjugate_of(xp, V)
        if not self.weight:
            return feasible(xp, (V == 0).all(-1), V)
        weight = xp.asarray(self.weight)
        return weight * self.conjugate_of(xp, V / weight)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        norm = self.dual_norm_of(xp, V) if self.writes("dual_norm_of") else 0.0 * V.sum(-1)
        if self.weight:
            return norm / xp.asarray(self.weight)
        return xp.where((V == 0).all(-1), 0.0 * norm, xp.inf)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        value = self.value_of(xp, xp.asarray(Z))
        return value if self.is_indicator else xp.asarray(self.weight) * value

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, U, step)
        if 0 in U.shape:
            return U
        return self.prox_of(xp, U, step if self.is_indicator else step * xp.asarray(self.weight))

    def takes(self, base: Separable) -> bool:
        """Whether :meth:`prox_with` is exact for this separable partner.

        For r that ignores signs and grows with every abs(z_i), z >= 0 takes the prox of max(u, 0): a negative u_i is
        best at 0, and no positive one ends below. For r a convex function of the Euclidean norm, any partner f that is
        convex and positively homogeneous goes first: f has the same subgradients all along a ray (Yu, 2013, On
        decomposing the proximal map).
        """
        if isinstance(base, Zero) or (self.is_absolute and isinstance(base, NonNegative)):
            return True
        return self.is_radial and is_positively_homogeneous(base)

    def prox_with(self, xp: ArrayNamespace, U: Array, step: Array, base: Separable) -> Array:
        """Return the prox of this plus a separable partner that it takes."""
        return self.prox_on(xp, base.prox_on(xp, U, step), step)

    # --- the algebra ---------------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""
        return (self,)

    def scaled(self, weight: Any) -> Joint:
        """Return ``weight * self``; a positive multiple of an indicator is the indicator."""
        weight = as_parameter(weight, "weight")
        if not self.is_indicator:
            return self.replace(weight=self.weight * weight)
        if isinstance(weight, float) and weight > 0:
            return self
        raise ValueError(f"an indicator takes only positive scalar weights, got {weight} * {self}")

    def replace(self, **parameters: Any) -> Self:
        """Return a copy with some parameters changed."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{**mine, **parameters})

    def check_width(self, n_components: int) -> None:
        """Accept every width."""

    def _arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        return [spelled_number(getattr(self, f.name), arrays) for f in fields(self) if f.name != "weight"]

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the text that builds this regularizer; arrays are collected in `arrays` under the names used."""
        unit = f"{type(self).__name__}({', '.join(self._arguments(arrays))})"
        return unit if self.is_indicator or float(self.weight) == 1.0 else f"{float(self.weight)!r}*{unit}"

    def cvxpy_value(self, z: Any) -> tuple[Any, list[Any]]:
        """Return R(z) as a cvxpy expression, and its constraints."""
        expression, constraints = self._cvxpy_of(z)
        return (expression if self.is_indicator else float(self.weight) * expression), constraints

    def _cvxpy_of(self, z: Any) -> tuple[Any, list[Any]]:
        raise NotImplementedError(f"{type(self).__name__} has no disciplined convex expression")


def check_step(R: Regularizer, U: Array, step: Array) -> None:
    """Raise ValueError unless there is one step for each code."""
    if U.ndim == 0:
        raise ValueError(f"{R} looks at a whole code, got a single number")
    if step.ndim and step.shape[-1] != 1:
        raise ValueError(f"{R} takes one step for each code, got step of shape {tuple(step.shape)}")


def slack(Z: Array) -> float:
    """Return the relative excess that counts as rounding in the indicator of a ball: 1e-6 in float32, else 1e-9.

    Exact numbers, those of a proof, have none.
    """
    return {"float32": 1e-6, "object": 0.0}.get(dtype_name(Z), 1e-9)


def feasible(xp: ArrayNamespace, holds: Array, Z: Array) -> Array:
    """Return 0 where a condition holds and infinity elsewhere, in the dtype of Z."""
    return xp.where(holds, 0.0 * Z[..., 0], xp.inf) if Z.shape[-1] else xp.where(holds, 0.0, xp.inf)


def as_positive(value: Any, name: str, owner: str) -> float:
    """Return a parameter that is one positive number, or raise ValueError."""
    if np.ndim(value) or isinstance(value, bool | str) or not 0 < float(value) < np.inf:
        raise ValueError(f"{owner}: {name} must be a finite number > 0, got {value!r}")
    return float(value)


def as_count(value: Any, name: str, owner: str) -> int:
    """Return a parameter that is a positive integer, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{owner}: {name} must be an integer >= 1, got {value!r}")
    return int(value)


def is_positively_homogeneous(r: Separable) -> bool:
    """Whether r(s z) = s r(z) for all s > 0, and r is convex: a sum of L1, NonNegative and Tilt terms."""
    from proxsae.regularizers.asymmetric import Tilt
    from proxsae.regularizers.basic import L1

    return all(isinstance(term, L1 | NonNegative | Tilt | Zero) for term in r.terms)
