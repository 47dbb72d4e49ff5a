"""Regularizers that are a sum over coordinates: two scalar formulas, read by every backend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Self

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.latex import scalar_prox, scalar_value
from proxsae.kernels.dead_zone import dead_zone
from proxsae.kernels.top_k import Outside
from proxsae.regularizers.base import Regularizer, quiet
from proxsae.regularizers.conjugate import Piece, conjugates, domain_gauge, has_normal_form
from proxsae.regularizers.parameters import all_hold, as_parameter, row_sums
from proxsae.regularizers.traits import Scope, of_parts
from proxsae.regularizers.wrapper import Rescaling


class Separable(Regularizer):
    r"""R(z) = sum_i w_i r(z_i).

    A subclass writes two formulas over a namespace `xp`, at weight one: :meth:`value_of` is r(z) and :meth:`prox_of` is
    :math:`\arg\min_z \frac12 (z - u)^2 + t r(z)`. Arrays, compiled loops, the prover and the LaTeX printer call these
    same two functions, each with its own namespace; :class:`~proxsae.formulas.arrays.ArrayNamespace` lists the
    functions of a namespace. A formula therefore must not branch in Python on its arguments or parameters. Parameters
    are annotated fields of the class.

    Parameters
    ----------
    weight : float or array of shape (n_components,), default 1
        The weight that ``weight * R`` sets.
    """

    is_separable = True

    @property
    def has_formula(self) -> bool:
        return True

    @property
    def scope(self) -> Scope:
        return "coordinate"

    def __post_init__(self) -> None:
        for name in self.own_parameters():
            object.__setattr__(self, name, as_parameter(getattr(self, name), name))
        for holds, sentence in self.conditions():
            if not all_hold(holds):
                raise ValueError(f"{type(self).__name__}: {sentence}, got {self}")

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

        The gain is computed as z (u - z/2) - t w r(z), without cancellation. It is convex in u with minimum 0 (a
        supremum of affine functions), hence monotone in abs(u) where r is even.
        """
        z = self.weighted_prox(xp, u, t)
        return z * (u - 0.5 * z) - t * self.weighted_value(xp, z)

    def best_of(self, xp: Any, u: Any, t: Any, candidates: list[Any]) -> Any:
        """Return the candidate of largest gain over zero at weight one, and zero where no candidate gains."""
        best: Any = 0.0
        most: Any = 0.0
        # Gains are divided by abs(u), so that they neither overflow nor underflow.
        size = xp.where(xp.abs(u) > 0, xp.abs(u), 1.0)
        for z in candidates:
            gain = z / size * (u - 0.5 * z) - t * (self.value_of(xp, z) / size)
            best, most = xp.where(gain > most, z, best), xp.maximum(gain, most)
        return best

    def conditions(self) -> list[tuple[Any, str]]:
        """Return the conditions on parameters: (expression, the same in words). The prover assumes them."""
        return [] if self.is_indicator else [(self.weight >= 0, "the weight must not be negative")]

    def is_zero_at_zero(self) -> bool:
        """Whether r(0) = 0: setting a coordinate to zero is then allowed and costs nothing."""
        origin = np.zeros(self.width or 1)
        return bool((self.penalties(origin) == 0).all())

    def own_parameters(self) -> list[str]:
        numbers = [f.name for f in fields(self) if f.init and not isinstance(getattr(self, f.name), Regularizer)]
        return [name for name in numbers if not (name == "weight" and self.is_indicator)]

    def at(self, indices: Array) -> Self:
        """Return the regularizer of the coordinates `indices` alone: per-coordinate parameters are gathered."""
        return self.map_parameters(lambda _, value: value if np.ndim(value) == 0 else value[indices])

    @property
    def is_uniform(self) -> bool:
        """Whether all coordinates share one scalar r."""
        return all(np.ndim(value) == 0 for _, value in self.parameters())

    def in_units(self, scale: float) -> Regularizer:
        return RescaledSeparable(self, scale)

    # --- the array reader -------------------------------------------------------------------------------------------

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return row_sums(self.as_arrays(xp).weighted_value(xp, xp.asarray(Z)))

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        return self.as_arrays(xp).weighted_prox(xp, U, step)

    @quiet
    def penalties(self, Z: Array) -> Array:
        """Return w_i r(z_i) of every entry, an array like Z, unchecked."""
        xp = ArrayNamespace(Z)
        return self.as_arrays(xp).weighted_value(xp, Z)

    @quiet
    def gains(self, U: Array, step: Any = 1.0) -> Array:
        """Return the gain of every entry (see :meth:`gain_of`), an array like U, unchecked."""
        xp = ArrayNamespace(U)
        return self.as_arrays(xp).gain_of(xp, xp.asarray(U), xp.asarray(step))

    def is_sum_over(self, groups: Any) -> bool:
        return True

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Any) -> Array:
        return parts.sums(self.as_arrays(xp).weighted_value(xp, Z) + 0.0 * Z)

    def support_rule(self, n_components: int, dtype: str, step: float = 1.0) -> Callable[[Array], tuple[Array, Array]]:
        """Return where the prox may be non-zero, see :meth:`Regularizer.support_rule`.

        A prox of one variable is monotone and so zero on one interval of u: the entries of a matrix are compared with
        the ends of that interval, which are searched once, and the prox is not computed.
        """
        if (zone := self.dead_zone(n_components, dtype, step)) is None:
            return super().support_rule(n_components, dtype, step)
        return Outside(*zone)

    def dead_zone(self, n_components: int, dtype: str, step: float = 1.0) -> tuple[Array, Array] | None:
        """Return the least and the largest number with prox 0 of each coordinate, in a dtype; None if 0 is not one."""
        if not self.has_formula:  # the prox of Numeric takes inputs up to its limit only
            return None
        return dead_zone(lambda U: self.prox_unchecked(U, step), n_components, dtype, is_uniform=self.is_uniform)

    # --- LaTeX ------------------------------------------------------------------------------------------------------

    def printed_value(self) -> str:
        return rf"\sum_i {scalar_value(self)}"

    def printed_prox(self) -> str:
        return rf"\mathrm{{prox}}_{{tR}}(u)_i = {self.printed_entry('u_i')}"

    def printed_entry(self, u: str) -> str:
        """Return the prox of one entry, named u, as LaTeX."""
        return scalar_prox(self, u)

    # --- the conjugate ----------------------------------------------------------------------------------------------

    def conjugate_of(self, xp: Any, v: Any) -> Any:
        r"""Return :math:`r^*(v) = \sup_z v z - r(z)` of a convex r at weight one, infinite outside of its domain.

        It must not be computed from the prox, since checks of the prox use it. With it, :func:`proxsae.solve` has a
        duality gap.
        """
        raise NotImplementedError

    def piece(self) -> Piece | None:
        """Return the piece that this term adds to a normal form, see :mod:`proxsae.regularizers.conjugate`."""
        return None

    def leaves(self, shift: Any) -> Iterator[tuple[Separable, Any]]:
        """Yield the terms r with their shifts d, which stand for r(z - d)."""
        yield self, shift

    @property
    def is_conjugate_written(self) -> bool:
        """:meth:`weighted_conjugate` knows the conjugate."""
        return self.defines("conjugate_of")

    @property
    def has_conjugate(self) -> bool:
        return has_normal_form(self) or self.is_conjugate_written

    @property
    def has_conjugate_with_ridge(self) -> bool:
        return has_normal_form(self)

    def weighted_conjugate(self, xp: Any, v: Any) -> Any:
        """Return the conjugate of w r where no normal form gives it: w r*(v / w), and 0 at v = 0 alone for w = 0."""
        if self.is_indicator:
            return self.conjugate_of(xp, v)
        positive = self.weight > 0
        weight = xp.where(positive, self.weight, 1.0)
        return xp.where(positive, weight * self.conjugate_of(xp, v / weight), xp.where(xp.abs(v) > 0, xp.inf, 0.0))

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        return row_sums(conjugates(self, V, ridge))

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return domain_gauge(self, V)


class RescaledSeparable(Rescaling, Separable, named=False):
    r"""The function :math:`s^2 r(z / s)` of every coordinate; ``Rescaled(R, s)`` in a text."""

    is_conjugate_written = of_parts("is_conjugate_written")

    def weighted_conjugate(self, xp: Any, v: Any) -> Any:
        return self.scale * self.scale * self.inner.weighted_conjugate(xp, v / self.scale)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*self.inner.conditions(), (self.scale > 0, "the scale must be positive")]
