"""A formula with its derivative: the reader of pairs (f, f') over another reader, itself of pairs for f''."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxsae.formulas.arrays import Array
from proxsae.verification.boxes.paths import UnreadableError


@dataclass(frozen=True, eq=False)
class Jet:
    """A number of a formula and its derivative; unknown (NaN) next to a kink or a jump."""

    reader: JetReader
    value: Any
    slope: Any

    def _jet(self, value: Any, slope: Any) -> Jet:
        return Jet(self.reader, value, slope)

    def __neg__(self) -> Jet:
        return self._jet(-self.value, -self.slope)

    def __add__(self, other: Any) -> Jet:
        other = self.reader.number(other)
        return self._jet(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: Any) -> Jet:
        return self + -self.reader.number(other)

    def __mul__(self, other: Any) -> Jet:
        other = self.reader.number(other)
        return self._jet(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __truediv__(self, other: Any) -> Jet:
        other = self.reader.number(other)
        quotient = self.value / other.value
        return self._jet(quotient, (self.slope - quotient * other.slope) / other.value)

    def __radd__(self, other: Any) -> Jet:
        return self.__add__(other)

    def __rsub__(self, other: Any) -> Jet:
        difference: Jet = self.reader.number(other) - self
        return difference

    def __rmul__(self, other: Any) -> Jet:
        return self.__mul__(other)

    def __rtruediv__(self, other: Any) -> Jet:
        quotient: Jet = self.reader.number(other) / self
        return quotient

    def __gt__(self, other: Any) -> Any:
        return self.value > self.reader.number(other).value

    def __lt__(self, other: Any) -> Any:
        return self.value < self.reader.number(other).value

    def __ge__(self, other: Any) -> Any:
        return self.value >= self.reader.number(other).value

    def __le__(self, other: Any) -> Any:
        return self.value <= self.reader.number(other).value

    def unknown_where(self, unknown: Array) -> Jet:
        """Return the same, unknown in places."""
        return self._jet(self.value.unknown_where(unknown), self.slope.unknown_where(unknown))


@dataclass(frozen=True)
class JetReader:
    """The namespace `xp` of pairs."""

    base: Any

    inf = float("inf")

    def number(self, value: Any) -> Jet:
        """Return a literal, which does not change."""
        return value if isinstance(value, Jet) else Jet(self, self.base.number(value), self.base.number(0.0))

    def variable(self, value: Any) -> Jet:
        """Return the number that derivatives are taken by."""
        return Jet(self, value, self.base.number(1.0))

    def __getattr__(self, name: str) -> Any:
        raise UnreadableError(f"the derivative of {name}")

    def undecided(self, condition: Any) -> Array:
        """Return where a condition is open."""
        return self.base.undecided(condition)

    def where(self, condition: Any, a: Any, b: Any) -> Jet:
        """Return `a` where the condition holds and `b` elsewhere; in between there may be a jump."""
        a, b, open_ = self.number(a), self.number(b), self.undecided(condition)
        slope = self.base.where(condition, a.slope, b.slope)
        return Jet(self, self.base.where(condition, a.value, b.value), slope.unknown_where(open_))

    def abs(self, a: Jet) -> Jet:
        """Return the modulus."""
        return self.where(a >= 0, a, -a)

    def maximum(self, a: Any, b: Any) -> Jet:
        """Return the larger of the two."""
        a, b = self.number(a), self.number(b)
        return self.where(a >= b, a, b)

    def minimum(self, a: Any, b: Any) -> Jet:
        """Return the smaller of the two."""
        a, b = self.number(a), self.number(b)
        return self.where(a <= b, a, b)

    def sqrt(self, a: Jet) -> Jet:
        """Return the square root."""
        root = self.base.sqrt(a.value)
        return Jet(self, root, a.slope / (2.0 * root))

    def power(self, a: Jet, b: float) -> Jet:
        """Return a to the power of a number."""
        return Jet(self, self.base.power(a.value, b), a.slope * (b * self.base.power(a.value, b - 1.0)))

    def log1p(self, a: Jet) -> Jet:
        """Return log(1 + a)."""
        return Jet(self, self.base.log1p(a.value), a.slope / (1.0 + a.value))

    def tanh(self, a: Jet) -> Jet:
        """Return the hyperbolic tangent."""
        height = self.base.tanh(a.value)
        return Jet(self, height, a.slope * (1.0 - height * height))
