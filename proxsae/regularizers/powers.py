"""The fractional powers abs(z)^q, 0 < q < 1, between L0 and L1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxsae.regularizers.parameters import as_positive
from proxsae.regularizers.separable import Separable

NEWTON_STEPS = 7  # the first step at least halves the error, the others square it: enough for float64


class Lq(Separable):
    r"""r(z) = abs(z)^q with 0 < q < 1.

    The prox is zero up to :math:`\frac{2-q}{2(1-q)}[2t(1-q)]^{1/(2-q)}`, where it jumps to
    :math:`[2t(1-q)]^{1/(2-q)}`; beyond, it is the largest root of :math:`z + t q z^{q-1} = u`: in closed form for
    q = 1/2 and q = 2/3, by Newton's method from u otherwise (the equation is convex and its slope between 1 - q/2
    and 1, so that each step stays above the root).

    Parameters
    ----------
    q : float
        The power, strictly between 0 and 1; a number, the same for all coordinates. ``2/3`` is the float nearest to it.

    References
    ----------
    Xu, Chang, Xu and Zhang (2012), L1/2 regularization: a thresholding representation theory, IEEE TNNLS 23;
    Cao, Sun and Xu (2013), Fast image deconvolution using closed-form thresholding formulas of Lq, q = 1/2, 2/3,
    J. Vis. Commun. Image Represent. 24; Marjanovic and Solo (2012), On lq optimization, IEEE Trans. Signal Process. 60.
    """

    q: float = 0.5

    is_symmetric = True

    # The prox takes powers: cube roots and a cosine at the closed forms, z^q elsewhere.
    is_algebraic = False

    @property
    def degree(self) -> float:
        return self.q

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "q", as_positive(self.q, "q", "Lq"))
        if self.q >= 1:
            raise ValueError(f"Lq: q must be strictly between 0 and 1, got {self.q}")

    # q decides the form of the formula: no reader puts a symbol or an array in its place.
    def own_parameters(self) -> list[str]:
        return ["weight"]

    def value_of(self, xp: Any, z: Any) -> Any:
        if self.q == 1 / 2:
            return xp.sqrt(xp.abs(z))
        return xp.power(xp.abs(z), self.q)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        a = xp.abs(u)
        largest_root, threshold = _FORMULAS.get(self.q, (self._by_newton, self._threshold))
        jump = threshold(xp, t)
        alive = a > jump
        # Below the threshold there may be no root: solve for a harmless one there.
        solvable = xp.lemma(xp.where(alive, a, 1.0 + jump), lambda v: (v > jump) & (~alive | (v == a)))
        root = largest_root(xp, solvable, t)
        return xp.where(alive, xp.sign(u) * root, 0.0)

    def _threshold(self, xp: Any, t: Any) -> Any:
        q = self.q
        return xp.power(2.0 * (1.0 - q) * t, 1.0 / (2.0 - q)) * ((2.0 - q) / (2.0 * (1.0 - q)))

    def _by_newton(self, xp: Any, u: Any, t: Any) -> Any:
        def stationarity(z: Any) -> tuple[Any, Any]:
            pull = t * self.q * xp.power(z, self.q - 1.0)
            return z + pull - u, 1.0 - (1.0 - self.q) * pull / z

        return xp.root(stationarity, start=u, low=(1.0 - self.q) * u, high=u, steps=NEWTON_STEPS)


def _half_threshold(xp: Any, t: Any) -> Any:
    root = xp.cbrt(t)
    return 1.5 * root * root


def _half_root(xp: Any, u: Any, t: Any) -> Any:
    """Return s^2 for the largest root of s^3 - u s + t/2 = 0, by the cosine of a third."""
    third = u / 3.0
    root = xp.sqrt(third)
    ratio = xp.lemma(0.25 * (t / third) / root, lambda ratio: ratio * (third * root) == 0.25 * t)
    cosine = xp.cos_third(-ratio)
    return third * (4.0 * cosine * cosine)


def _two_thirds_threshold(xp: Any, t: Any) -> Any:
    third = 2.0 / 3.0 * t
    root = xp.sqrt(third)
    return xp.lemma(2.0 * root * xp.sqrt(root), lambda a: (a >= 0) & (a * a * a * a == 16.0 * third * third * third))


def _two_thirds_root(xp: Any, u: Any, t: Any) -> Any:
    """Return s^3 for the largest root of s^4 - u s + 2t/3 = 0, by Ferrari's resolvent m^3 - (8t/3) m = u^2."""
    root = xp.cbrt(u)
    ratio = 8.0 / 9.0 * (t / u) / root
    ratio = xp.lemma(ratio, lambda ratio: ratio * (root * root * root * root) == 8.0 / 9.0 * t)
    w = root * root * xp.cbrt(0.5 + xp.sqrt(0.25 - ratio * ratio * ratio))
    m = w + 8.0 / 9.0 * t / w
    m = xp.lemma(m, lambda m: (m > 0) & (m * m * m - 8.0 / 3.0 * t * m == u * u))
    s = 0.5 * (xp.sqrt(m) + xp.sqrt(2.0 * (u / xp.sqrt(m)) - m))
    s = xp.lemma(s, lambda s: (s > 0) & (4.0 * s * s * s >= u) & (s * s * s * s - u * s + 2.0 / 3.0 * t == 0))
    return s * s * s


_FORMULAS: dict[float, tuple[Callable[..., Any], Callable[..., Any]]] = {
    1 / 2: (_half_root, _half_threshold),
    2 / 3: (_two_thirds_root, _two_thirds_threshold),
}
