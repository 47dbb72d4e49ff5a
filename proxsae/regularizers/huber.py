"""The Huber penalty: quadratic near zero, linear far away."""

from __future__ import annotations

from typing import Any

from proxsae.regularizers.conjugate import Piece
from proxsae.regularizers.separable import Separable


class Huber(Separable):
    r""":math:`r(z) = z^2 / (2\alpha)` for :math:`|z| \le \alpha`, :math:`|z| - \alpha/2` beyond: an envelope of abs(z).

    The prox is :math:`\frac{\alpha}{\alpha + t} u` for :math:`|u| \le \alpha + t` and :math:`u - t\,\mathrm{sign}(u)`
    beyond; the branch is on :math:`\alpha + t`, not on alpha.

    Parameters
    ----------
    alpha : float or array of shape (n_components,), default 1
        Where the linear part begins, > 0, in the units of z.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Ann. Math. Statist. 35.
    """

    alpha: Any = 1.0

    is_convex = True
    is_symmetric = True
    degree = 1
    lengths = ("alpha",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*super().conditions(), (self.alpha > 0, "alpha must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        near = xp.minimum(xp.abs(z), self.alpha)
        return 0.5 * near * (near / self.alpha) + (xp.abs(z) - near)

    def piece(self) -> Piece:
        return Piece(curve=self, bend=self.alpha)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        a = xp.abs(u)
        return xp.where(a <= self.alpha + t, u * (self.alpha / (self.alpha + t)), xp.sign(u) * (a - t))
