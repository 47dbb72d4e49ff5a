"""Penalties that treat the two signs differently: the linear tilt, the two-sided JumpReLU, the gated SAE."""

from __future__ import annotations

from typing import Any

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L0, NonNegative
from proxsae.regularizers.conjugate import Piece
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import WithTilt


class Tilt(Separable):
    r"""r(z) = c z, of either sign, whose prox is the shift u - t c.

    In any sum :math:`\mathrm{prox}_{t(R + \langle c, \cdot\rangle)}(u) = \mathrm{prox}_{tR}(u - tc)`: a tilt of R is
    what an encoder calls a bias.

    Parameters
    ----------
    slope : float or array of shape (n_components,)
        c, of either sign.
    """

    slope: Any

    is_convex = True
    rank = 4
    degree = 2
    lengths = ("slope",)

    def merged(self, other: Any) -> Regularizer | None:
        same = isinstance(other, Tilt)
        return Tilt(self.weight * self.slope + other.weight * other.slope) if same else None

    def joined(self, total: Any) -> Regularizer:
        return WithTilt(total, self)

    def value_of(self, xp: Any, z: Any) -> Any:
        return self.slope * z

    def piece(self) -> Piece:
        return Piece(slope=self.weight * self.slope)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return u - t * self.slope


class AsymmetricL0(Separable):
    r"""r(z) = p 1[z > 0] + q 1[z < 0], whose prox is u above :math:`\sqrt{2tp}` or below :math:`-\sqrt{2tq}`, else 0.

    It is the two-sided JumpReLU: thresholds theta+ and theta- at step 1 are the costs
    :math:`p = \theta_+^2/2, q = \theta_-^2/2`.

    Parameters
    ----------
    positive, negative : float or array of shape (n_components,)
        The costs p and q of a positive and of a negative entry, >= 0.
    """

    positive: Any
    negative: Any

    is_least_at_zero = True
    degree = 0

    def conditions(self) -> list[tuple[Any, str]]:
        mine = [(self.positive >= 0, "positive must not be negative"), (self.negative >= 0, "negative must be >= 0")]
        return [*super().conditions(), *mine]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.where(z > 0, self.positive, xp.where(z < 0, self.negative, 0.0))

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        above = xp.where(u > 2.0 * xp.sqrt(0.5 * t * self.positive), u, 0.0)
        below = xp.where(u < -2.0 * xp.sqrt(0.5 * t * self.negative), u, 0.0)
        return xp.where(u > 0, above, below)


def gated(threshold: float, shift: float) -> Regularizer:
    r"""Return the regularizer whose prox at step 1 is that of a gated SAE, max(u - shift, 0) 1[u > threshold].

    A gated SAE computes :math:`1[g > 0] \odot \max(m, 0)` with gate g and magnitude m. With tied weights both are
    affine in one pre-activation u; the gain of the magnitude is taken into the dictionary, so m = u - s, and g > 0
    where :math:`u > \theta`. Freeing z under :math:`s z + w 1[z \ne 0] + i\{z \ge 0\}` gains
    :math:`\frac12 (u - s)_+^2 - w`, positive where :math:`u > s + \sqrt{2w}`. Hence
    :math:`R(z) = \frac12 \max(\theta - s, 0)^2 \|z\|_0 + s \sum_i z_i + i\{z \ge 0\}`: JumpReLU and a bias. A negative
    s (magnitudes enlarged) is a tilt downwards; it is a prox too.

    Parameters
    ----------
    threshold : float
        Where the gate opens.
    shift : float
        What the magnitude takes off.

    References
    ----------
    Rajamanoharan et al. (2024), Improving dictionary learning with gated sparse autoencoders, arXiv:2404.16014.
    """
    return 0.5 * max(threshold - shift, 0.0) ** 2 * L0() + Tilt(shift) + NonNegative()
