"""Norms of groups: any scalar regularizer of the Euclidean norm of each group."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.latex import scalar_value
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L1, LInfBall
from proxsae.regularizers.conjugate import slack
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.parameters import as_positive
from proxsae.regularizers.partition import Grouped, Partition, norms_of
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.traits import Scope

NORM = r"\|z_g\|_2"


class OfNorms(Grouped, NonSeparable):
    r"""A scalar regularizer of the norm of each group, :math:`\sum_g c_g\, r(\|z_g\|_2)`.

    The best z of a given norm lies on the ray of u, so the prox scales each group:
    :math:`\mathrm{prox}_{tR}(u)_g = \mathrm{prox}_{t c_g r}(\|u_g\|_2)\; u_g / \|u_g\|_2`. ``OfNorms(MCP(3.0), 4)`` is
    group MCP; SCAD, Lq, Huber, ``L1() + a * SquaredL2()`` and your own regularizers work as well.

    Parameters
    ----------
    r : Separable
        Even, non-decreasing in abs(z), 0 at 0, and the same for all coordinates.
    groups : int or integer array of shape (n_components,), optional
        The size of consecutive groups, or the label of each component; a label that no component has is an empty group
        and costs nothing. None, the default: the code is one group.
    group_weights : array of shape (largest label + 1,), optional
        c_g >= 0, 1 unless given.

    References
    ----------
    Huang, Breheny and Ma (2012), A selective review of group selection in high-dimensional models, Statist. Sci. 27.
    """

    r: Separable
    groups: Any = None
    group_weights: Any = None

    is_symmetric = True
    is_radial = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_groups()
        r: Any = self.r
        if not isinstance(r, Separable) or not (r.is_symmetric and r.is_uniform and r.is_zero_at_zero()):
            raise ValueError(
                f"{type(self).__name__} takes one even scalar regularizer that is 0 at 0 and grows with abs(z), got {r}"
            )
        if r.is_indicator and self.group_weights is not None:
            raise ValueError(f"{type(self).__name__}: a constraint on norms takes no group_weights, got {r}")
        if "weight" in r.own_parameters():  # one weight is enough
            object.__setattr__(self, "weight", self.weight * r.weight)
            object.__setattr__(self, "r", r.replace(weight=1.0))

    @property
    def is_convex(self) -> bool:
        return self.r.is_convex

    @property
    def is_indicator(self) -> bool:
        return self.r.is_indicator

    @property
    def scope(self) -> Scope:
        return "sample" if self.groups is None else "group"

    @property
    def value_latex(self) -> str:
        value = scalar_value(self.r).replace("z_{i}", NORM).replace(rf"\left|{{{NORM}}}\right|", NORM)
        value = rf"\left({value}\right)" if " " in value else value
        return rf"\sum_g {value}" if self.is_indicator else rf"\sum_g c_g {value}"

    @property
    def prox_latex(self) -> str:
        step = "t r" if self.is_indicator else "t w c_g r"
        moved = r"\mathrm{prox}_{tR}(u)_g = \frac{p_g}{\|u_g\|_2}\, u_g"
        scalar = rf"\mathrm{{prox}}_{{tr}}(u_i) = {self.r.printed_entry('u_i')}"
        return rf"{moved}, \quad p_g = \mathrm{{prox}}_{{{step}}}(\|u_g\|_2), \quad {scalar}"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return self._values(xp, Z, self.units(Z.shape[-1])).sum(-1)

    def _values(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
        """Return c_g r(||z_g||); beyond the domain of r, 1e-9 of the norm is allowed for rounding (1e-6 in float32)."""
        norms = norms_of(xp, Z, parts).norms
        values = self.r.weighted_value(xp, norms)
        values = xp.where(values < xp.inf, values, self.r.weighted_value(xp, norms / (1.0 + slack(Z))))
        return xp.where(values < xp.inf, self.costs(xp, parts) * values, xp.inf)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        parts = self.units(U.shape[-1])
        norms, entries, roots = norms_of(xp, U, parts)
        shrunk = self.r.weighted_prox(xp, norms, t * self.costs(xp, parts))
        alive = roots > 0
        Z = entries * parts.spread(shrunk / xp.where(alive, roots, 1.0))
        return xp.where(parts.spread(alive & xp.rounds_alike(shrunk, norms)), U, Z)

    def is_sum_over(self, groups: Any) -> bool:
        return self.has_groups(groups)

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
        values = self.as_arrays(xp)._values(xp, Z, parts)
        return values if self.is_indicator else xp.asarray(self.weight) * values

    # --- the conjugate: that of w c_g r at the norms -------------------------------------------------------------

    @property
    def has_conjugate(self) -> bool:
        return self.defines("conjugate_on") and self.r.is_convex and self.r.has_conjugate

    @property
    def has_conjugate_with_ridge(self) -> bool:
        return self.has_conjugate and self.r.has_conjugate_with_ridge

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        r, norms = self._of_the_norms(xp, V)
        return r.conjugate_on(xp, norms, ridge)

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        r, norms = self._of_the_norms(xp, V)
        return r.gauge_on(xp, norms)

    def _of_the_norms(self, xp: ArrayNamespace, V: Array) -> tuple[Regularizer, Array]:
        """Return w c_g r as a regularizer of codes with one coordinate a group, and the norms of the groups."""
        parts = self.units(V.shape[-1])
        weights = xp.asarray(self.weight) * self.costs(xp, parts)
        return (self.r if self.is_indicator else self.r.scaled(weights)), norms_of(xp, V, parts).norms

    # --- the algebra ---------------------------------------------------------------------------------------------

    def in_units(self, scale: float) -> Regularizer:
        return self.replace(r=self.r.rescaled(scale))


class GroupL2(OfNorms):
    r"""The group lasso :math:`\sum_g c_g \|z_g\|_2` with :math:`c_g = \sqrt{|g|}` unless given.

    The prox scales each group by :math:`\max(1 - t c_g / \|u_g\|, 0)`. ``lam * L1() + mu * GroupL2(groups)`` is the
    sparse group lasso: first the soft threshold, then the groups; with ``NonNegative()`` first the ReLU.

    Parameters
    ----------
    groups, group_weights
        As in :class:`OfNorms`.

    References
    ----------
    Yuan and Lin (2006), Model selection and estimation in regression with grouped variables, J. R. Stat. Soc. B 68;
    Simon, Friedman, Hastie and Tibshirani (2013), A sparse-group lasso, J. Comput. Graph. Statist. 22.
    """

    r: Separable = field(default=L1(), init=False)

    def usual_costs(self, units: Partition) -> Any:
        return np.sqrt(units.sizes)

    def in_units(self, scale: float) -> Regularizer:
        return self.replace(weight=self.weight * scale)


class L2Ball(OfNorms):
    r"""The indicator of :math:`\|z\|_2 \le \rho`, whose prox is :math:`u \min(1, \rho / \|u\|_2)`.

    :meth:`value` allows an excess of 1e-9 of the radius (1e-6 in float32) for rounding.

    Parameters
    ----------
    radius : float, default 1
        rho > 0.
    """

    value_latex = r"\iota_{\{\|z\|_2 \le \rho\}}(z)"

    r: Separable = field(default=LInfBall(), init=False)
    groups: Any = field(default=None, init=False)
    group_weights: Any = field(default=None, init=False)
    radius: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", as_positive(self.radius, "radius", "L2Ball"))
        object.__setattr__(self, "r", LInfBall(self.radius))
        super().__post_init__()

    def in_units(self, scale: float) -> Regularizer:
        return L2Ball(self.radius * scale)
