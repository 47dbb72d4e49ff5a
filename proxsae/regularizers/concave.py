"""Folded concave penalties: like abs(z) near zero, flat far away, so that large codes are not shrunk.

Every r here has slope w at zero, so that the weight means what it means for L1. Where the step is so large that
z^2 / 2 + t r(z) is concave between zero and the flat part, the prox jumps: each formula changes form there.
"""

from __future__ import annotations

from typing import Any

from proxsae.regularizers.parameters import all_hold, as_parameter
from proxsae.regularizers.separable import Separable


class MCP(Separable):
    r"""The minimax concave penalty, :math:`r(z) = |z| - z^2/(2\gamma)` up to :math:`\gamma`, then :math:`\gamma/2`.

    For :math:`t < \gamma` the prox is the firm threshold: 0 up to t, slope :math:`\gamma/(\gamma - t)` up to
    :math:`\gamma`, then u. For :math:`t \ge \gamma` it is the hard threshold at :math:`\sqrt{\gamma t}`. The firm
    threshold with knots lam < mu is the prox of ``lam * MCP(mu)`` at step 1.

    Parameters
    ----------
    gamma : float or array of shape (n_components,), default 3
        Where r becomes flat, > 0, in the units of z. Zhang's parameter for the penalty of weight w is gamma / w.

    References
    ----------
    Zhang (2010), Nearly unbiased variable selection under minimax concave penalty, Ann. Statist. 38;
    Gao and Bruce (1997), WaveShrink with firm shrinkage, Statist. Sinica 7.
    """

    gamma: Any = 3.0

    is_symmetric = True
    degree = 1
    lengths = ("gamma",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*super().conditions(), (self.gamma > 0, "gamma must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        a = xp.minimum(xp.abs(z), self.gamma)
        return a * (1.0 - 0.5 * (a / self.gamma))

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        a = xp.abs(u)
        rising = xp.maximum(a - t, 0.0) * (self.gamma / xp.where(t < self.gamma, self.gamma - t, 1.0))
        firm = xp.where(a < self.gamma, rising, a)
        hard = xp.where(a / self.gamma * a > t, a, 0.0)
        return xp.sign(u) * xp.where(t < self.gamma, firm, hard)


class SCAD(Separable):
    r"""The smoothly clipped absolute deviation: slope 1 up to the knot c, falling to 0 at a c, flat beyond.

    :math:`r(z) = |z|` for :math:`|z| \le c`, :math:`\frac{2ac|z| - z^2 - c^2}{2(a-1)c}` up to a c, then
    :math:`\frac{(a+1)c}{2}`. The penalty of Fan and Li with parameter lam is ``lam * SCAD(a, lam)``. For
    :math:`t < (a-1)c` the prox is continuous; for larger t it jumps from the soft threshold to u at
    :math:`\frac{t + (a+1)c}{2}`, and from zero to u at :math:`\sqrt{t(a+1)c}` once :math:`t > (a+1)c`.

    Parameters
    ----------
    a : float or array of shape (n_components,), default 3.7
        The flat part begins at a c; a > 1.
    knot : float or array of shape (n_components,), default 1
        Where the slope begins to fall, c > 0, in the units of z.

    References
    ----------
    Fan and Li (2001), Variable selection via nonconcave penalized likelihood, J. Amer. Statist. Assoc. 96.
    """

    a: Any = 3.7
    knot: Any = 1.0

    is_symmetric = True
    degree = 1
    lengths = ("knot",)

    def conditions(self) -> list[tuple[Any, str]]:
        mine = [(self.a > 1, "a must exceed 1"), (self.knot > 0, "knot must be positive")]
        return [*super().conditions(), *mine]

    def value_of(self, xp: Any, z: Any) -> Any:
        a, flat, width = xp.abs(z), self.a * self.knot, (self.a - 1.0) * self.knot
        parabola = a - 0.5 * (a - self.knot) * ((a - self.knot) / width)
        return xp.where(a <= self.knot, a, xp.where(a < flat, parabola, 0.5 * (flat + self.knot)))

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the three pieces joined, or with a jump where t >= (a - 1) knot."""
        a = xp.abs(u)
        flat, width, height = self.a * self.knot, (self.a - 1.0) * self.knot, (self.a + 1.0) * self.knot
        soft = xp.maximum(a - t, 0.0)
        rising = self.knot + (a - self.knot - t) * (width / xp.where(t < width, width - t, 1.0))
        joined = xp.where(a <= self.knot + t, soft, xp.where(a < flat, rising, a))
        half = xp.where(a > 0.5 * t + 0.5 * height, a, soft)
        hard = xp.where(a / height * a > t, a, 0.0)
        broken = xp.where(t <= height, half, hard)
        return xp.sign(u) * xp.where(t < width, joined, broken)


class CappedL1(Separable):
    r"""The capped L1 penalty, :math:`r(z) = \min(|z|, \theta)`.

    The prox jumps from the soft threshold to u at :math:`\theta + t/2`, and from zero to u at
    :math:`\sqrt{2t\theta}` once :math:`t > 2\theta`.

    Parameters
    ----------
    theta : float or array of shape (n_components,), default 1
        The cap, > 0, in the units of z.

    References
    ----------
    Zhang (2010), Analysis of multi-stage convex relaxation for sparse regularization, J. Mach. Learn. Res. 11.
    """

    theta: Any = 1.0

    is_symmetric = True
    degree = 1
    lengths = ("theta",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*super().conditions(), (self.theta > 0, "theta must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.minimum(xp.abs(z), self.theta)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return u beyond the jump and the soft threshold below it."""
        a = xp.abs(u)
        half = xp.where(a > self.theta + 0.5 * t, a, xp.maximum(a - t, 0.0))
        hard = xp.where(0.5 * a / self.theta * a > t, a, 0.0)
        return xp.sign(u) * xp.where(t <= 2.0 * self.theta, half, hard)


def CEL0(a: Any = 1.0, lam: Any = 1.0) -> MCP:  # noqa: N802
    r"""Return the continuous exact L0 penalty, which is a multiple of :class:`MCP`.

    :math:`r(z) = \lambda - \frac{a^2}{2}\max(\sqrt{2\lambda}/a - |z|, 0)^2` is the largest function below
    :math:`\lambda\|z\|_0` that leaves the global minimisers of :math:`\frac12\|x - zD\|^2 + \lambda\|z\|_0` in place
    where the atoms have norm a, and removes local ones. For :math:`t a^2 \ge 1` its prox is that of :math:`\lambda
    L_0`, the hard threshold at :math:`\sqrt{2t\lambda}`. The result is that MCP, and prints as one.

    Parameters
    ----------
    a : float or array of shape (n_components,), default 1
        Norms of the atoms, > 0.
    lam : float or array of shape (n_components,), default 1
        Cost of one non-zero, > 0. A weight in front multiplies the whole penalty; CEL0 is not linear in lam.

    References
    ----------
    Soubies, Blanc-Feraud and Aubert (2015), A continuous exact l0 penalty (CEL0), SIAM J. Imaging Sci. 8.
    """
    a, lam = as_parameter(a, "a"), as_parameter(lam, "lam")
    for name, value in (("a", a), ("lam", lam)):
        if not all_hold(value > 0):
            raise ValueError(f"CEL0: {name} must be positive, got {value}")
    root = (2.0 * lam) ** 0.5
    return MCP(root / a, weight=a * root)
