"""The simplex, the L1 ball and the L-infinity norm: one threshold by sorting serves all three."""

from __future__ import annotations

from typing import Any

import array_api_compat

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.conjugate import slack
from proxsae.regularizers.nonseparable import NonSeparable, feasible


def water_level(V: Array, volume: Any) -> tuple[Array, Array]:
    r"""Return :math:`v - m` and :math:`\tau - m` of each row v, with :math:`\sum_i \max(v_i - \tau, 0)` = volume.

    m is the largest entry of the row: for a large m the difference of v and tau would be lost to rounding. Both are
    computed in float64; at volume 0, tau is m. The second has shape (..., 1).
    """
    xp = array_api_compat.array_namespace(V)
    V = xp.astype(V, xp.float64)
    V = V - xp.max(V, axis=-1, keepdims=True)
    falling = xp.sort(V, axis=-1, descending=True)
    sums = xp.cumulative_sum(falling, axis=-1) - volume
    ranks = xp.arange(1, V.shape[-1] + 1, dtype=xp.float64, device=array_api_compat.device(V))
    above = xp.sum(xp.astype(falling * ranks > sums, xp.int64), axis=-1, keepdims=True)
    above = xp.where(above > 0, above, xp.ones_like(above))
    return V, xp.take_along_axis(sums, above - 1, axis=-1) / xp.astype(above, xp.float64)


def largest_modulus(xp: ArrayNamespace, Z: Array) -> Array:
    """Return the largest modulus of each row, 0 for a code without components."""
    return array_api_compat.array_namespace(Z).max(xp.abs(Z), axis=-1) if Z.shape[-1] else Z.sum(-1)


class Simplex(NonSeparable):
    r"""The indicator of :math:`z \ge 0, \sum_i z_i = \rho`, whose prox at :math:`\rho = 1` is sparsemax.

    The prox is :math:`\max(u - \tau, 0)` with the level that makes the sum right. :meth:`value` allows the sum of z an
    error of 1e-9 of the radius (1e-6 in float32) for rounding.

    Parameters
    ----------
    radius : float, default 1
        rho > 0.

    References
    ----------
    Held, Wolfe and Crowder (1974), Validation of subgradient optimization, Math. Program. 6;
    Martins and Astudillo (2016), From softmax to sparsemax, ICML.
    """

    radius: float = 1.0

    is_convex = True
    is_indicator = True
    is_nonnegative = True
    degree = 0
    lengths = ("radius",)
    value_latex = r"\iota_{\{z \ge 0, \sum_i z_i = \rho\}}(z)"
    prox_latex = r"\mathrm{prox}_{tR}(u)_i = \max(u_i - \tau, 0), \quad \sum_i \max(u_i - \tau, 0) = \rho"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return feasible(xp, (abs(Z.sum(-1) - self.radius) <= slack(Z) * self.radius) & (Z >= 0).all(-1), Z)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        depths, level = water_level(U, self.radius)
        return xp.asarray((depths - level).clip(0.0))

    def conjugate_of(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.radius * array_api_compat.array_namespace(V).max(V, axis=-1)

    def check_width(self, n_components: int) -> None:
        if n_components == 0:
            raise ValueError("Simplex: a code without components is not on a simplex")


class L1Ball(NonSeparable):
    r"""The indicator of :math:`\|z\|_1 \le \rho`, whose prox is the soft threshold at the level that meets the radius.

    :meth:`value` allows an excess of 1e-9 of the radius (1e-6 in float32) for rounding.

    Parameters
    ----------
    radius : float, default 1
        rho > 0.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra (2008), Efficient projections onto the l1-ball, ICML.
    """

    radius: float = 1.0

    is_convex = True
    is_indicator = True
    is_symmetric = True
    degree = 0
    lengths = ("radius",)
    value_latex = r"\iota_{\{\|z\|_1 \le \rho\}}(z)"
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = \mathrm{sign}(u_i) \max(|u_i| - \max(\tau, 0), 0), "
        r"\quad \sum_i \max(|u_i| - \tau, 0) = \rho"
    )

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return feasible(xp, xp.abs(Z).sum(-1) <= self.radius * (1.0 + slack(Z)), Z)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        depths, level = water_level(xp.abs(U), self.radius)
        is_outside = level > -largest_modulus(xp, U)[..., None]
        return xp.where(is_outside, xp.sign(U) * xp.asarray((depths - level).clip(0.0)), U)

    def conjugate_of(self, xp: ArrayNamespace, V: Array) -> Array:
        return self.radius * largest_modulus(xp, V)


class LInf(NonSeparable):
    r"""The largest modulus :math:`\max_i |z_i|`, whose prox cuts the peaks at the level that removes t in all.

    :math:`\mathrm{sign}(u) \min(|u|, \max(\tau, 0))` with :math:`\sum_i \max(|u_i| - \tau, 0) = t`; zero where
    :math:`\|u\|_1 \le t`.

    References
    ----------
    Parikh and Boyd (2014), Proximal algorithms, section 6.5.2.
    """

    is_convex = True
    is_symmetric = True
    degree = 1
    value_latex = r"\|z\|_\infty"
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = \mathrm{sign}(u_i) \min(|u_i|, \max(\tau, 0)), "
        r"\quad \sum_i \max(|u_i| - \tau, 0) = t w"
    )

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return largest_modulus(xp, Z)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        _, level = water_level(xp.abs(U), t)
        level = xp.asarray((level + largest_modulus(xp, U)[..., None]).clip(0.0))
        return xp.minimum(xp.maximum(U, -level), level)

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        return xp.abs(V).sum(-1)
