"""The L-infinity ball."""

from __future__ import annotations

from typing import Any

from proxsae.regularizers.conjugate import Piece
from proxsae.regularizers.separable import Separable


class LInfBall(Separable):
    r"""The indicator of :math:`\max_i |z_i| \le \rho`, whose prox clips u to [-rho, rho].

    Parameters
    ----------
    radius : float or array of shape (n_components,), default 1
        rho > 0.
    """

    radius: Any = 1.0

    is_convex = True
    is_symmetric = True
    is_indicator = True
    degree = 0
    lengths = ("radius",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [(self.radius > 0, "radius must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.where(xp.abs(z) <= self.radius, 0.0, xp.inf)

    def piece(self) -> Piece:
        return Piece(lower=-self.radius, upper=self.radius)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return xp.minimum(xp.maximum(u, -self.radius), self.radius)
