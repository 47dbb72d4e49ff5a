"""The scalar regularizers: each is a value and a prox, side by side.

Notation: r is the scalar function, w its weight, t the step; the prox shown is that of t w r with t w written t.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.regularizers.separable import Separable


class Zero(Separable):
    r"""r(z) = 0, whose prox is the identity: no penalty."""

    is_convex = True
    is_symmetric = True
    is_scale_free = True
    is_indicator = True
    degree = 0

    def value_of(self, xp: Any, z: Any) -> Any:  # noqa: ARG002
        """Return 0."""
        return 0.0 * z

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:  # noqa: ARG002
        """Return u."""
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
        """Return abs(z)."""
        return xp.abs(z)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the soft threshold at t."""
        return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


class L0(Separable):
    r"""r(z) = 1[z != 0], whose prox is the hard threshold :math:`u\,1[|u| > \sqrt{2t}]`.

    The threshold is :math:`\sqrt{2 t w}`, not t w: keeping u costs t w and saves u^2/2. At equality zero is returned.
    With :class:`NonNegative` the prox is JumpReLU.

    References
    ----------
    Blumensath and Davies (2008), Iterative thresholding for sparse approximations, J. Fourier Anal. Appl. 14.
    """

    is_convex = False
    is_symmetric = True
    degree = 0

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return 1 where z is not zero."""
        return xp.where(xp.abs(z) > 0, 1.0, 0.0)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the hard threshold at sqrt(2 t)."""
        return xp.where(xp.abs(u) > 2.0 * xp.sqrt(0.5 * t), u, 0.0)


class SquaredL2(Separable):
    r"""r(z) = z^2 / 2, whose prox is the shrinkage u / (1 + t): ridge, and the second half of the elastic net."""

    is_convex = True
    is_symmetric = True
    degree = 2

    def value_of(self, xp: Any, z: Any) -> Any:  # noqa: ARG002
        """Return half the square."""
        return 0.5 * z * z

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:  # noqa: ARG002
        """Return u / (1 + t)."""
        return u / (1.0 + t)


class NonNegative(Separable):
    r"""The indicator of z >= 0, whose prox is ReLU :math:`\max(u, 0)`."""

    is_convex = True
    is_symmetric = False
    is_least_at_zero = True
    is_nonnegative = True
    is_scale_free = True
    is_indicator = True
    degree = 0

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return 0 where z >= 0 and infinity elsewhere."""
        return xp.where(z < 0, xp.inf, 0.0)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:  # noqa: ARG002
        """Return the larger of u and 0."""
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
    degree = 0
    lengths = ("lower", "upper")

    def conditions(self) -> list[tuple[Any, str]]:
        """State lower <= upper."""
        return [(self.lower <= self.upper, "lower must not exceed upper")]

    @property
    def is_symmetric(self) -> bool:
        """Whether the interval is [-c, c]."""
        return bool(np.all(np.asarray(self.lower) == -np.asarray(self.upper)))

    @property
    def is_least_at_zero(self) -> bool:
        """Whether the interval holds 0."""
        return bool(np.all(np.asarray(self.lower) <= 0) and np.all(np.asarray(self.upper) >= 0))

    @property
    def is_nonnegative(self) -> bool:
        """Whether no bound is negative."""
        return bool(np.all(np.asarray(self.lower) >= 0))

    def value_of(self, xp: Any, z: Any) -> Any:
        """Return 0 inside and infinity outside."""
        return xp.where(z < self.lower, xp.inf, xp.where(z > self.upper, xp.inf, 0.0))

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:  # noqa: ARG002
        """Return the nearest point of the interval."""
        return xp.minimum(xp.maximum(u, self.lower), self.upper)
