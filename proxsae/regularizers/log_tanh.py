"""Smooth penalties that saturate, whose formulas are transcendental: log-sum and tanh."""

from __future__ import annotations

import math
from typing import Any

from proxsae.regularizers.separable import Separable

TANH_BEND = math.atanh(1.0 / math.sqrt(3.0))  # where the slope of tanh turns from concave to convex
NEWTON_STEPS = 24  # at a triple root an error in z shrinks by 2/3 a step, and enters the objective to the fourth power


class LogSum(Separable):
    r"""The log-sum penalty, :math:`r(z) = \log(1 + |z|/\delta)`, which reweighted L1 minimises.

    The prox is the larger root of :math:`(z - u)(z + \delta) + t = 0`,
    :math:`z = \frac12[u - \delta + \sqrt{(u + \delta)^2 - 4t}]`, where the root is real and beats z = 0; else zero.
    It jumps where :math:`t > \delta^2`.

    Parameters
    ----------
    delta : float or array of shape (n_components,), default 1
        Where the logarithm takes over from the linear part, > 0, in the units of z.

    References
    ----------
    Candes, Wakin and Boyd (2008), Enhancing sparsity by reweighted l1 minimization, J. Fourier Anal. Appl. 14;
    Prater-Bennette, Shen and Tripp (2022), The proximity operator of the log-sum penalty, J. Sci. Comput. 93.
    """

    delta: Any = 1.0

    is_symmetric = True
    is_algebraic = False
    degree = 0
    lengths = ("delta",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*super().conditions(), (self.delta > 0, "delta must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.log1p(xp.abs(z) / self.delta)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        a = xp.abs(u)
        base = a + self.delta
        discriminant = 1.0 - 4.0 * (t / base / base)  # over base^2, which may overflow
        root = base * xp.sqrt(xp.where(discriminant > 0, discriminant, 1.0))
        # Of the two forms of the same root, each branch takes the one that does not cancel.
        gap = xp.abs(a - self.delta)
        larger = xp.where(
            a > self.delta, 0.5 * gap + 0.5 * root, 2.0 * (a - t / self.delta) * (self.delta / (gap + root))
        )
        z = xp.where(discriminant > 0, xp.maximum(larger, 0.0), 0.0)
        return self.best_of(xp, u, t, [xp.sign(u) * z])


class Tanh(Separable):
    r"""The tanh penalty of sparse autoencoders, :math:`r(z) = \tanh(|z|/c)`, between L1 and L0.

    There is no closed form. With y = z/c and :math:`\tau = t/c^2` the objective has at most two local minima besides
    zero, one on each side of the bend of :math:`1 - \tanh^2`; Newton's method finds each from the end of its interval
    (it cannot overshoot there), and the best of the three wins.

    Parameters
    ----------
    scale : float or array of shape (n_components,), default 1
        c > 0, in the units of z: r is near its maximum 1 from about 2 c on.

    References
    ----------
    Jermyn, Templeton, Batson and Bricken (2024), Tanh penalty in dictionary learning, Transformer Circuits.
    """

    scale: Any = 1.0

    is_symmetric = True
    is_algebraic = False
    degree = 0
    lengths = ("scale",)

    def conditions(self) -> list[tuple[Any, str]]:
        return [*super().conditions(), (self.scale > 0, "scale must be positive")]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.tanh(xp.abs(z) / self.scale)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        v, tau = xp.abs(u) / self.scale, t / (self.scale * self.scale)

        def stationarity(y: Any) -> tuple[Any, Any]:
            height = xp.tanh(y)
            fall = 1.0 - height * height
            slope = 1.0 - 2.0 * tau * height * fall
            return y + tau * fall - v, xp.where(slope > 0, slope, 1.0)

        near = xp.root(stationarity, start=0.0 * v, low=0.0, high=xp.minimum(v, TANH_BEND), steps=NEWTON_STEPS)
        far = xp.root(stationarity, start=v, low=TANH_BEND, high=v, steps=NEWTON_STEPS)
        unit = xp.sign(u) * self.scale
        return self.best_of(xp, u, t, [unit * near, unit * far])
