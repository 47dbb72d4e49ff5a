"""The base class of regularizers that depend on a whole code, or on groups of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.latex import printed
from proxsae.regularizers.asymmetric import Tilt
from proxsae.regularizers.base import Regularizer, combine, no_rule
from proxsae.regularizers.basic import L1, NonNegative, SquaredL2, Zero
from proxsae.regularizers.conjugate import beyond_domain, slack
from proxsae.regularizers.parameters import as_parameter, as_positive
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.traits import Scope, of_parts
from proxsae.regularizers.wrapper import Rescaling, Sum


class NonSeparable(Regularizer):
    r"""w r(z), with r a function of the whole code.

    A subclass writes, at weight one and over arrays whose last axis is the code, :meth:`value_of` and :meth:`prox_of`;
    and, where r is convex and they have closed forms, :meth:`dual_norm_of` if r is a norm, else :meth:`conjugate_of`.
    Its `lengths` are single numbers > 0.

    Parameters
    ----------
    weight : float, default 1
        What ``weight * R`` sets.
    """

    rank = 5

    @property
    def value_latex(self) -> str:
        """The value at weight one as LaTeX."""
        return rf"\mathrm{{{type(self).__name__}}}(z)"

    @property
    def prox_latex(self) -> str:
        """The prox as LaTeX."""
        return r"\mathrm{prox}_{tR}(u) = \operatorname*{arg\,min}_z \tfrac12 \|z - u\|^2 + t R(z)"

    def __post_init__(self) -> None:
        weight = as_parameter(self.weight, "weight")
        if np.ndim(weight) or not bool(weight >= 0):
            raise ValueError(f"{type(self).__name__}: the weight must be one number >= 0, got {self.weight}")
        object.__setattr__(self, "weight", weight)
        for name in self.lengths:
            object.__setattr__(self, name, as_positive(getattr(self, name), name, type(self).__name__))

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

    @property
    def has_conjugate(self) -> bool:
        return self.defines("dual_norm_of") or self.defines("conjugate_of")

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        if self.defines("dual_norm_of"):
            return feasible(xp, self.gauge_on(xp, V) <= 1.0 + slack(V), V)
        if self.is_indicator:
            return self.conjugate_of(xp, V)
        if not self.weight:
            return feasible(xp, (V == 0).all(-1), V)
        weight = xp.asarray(self.weight)
        return weight * self.conjugate_of(xp, V / weight)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        norm = self.dual_norm_of(xp, V) if self.defines("dual_norm_of") else 0.0 * V.sum(-1)
        if self.weight:
            return norm / xp.asarray(self.weight)
        return xp.where((V == 0).all(-1), 0.0 * norm, xp.inf)

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        R = self.as_arrays(xp)
        value = R.value_of(xp, xp.asarray(Z))
        return value if self.is_indicator else R.weight * value

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, step)
        if 0 in U.shape:
            return U
        R = self.as_arrays(xp)
        return R.prox_of(xp, U, step if self.is_indicator else step * R.weight)

    def accepts(self, base: Separable) -> bool:
        """Whether :meth:`prox_with` is exact for this separable partner.

        If r ignores signs and grows with every abs(z_i), the prox with z >= 0 is the prox of r at max(u, 0): the best
        z_i for a negative u_i is 0, and for a positive u_i it is not negative. If r is a function of norms, whose prox
        moves along rays, the prox of any convex and positively homogeneous partner f comes first: f has the same
        subgradients all along a ray (Yu, 2013, On decomposing the proximal map).
        """
        if isinstance(base, Zero) or (self.is_symmetric and isinstance(base, NonNegative)):
            return True
        return self.is_radial and is_positively_homogeneous(base)

    def prox_with(self, xp: ArrayNamespace, U: Array, step: Array, base: Separable) -> Array:
        """Return the prox of this regularizer plus a separable partner that it accepts."""
        return self.prox_on(xp, base.prox_on(xp, U, step), step)

    def joined(self, total: Regularizer) -> Regularizer:
        """Return R plus separable terms: a ridge and a tilt by completing the square, and a partner that R accepts."""
        ridges = [term for term in total.terms if isinstance(term, SquaredL2)]
        tilts = [term for term in total.terms if isinstance(term, Tilt)]
        rest = [term for term in total.terms if not isinstance(term, SquaredL2 | Tilt)]
        if self.is_nonnegative:
            rest = [term for term in rest if not isinstance(term, NonNegative)]
        base: Any = combine(rest) if rest else Zero()
        if not total.is_separable or any(np.ndim(ridge.weight) for ridge in ridges) or not self.accepts(base):
            raise ValueError(no_rule(self, total))
        if not (ridges or tilts or rest):
            return self
        ridge = ridges[0] if ridges else SquaredL2(weight=0.0)
        slope = tilts[0].weight * tilts[0].slope if tilts else 0.0
        return NonSeparableSum(self, base, ridge, Tilt(slope))

    def printed_value(self) -> str:
        is_plain = self.is_indicator or float(self.weight) == 1.0
        return self.value_latex if is_plain else rf"{printed(float(self.weight))} \cdot {self.value_latex}"

    def printed_prox(self) -> str:
        has_weight = " w " in self.prox_latex and not self.is_indicator
        return self.prox_latex + (rf", \quad w = {printed(float(self.weight))}" if has_weight else "")

    def in_units(self, scale: float) -> Regularizer:
        return RescaledNonSeparable(self, scale)


class RescaledNonSeparable(Rescaling, NonSeparable, named=False):
    r"""The function :math:`s^2 R(z / s)` of a whole code; ``Rescaled(R, s)`` in a text."""

    has_conjugate = of_parts("has_conjugate")
    has_conjugate_with_ridge = of_parts("has_conjugate_with_ridge")

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        return self.scale * self.scale * self.inner.conjugate_on(xp, V / self.scale, ridge)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.inner.gauge_on(xp, V / self.scale)


class NonSeparableSum(Sum, named=False):
    r"""R(z) + f(z) + (a/2) ||z||^2 + <c, z>, with f separable and taken by R.

    Completing the square leaves the prox of R + f at :math:`(u - tc)/(1 + ta)` and the step :math:`t/(1 + ta)`.
    """

    core: NonSeparable
    base: Separable
    ridge: SquaredL2
    tilt: Tilt

    @property
    def scope(self) -> Scope:
        return self.core.scope

    def is_sum_over(self, groups: Any) -> bool:
        return self.core.is_sum_over(groups)

    @property
    def separable(self) -> Separable:
        """The separable terms."""
        ridge = [self.ridge] if self.ridge.weight else []
        tilt = [self.tilt] if np.any(self.tilt.slope) else []
        separable = combine([*self.base.terms, *ridge, *tilt])
        assert isinstance(separable, Separable)
        return separable

    @property
    def terms(self) -> tuple[Regularizer, ...]:
        return (*self.core.terms, *(term for term in self.separable.terms if not isinstance(term, Zero)))

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return self.core.value_on(xp, Z) + self.separable.value_on(xp, Z)

    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        check_step(self, step)
        shrink = 1.0 + step * xp.asarray(self.ridge.weight)
        return self.core.prox_with(xp, self.tilt.prox_on(xp, U, step) / shrink, step / shrink, self.base)

    @property
    def has_conjugate(self) -> bool:
        """Whether R, with the ridge if there is one, has a conjugate."""
        core = self.core.has_conjugate_with_ridge if self.ridge.weight else self.core.has_conjugate
        return core and self.base.has_conjugate

    @property
    def has_conjugate_with_ridge(self) -> bool:
        return self.core.has_conjugate_with_ridge and self.base.has_conjugate

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        return self.core.conjugate_on(xp, self._left_to_core(xp, V), xp.asarray(self.ridge.weight) + ridge)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return 0.0 * V.sum(-1) if self.ridge.weight else self.core.gauge_on(xp, self._left_to_core(xp, V))

    def _left_to_core(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return the point at which R* alone gives the conjugate of the sum: v less the tilt, and less the slopes of f.

        R grows with every abs(z_i), so that z_i = 0 is best where v_i lies between the slopes of f at 0.
        """
        V = V - self.tilt.as_arrays(xp).slope
        return V if isinstance(self.base, Zero) else beyond_domain(self.base, V)

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Any) -> Array:
        return self.core.group_values(xp, Z, parts) + self.separable.group_values(xp, Z, parts)

    def printed_value(self) -> str:
        return " + ".join(term.printed_value() for term in self.terms)


def check_step(R: Regularizer, step: Array) -> None:
    """Raise ValueError unless there is one step for each code."""
    if step.ndim and step.shape[-1] != 1:
        raise ValueError(f"{R} takes one step for each code, got step of shape {tuple(step.shape)}")


def feasible(xp: ArrayNamespace, holds: Array, Z: Array) -> Array:
    """Return 0 where a condition holds and infinity elsewhere, in the dtype of Z."""
    return xp.where(holds, 0.0 * Z[..., 0], xp.inf) if Z.shape[-1] else xp.where(holds, 0.0, xp.inf)


def is_positively_homogeneous(r: Separable) -> bool:
    """Whether r(s z) = s r(z) for all s > 0, and r is convex: a sum of L1, NonNegative and Tilt terms."""
    return all(isinstance(term, L1 | NonNegative | Tilt | Zero) for term in r.terms)
