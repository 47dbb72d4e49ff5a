"""Regularizers that are a sum over coordinates: two scalar formulas, read by every backend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, dtype_name
from proxsae.kernels.top_k import outside_support
from proxsae.regularizers.base import Regularizer, Scope, as_parameter, row_sums, spelled_number


@dataclass(frozen=True, repr=False, eq=False)
class Separable(Regularizer):
    r"""R(z) = sum_i w_i r(z_i).

    A subclass writes two formulas over a namespace `xp` (``abs, sign, sqrt, maximum, minimum, where, inf``), at weight
    one: :meth:`value_of` is r(z) and :meth:`prox_of` is :math:`\arg\min_z \frac12 (z - u)^2 + t r(z)`. Arrays, compiled
    loops, the prover and the LaTeX printer call these same two functions, each with a namespace of its own; so a
    formula never branches in Python on its arguments or parameters.

    Parameters
    ----------
    weight : float or array of shape (n_components,), default 1
        What ``weight * R`` sets.
    """

    weight: Any = field(default=1.0, kw_only=True)

    is_separable = True
    is_scale_free = False
    is_indicator = False

    # Whether the formulas use +, -, *, /, abs, sign, sqrt, maximum, minimum and where alone. Then the prover reads them
    # as they are and every backend rounds them alike; transcendental functions may differ in the last place.
    @property
    def is_algebraic(self) -> bool:
        """Whether the formulas are algebraic and rounded alike by every backend."""
        return True

    @property
    def has_formula(self) -> bool:
        """Whether the formulas can be compiled: not where the prox is a table."""
        return True

    @property
    def is_least_at_zero(self) -> bool:
        """Whether r(z) >= r(0) for all z, as every even r that grows with abs(z) does."""
        return self.is_symmetric

    @property
    def is_nonnegative(self) -> bool:
        """Whether r is infinite below 0."""
        return False

    @property
    def scope(self) -> Scope:
        """One coordinate at a time."""
        return "coordinate"

    def __post_init__(self) -> None:
        for name, value in self.parameters():
            object.__setattr__(self, name, as_parameter(value, name))
        for holds, sentence in self.conditions():
            if not bool(np.all(np.asarray(holds))):
                raise ValueError(f"{type(self).__name__}: {sentence}, got {self}")

    @property
    @abstractmethod
    def is_symmetric(self) -> bool:
        """Whether r is even and non-decreasing in abs(z)."""

    @abstractmethod
    def value_of(self, xp: Any, z: Any) -> Any:
        """Return r(z) at weight one."""

    @abstractmethod
    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the scalar prox of t r at weight one."""

    def weighted_value(self, xp: Any, z: Any) -> Any:
        """Return w r(z)."""
        return self.value_of(xp, z) if self.is_indicator else self.weight * self.value_of(xp, z)

    def weighted_prox(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the scalar prox of t w r."""
        return self.prox_of(xp, u, t if self.is_indicator else t * self.weight)

    def gain_of(self, xp: Any, u: Any, t: Any) -> Any:
        r"""Return the gain of a free z over z = 0, :math:`\frac12 u^2 - \min_z[\frac12(z-u)^2 + t w r(z)]`.

        Written as z (u - z/2) - t w r(z), which does not cancel. It is convex in u with minimum 0 (a supremum of affine
        functions), hence monotone in abs(u) where r is even.
        """
        return self.gain_at(xp, u, t, self.weighted_prox(xp, u, t))

    def gain_at(self, xp: Any, u: Any, t: Any, z: Any) -> Any:
        """Return what z gains over zero; at the prox this is :meth:`gain_of`."""
        return z * (u - 0.5 * z) - t * self.weighted_value(xp, z)

    def best_of(self, xp: Any, u: Any, t: Any, candidates: list[Any]) -> Any:
        """Return the candidate that gains most over zero at weight one, and zero where none gains."""
        best: Any = 0.0
        most: Any = 0.0
        for z in candidates:
            gain = z * (u - 0.5 * z) - t * self.value_of(xp, z)
            best, most = xp.where(gain > most, z, best), xp.maximum(gain, most)
        return best

    def conditions(self) -> list[tuple[Any, str]]:
        """Return the admissible parameters: (expression, the same in words). The prover assumes what this states."""
        return [] if self.is_indicator else [(self.weight >= 0, "the weight must not be negative")]

    # --- the algebra ---------------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[Separable, ...]:
        """The summands, as typed."""
        return (self,)

    @abstractmethod
    def rescaled(self, scale: float) -> Separable:
        """Return z -> s^2 R(z / s)."""

    def scaled(self, weight: Any) -> Separable:
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

    # --- parameters: the readers put their own kind of number in place of each -------------------------------------

    def parameters(self) -> list[tuple[str, Any]]:
        names = [f.name for f in fields(self) if not (f.name == "weight" and self.is_indicator)]
        return [(name, getattr(self, name)) for name in names]

    def _arguments(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.parameters() if name != "weight"]

    def map_parameters(self, function: Callable[[str, Any], Any]) -> Self:
        """Return a copy with ``function(name, value)`` in place of each parameter, unvalidated."""
        copy = object.__new__(type(self))
        for f in fields(self):
            object.__setattr__(copy, f.name, getattr(self, f.name))
        for name, value in self.parameters():
            object.__setattr__(copy, name, function(name, value))
        return copy

    def at(self, indices: Array) -> Self:
        """Return the regularizer of the coordinates `indices` alone: per-coordinate parameters are gathered."""
        return self.map_parameters(lambda _, value: value if np.ndim(value) == 0 else value[indices])

    @property
    def is_uniform(self) -> bool:
        """Whether all coordinates share one scalar r."""
        return all(np.ndim(value) == 0 for _, value in self.parameters())

    def check_width(self, n_components: int) -> None:
        for name, value in self.parameters():
            if np.ndim(value) and value.shape[0] != n_components:
                raise ValueError(
                    f"{type(self).__name__}: {name} has {value.shape[0]} entries and the codes have {n_components}"
                )

    # --- the array reader -------------------------------------------------------------------------------------------

    def on(self, xp: ArrayNamespace) -> Self:
        """Return a copy whose parameters are arrays of the namespace."""
        return self.map_parameters(lambda _, value: xp.asarray(value))

    def support(self, U: Array, step: float = 1.0) -> tuple[Array, Array]:
        """Return the pattern of the non-zeros of the prox, see :meth:`Regularizer.support`.

        A prox of one variable is monotone, so that it is zero on one interval of u: the matrix is compared with its
        ends instead of being mapped.
        """
        zone = self.dead_zone(U.shape[-1], dtype_name(U), step)
        return super().support(U, step) if zone is None else outside_support(U, *zone)

    def dead_zone(self, n_components: int, dtype: str, step: float = 1.0) -> tuple[Array, Array] | None:
        """Return for each coordinate the least and the largest number of a dtype whose prox is 0; None if 0 has not.

        Found by a search over the numbers of the dtype with the prox itself, hence exact; an end is infinite where the
        prox of every number of that sign is 0.
        """
        if not self.has_formula or dtype not in ("float32", "float64"):  # a table ends before the numbers do
            return None
        if np.any(self.prox_unchecked(np.zeros(1, dtype), step)):
            return None
        width, fan = (
            (1, 64) if self.is_uniform else (n_components, 2)
        )  # few calls where a call costs more than its work
        integer = np.dtype(dtype.replace("float", "int"))
        # Beyond, squares in a formula may overflow; codes are far below.
        largest = np.array(np.sqrt(np.finfo(dtype).max) / 16, dtype).view(integer)
        side = np.array([-1.0, 1.0], dtype)[:, None, None]
        nth = np.arange(1, fan + 1, dtype=integer)[:, None]
        # Positive floats are ordered as the integers of the same bits.
        low, high = np.zeros((2, width), integer), np.full((2, width), largest)
        while (low < high).any():
            gap = (high - low)[:, None, :]
            points = low[:, None, :] + gap // fan * nth + np.minimum(nth, gap % fan)  # the last one is high
            n_zero = (self.prox_unchecked(side * points.view(dtype), step) == 0).sum(1, keepdims=True)
            last_zero = np.take_along_axis(points, np.maximum(n_zero - 1, 0), 1)
            first_other = np.take_along_axis(points, np.minimum(n_zero, fan - 1), 1)
            low = np.where(n_zero > 0, last_zero, low[:, None, :])[:, 0]
            high = np.where(n_zero < fan, first_other - 1, high[:, None, :])[:, 0]
        ends = side[:, 0] * np.where(low == largest, np.inf, low.view(dtype))
        below, above = np.broadcast_to(ends, (2, n_components)).astype(dtype)
        return below, above

    def penalties(self, Z: Array) -> Array:
        """Return w_i r(z_i) of every entry, an array like Z, unchecked."""
        xp = ArrayNamespace(Z)
        return self.on(xp).weighted_value(xp, Z)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return row_sums(self.on(xp).weighted_value(xp, xp.asarray(Z)))

    @property
    def has_conjugate(self) -> bool:
        """Whether R is a sum of terms with a closed form, see :mod:`proxsae.regularizers.conjugate`."""
        from proxsae.regularizers.conjugate import has_normal_form

        return has_normal_form(self)

    def conjugate_on(self, xp: ArrayNamespace, V: Array) -> Array:  # noqa: ARG002
        from proxsae.regularizers.conjugate import conjugates

        return row_sums(conjugates(self, V))

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        from proxsae.regularizers.conjugate import dual_scaling

        scaling = dual_scaling(self, V)
        outside = xp.where(scaling > 0, 1.0 / xp.where(scaling > 0, scaling, 1.0), xp.inf)
        return xp.where(scaling < 1, outside, 0.0)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        return self.on(xp).weighted_prox(xp, U, step)

    def gains(self, U: Array, step: Any = 1.0) -> Array:
        """Return the gain of every entry (see :meth:`gain_of`), an array like U, unchecked."""
        xp = ArrayNamespace(U)
        return self.on(xp).gain_of(xp, xp.asarray(U), xp.asarray(step))

    # --- spelling ---------------------------------------------------------------------------------------------------

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the text that builds this regularizer; arrays are collected in `arrays` under the names used."""
        arguments = [spelled_number(value, arrays) for _, value in self._arguments()]
        unit = f"{type(self).__name__}({', '.join(arguments)})"
        is_plain = self.is_indicator or (np.ndim(self.weight) == 0 and float(self.weight) == 1.0)
        return unit if is_plain else f"{spelled_number(self.weight, arrays)}*{unit}"


def with_prefix(part: str, function: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Call the function of a parameter `name` of the part of a regularizer called `part`."""
    return function(f"{part}.{name}", value)
