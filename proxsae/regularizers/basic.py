"""The scalar regularizers: each is a value and a prox, side by side.

Notation: r is the scalar function, w its weight, t the step; the prox shown is that of t w r with t w written t.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.conjugate import Piece
from proxsae.regularizers.parameters import all_hold, as_parameter
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import WithBox, WithCount, WithRidge


class Zero(Separable):
    r"""r(z) = 0, whose prox is the identity: no penalty."""

    is_convex = True
    is_symmetric = True
    is_scale_free = True
    is_indicator = True
    rank = 9
    degree = 0

    def joined(self, total: Any) -> Regularizer:
        return total  # type: ignore[no-any-return]

    def value_of(self, xp: Any, z: Any) -> Any:
        return 0.0 * z

    def piece(self) -> Piece:
        return Piece()

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return u


class L1(Separable):
    r"""r(z) = abs(z), whose prox is the soft threshold :math:`\mathrm{sign}(u) \max(|u| - t, 0)`.

    With :class:`NonNegative` the prox is the shifted ReLU :math:`\max(u - t, 0)`.

    References
    ----------
    Donoho (1995), De-noising by soft-thresholding, IEEE Trans. Inf. Theory 41.
    """

    is_convex = True
    is_symmetric = True
    degree = 1

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.abs(z)

    def piece(self) -> Piece:
        return Piece(curve=self)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


class L0(Separable):
    r"""r(z) = 1[z != 0], whose prox is the hard threshold :math:`u\,1[|u| > \sqrt{2t}]`.

    The threshold is :math:`\sqrt{2 t w}`, not t w: keeping u costs t w and saves u^2/2. At equality zero is returned.
    With :class:`NonNegative` the prox is JumpReLU.

    References
    ----------
    Blumensath and Davies (2008), Iterative thresholding for sparse approximations, J. Fourier Anal. Appl. 14.
    """

    is_symmetric = True
    rank = 3
    degree = 0

    def joined(self, total: Any) -> Regularizer:
        if not all(isinstance(term, SquaredL2 | NonNegative) for term in total.terms):
            return WithCount(total, self)
        # Its own formula, which is even, is preferred where it applies.
        return reduce(lambda first, term: term.joined(first), total.terms, self)

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.where(xp.abs(z) > 0, 1.0, 0.0)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return xp.where(xp.abs(u) > 2.0 * xp.sqrt(0.5 * t), u, 0.0)


class SquaredL2(Separable):
    r"""r(z) = z^2 / 2, whose prox is the shrinkage u / (1 + t): ridge, and the second half of the elastic net."""

    is_convex = True
    is_symmetric = True
    rank = 1
    degree = 2

    def joined(self, total: Any) -> Regularizer:
        return WithRidge(total, self)

    def value_of(self, xp: Any, z: Any) -> Any:
        return 0.5 * z * z

    def weighted_value(self, xp: Any, z: Any) -> Any:
        """Return w r(z) = w z^2 r(1), which overflows only where it is too large itself, and is 0 at w = 0."""
        return (self.weight * z) * (self.value_of(xp, 1.0) * z)

    def piece(self) -> Piece:
        return Piece(ridge=self.weight)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return u / (1.0 + t)


class NonNegative(Separable):
    r"""The indicator of z >= 0, whose prox is ReLU :math:`\max(u, 0)`."""

    is_convex = True
    is_least_at_zero = True
    is_nonnegative = True
    is_scale_free = True
    is_indicator = True
    rank = 2
    degree = 0

    def merged(self, other: Any) -> Regularizer | None:
        return other.merged(self) if isinstance(other, Box) else super().merged(other)

    def joined(self, total: Any) -> Regularizer:
        return WithBox(total, self)

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.where(z < 0, xp.inf, 0.0)

    def piece(self) -> Piece:
        return Piece(lower=0.0)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return xp.maximum(u, 0.0)


class Box(Separable):
    r"""The indicator of lower <= z <= upper, whose prox is the projection :math:`\min(\max(u, l), h)`.

    Parameters
    ----------
    lower, upper : float or array of shape (n_components,)
        Finite bounds with lower <= upper.
    """

    lower: Any
    upper: Any

    is_convex = True
    is_indicator = True
    rank = 2
    degree = 0
    lengths = ("lower", "upper")

    def conditions(self) -> list[tuple[Any, str]]:
        return [(self.lower <= self.upper, "lower must not exceed upper")]

    @property
    def is_symmetric(self) -> bool:
        return all_hold(self.lower == -self.upper)

    @property
    def is_least_at_zero(self) -> bool:
        return all_hold(self.lower <= 0) and all_hold(self.upper >= 0)

    @property
    def is_nonnegative(self) -> bool:
        return all_hold(self.lower >= 0)

    def merged(self, other: Any) -> Regularizer | None:
        if isinstance(other, NonNegative):
            return Box(np.maximum(to_numpy(self.lower), 0.0), self.upper)
        if not isinstance(other, Box):
            return None
        lower = np.maximum(to_numpy(self.lower), to_numpy(other.lower))
        return Box(lower, np.minimum(to_numpy(self.upper), to_numpy(other.upper)))

    def joined(self, total: Any) -> Regularizer:
        return WithBox(total, self)

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.where(z < self.lower, xp.inf, xp.where(z > self.upper, xp.inf, 0.0))

    def piece(self) -> Piece:
        return Piece(lower=self.lower, upper=self.upper)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        return xp.minimum(xp.maximum(u, self.lower), self.upper)


def LInfBall(radius: Any = 1.0) -> Box:  # noqa: N802
    r"""Return the indicator of :math:`\max_i |z_i| \le \rho`, the box from -rho to rho.

    The result is a :class:`Box`, and prints as one.

    Parameters
    ----------
    radius : float or array of shape (n_components,), default 1
        rho > 0.
    """
    radius = as_parameter(radius, "radius")
    if not all_hold(radius > 0):
        raise ValueError(f"LInfBall: radius must be positive, got {radius}")
    return Box(-radius, radius)
