"""A formula and its slope over any kind of number: symbols of z3, balls, or jets themselves (second slopes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError, whole_power


@dataclass(frozen=True, eq=False)
class Jet:
    """A number that depends on z, and its derivative."""

    value: Any
    slope: Any

    def __add__(self, other: Any) -> Jet:
        other = _jet(other)
        return Jet(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Any) -> Jet:
        other = _jet(other)
        return Jet(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __truediv__(self, other: Any) -> Jet:
        other = _jet(other)
        quotient = self.value / other.value
        return Jet(quotient, (self.slope - quotient * other.slope) / other.value)

    def __neg__(self) -> Jet:
        return Jet(-self.value, -self.slope)

    def __sub__(self, other: Any) -> Jet:
        return self + -_jet(other)

    def __rsub__(self, other: Any) -> Jet:
        return _jet(other) - self

    def __rtruediv__(self, other: Any) -> Jet:
        return _jet(other) / self

    def __pow__(self, exponent: Any) -> Jet:
        return whole_power(self, exponent, Jet(self.value**0, 0 * self.slope))

    def __abs__(self) -> Jet:
        raise NotAlgebraicError("abs(z) in place of xp.abs(z), among transcendental functions,")

    __radd__ = __add__
    __rmul__ = __mul__

    def __lt__(self, other: Any) -> Below:
        return Below(self, _jet(other))

    def __gt__(self, other: Any) -> Below:
        return Below(_jet(other), self)

    def __le__(self, other: Any) -> Below:
        raise NotAlgebraicError("a domain that need not be closed, of a transcendental function,")

    __ge__ = __le__


@dataclass(frozen=True)
class Below:
    """The condition that one jet is less than another, strictly: where it fails is a closed set."""

    left: Jet
    right: Jet


def _jet(number: Any) -> Jet:
    return number if isinstance(number, Jet) else Jet(number, 0 * number)


class Jets:
    """The namespace `xp` of a formula that is continuous on a closed domain, and smooth but for its `edges`.

    Parameters
    ----------
    xp : namespace
        The namespace of the numbers in the jets.

    Attributes
    ----------
    edges : list of Jet
        The jets at whose zeros the formula need not have a slope.
    """

    inf = float("inf")

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.edges: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        raise NotAlgebraicError(f"the function {name}")

    def abs(self, a: Jet) -> Jet:
        self.edges.append(a.value)
        return Jet(self.xp.abs(a.value), _sign(self.xp, a.value) * a.slope)

    def sqrt(self, a: Jet) -> Jet:
        root = self.xp.sqrt(a.value)
        return Jet(root, a.slope / (2 * root))

    def power(self, a: Jet, b: float) -> Jet:
        return Jet(self.xp.power(a.value, b), b * self.xp.power(a.value, b - 1.0) * a.slope)

    def log1p(self, a: Jet) -> Jet:
        return Jet(self.xp.log1p(a.value), a.slope / (1 + a.value))

    def tanh(self, a: Jet) -> Jet:
        height = self.xp.tanh(a.value)
        return Jet(height, (1 - height * height) * a.slope)

    def where(self, outside: Any, a: Any, b: Any) -> Jet:
        """Return b on a closed domain and infinity outside of it; nothing else is sure to be continuous."""
        if not (isinstance(outside, Below) and isinstance(a, float) and a == self.inf):
            raise NotAlgebraicError("a formula with pieces, among transcendental functions,")
        self.edges.append(outside.left.value - outside.right.value)
        is_outside = outside.left.value < outside.right.value
        b = _jet(b)
        return Jet(self.xp.where(is_outside, self.xp.inf, b.value), b.slope)


def _sign(xp: Any, a: Any) -> Any:
    """Return the slope of the modulus, a constant: no formula may call this, as it jumps."""
    if not isinstance(a, Jet):
        return xp.sign(a)
    sign = _sign(xp.xp, a.value)
    return Jet(sign, 0 * sign)
