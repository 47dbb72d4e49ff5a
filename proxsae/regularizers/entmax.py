"""Alpha-entmax as a proximal operator: between softmax and sparsemax."""

from __future__ import annotations

from typing import Any

import array_api_compat

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.conjugate import slack
from proxsae.regularizers.nonseparable import NonSeparable, feasible
from proxsae.regularizers.parameters import as_positive

LEVEL_STEPS = 40  # Newton's steps for the level; the sum is convex in it, and exponential at worst
ENTRY_STEPS = 12  # and for an entry at a step other than 1


class Entmax(NonSeparable):
    r"""The penalty on the simplex whose prox at step 1 is alpha-entmax.

    Alpha-entmax is :math:`\arg\max_z \langle u, z \rangle + H_\alpha(z)` over the simplex, with the Tsallis entropy
    :math:`H_\alpha(z) = \frac{1}{\alpha(\alpha-1)} \sum_i (z_i - z_i^\alpha)`. The objective of a prox also holds half
    the square of z, which R therefore subtracts: :math:`R(z) = \sum_i \left[\frac{z_i - z_i^2}{2} - \frac{z_i -
    z_i^\alpha}{\alpha(\alpha-1)}\right]` on the simplex. It is convex exactly for :math:`\alpha \le 2`, where
    :math:`z^{\alpha-2} \ge 1`; at 2 it is the indicator, and the prox is sparsemax.

    The prox is :math:`z_i = \varphi^{-1}(\max(u_i - \tau, 0))` with
    :math:`\varphi(z) = (1-t) z + \frac{t}{\alpha-1} z^{\alpha-1}` and the level that makes the sum 1; at step 1
    :math:`z_i = \max((\alpha-1)(u_i - \tau), 0)^{1/(\alpha-1)}`. With a radius, :math:`\rho^2 R(z/\rho)`.

    Parameters
    ----------
    alpha : float, default 1.5
        1 < alpha <= 2.
    radius : float, default 1
        The sum of z, > 0.

    References
    ----------
    Peters, Niculae and Martins (2019), Sparse sequence-to-sequence models, ACL.
    """

    alpha: float = 1.5
    radius: float = 1.0

    is_convex = True
    is_algebraic = False
    is_nonnegative = True
    degree = 2
    lengths = ("radius",)
    value_latex = (
        r"\sum_i \left[\tfrac12 (z_i - z_i^2) - \frac{z_i - z_i^\alpha}{\alpha(\alpha-1)}\right] "
        r"+ \iota_{\{z \ge 0, \sum_i z_i = 1\}}(z)"
    )
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = z_i, \quad "
        r"(1 - t) z_i + \frac{t}{\alpha - 1} z_i^{\alpha - 1} = \max(u_i - \tau, 0), \quad \sum_i z_i = 1"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", as_positive(self.alpha, "alpha", "Entmax"))
        if not 1 < self.alpha <= 2:
            raise ValueError(f"Entmax: alpha must exceed 1 and be at most 2, got {self.alpha}")
        if not self.weight > 0:
            raise ValueError(f"Entmax: the weight must be positive, got {self.weight}")

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        z = xp.minimum(xp.maximum(Z, 0.0) / self.radius, 1.0)
        inside = (abs(Z.sum(-1) - self.radius) <= slack(Z) * self.radius) & (Z >= 0).all(-1)
        return self.radius**2 * penalty(xp, z, self.alpha).sum(-1) + feasible(xp, inside, Z)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        wide = xp.wide
        t, v = wide.asarray(t), wide.asarray(U)
        # The level moves with the largest entry: beside a large one the differences would be lost.
        v = (v - array_api_compat.array_namespace(v).max(v, axis=-1, keepdims=True)) / self.radius
        level = _level(wide, v.detach() if wide.is_torch else v, t.detach() if wide.is_torch else t, self.alpha)
        # One more step that autograd sees: its derivative is the implicit one.
        z = _entries(wide, v - level, t, self.alpha)
        level = level + (z.sum(-1)[..., None] - 1.0) / _slopes(wide, z, t, self.alpha)
        return xp.asarray(self.radius * _entries(wide, v - level, t, self.alpha))

    def check_width(self, n_components: int) -> None:
        if n_components == 0:
            raise ValueError("Entmax: a code without components is not on a simplex")


def _level(xp: ArrayNamespace, v: Array, t: Array, alpha: float) -> Array:
    """Return the level by Newton's method from below, of v <= 0: the sum is convex and falling, no step overshoots."""
    level = 0.0 * v[..., :1] - (1.0 - t + t / (alpha - 1.0))  # there the largest entry, v = 0, is 1
    for _ in range(LEVEL_STEPS):
        z = _entries(xp, v - level, t, alpha)
        excess = xp.maximum(z.sum(-1)[..., None] - 1.0, 0.0)
        if not bool((excess > 0).any()):
            break
        level = level + excess / _slopes(xp, z, t, alpha)
    return level


def penalty(xp: Any, z: Any, alpha: float) -> Any:
    """Return what one entry adds to R, for z in [0, 1]."""
    return 0.5 * (z - z * z) - (z - xp.power(z, alpha)) / (alpha * (alpha - 1.0))


def _entries(xp: ArrayNamespace, v: Array, t: Array, alpha: float) -> Array:
    """Return z with (1 - t) z + t/(alpha - 1) z^(alpha - 1) = max(v, 0), for z in [0, 1], by way of z^(alpha - 1).

    At step 1 it is a power; a gradient with respect to the step takes the equation there, too.
    """
    power = 1.0 / (alpha - 1.0)
    v = xp.maximum(v, 0.0)
    start = v * (alpha - 1.0) / t
    if bool((t == 1).all()) and not (xp.is_torch and t.requires_grad):
        return xp.power(start, power)

    def equation(y: Any) -> tuple[Any, Any]:
        slope = (1.0 - t) * power * xp.power(y, power - 1.0) + t * power
        return (1.0 - t) * xp.power(y, power) + t * power * y - v, slope

    y = xp.root(equation, xp.minimum(start, 1.0), 0.0, 1.0, ENTRY_STEPS)
    y = y.detach() if xp.is_torch else y  # the gradient is that of one step from the root, which has no bounds
    value, slope = equation(y)
    return xp.power(y - value / (slope.detach() if xp.is_torch else slope), power)


def _slopes(xp: ArrayNamespace, z: Array, t: Array, alpha: float) -> Array:
    """Return the slope at which the sum of the entries falls as the level rises; a constant for autograd."""
    z, t = (z.detach(), t.detach()) if xp.is_torch else (z, t)
    bend = xp.power(z, 2.0 - alpha)
    return xp.where(z > 0, bend / ((1.0 - t) * bend + t), 0.0).sum(-1)[..., None]
