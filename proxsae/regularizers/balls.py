"""The Euclidean ball and the L-infinity ball."""

from __future__ import annotations

from typing import Any

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.conjugate import Piece, slack
from proxsae.regularizers.nonseparable import NonSeparable, as_positive, feasible
from proxsae.regularizers.separable import Separable


class L2Ball(NonSeparable):
    r"""The indicator of :math:`\|z\|_2 \le \rho`, whose prox is :math:`u \min(1, \rho / \|u\|_2)`.

    :meth:`value` allows an excess of 1e-9 of the radius (1e-6 in float32): rounding.

    Parameters
    ----------
    radius : float, default 1
        rho > 0.
    """

    radius: float = 1.0

    is_convex = True
    is_indicator = True
    is_symmetric = True
    is_radial = True
    degree = 0
    lengths = ("radius",)
    value_latex = r"\iota_{\{\|z\|_2 \le \rho\}}(z)"
    prox_latex = r"\mathrm{prox}_{tR}(u) = \min(1, \rho / \|u\|_2)\, u"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "radius", as_positive(self.radius, "radius", "L2Ball"))

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return 0 in the ball and infinity elsewhere."""
        return feasible(xp, xp.sqrt((Z * Z).sum(-1)) <= self.radius * (1.0 + slack(Z)), Z)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:  # noqa: ARG002
        """Return u, or the point of the sphere on its ray."""
        squares = (U * U).sum(-1)[..., None]
        outside = squares > self.radius * self.radius
        return xp.where(outside, U * (self.radius / xp.sqrt(xp.where(outside, squares, 1.0))), U)

    def conjugate_of(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return rho times the Euclidean norm."""
        return self.radius * xp.sqrt((V * V).sum(-1))

    def conjugate_with_ridge(self, xp: ArrayNamespace, V: Array, a: Array) -> Array:
        r"""Return the largest :math:`\|v\|_2 s - \frac a2 s^2` of :math:`0 \le s \le \rho`."""
        norm = xp.sqrt((V * V).sum(-1))
        s = xp.minimum(norm / a, xp.asarray(self.radius))
        return s * (norm - 0.5 * a * s)


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
        """State radius > 0."""
        return [(self.radius > 0, "radius must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return 0 in the ball and infinity elsewhere."""
        return xp.where(xp.abs(z) <= self.radius, 0.0, xp.inf)

    def piece(self) -> Piece:
        return Piece(lower=-self.radius, upper=self.radius)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:  # noqa: ARG002
        """Return u clipped."""
        return xp.minimum(xp.maximum(u, -self.radius), self.radius)
