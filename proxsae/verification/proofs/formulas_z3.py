"""The z3 reader of a formula: exact reals, with the points where an expression is infinite or undefined kept apart.

Soundness: a fresh symbol (a square root, a quotient) is only ever bound by a definition that some number meets, and
what the formula takes for granted (a radicand >= 0, a denominator != 0, no 0 * inf) is recorded in `defined`, to be
proved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from numbers import Integral
from operator import mul
from typing import Any, TypeVar

import z3

Term = Any  # a z3 expression
T = TypeVar("T")


class NotAlgebraicError(Exception):
    """A formula calls a function that polynomial arithmetic cannot express."""


def whole_power(base: T, exponent: Any, one: T) -> T:
    """Return a power as products, or raise NotAlgebraicError unless the exponent is an integer >= 0."""
    if not isinstance(exponent, Integral) or exponent < 0:
        raise NotAlgebraicError(f"the power {exponent}")
    return reduce(mul, [base] * int(exponent)) if exponent else one


@dataclass(frozen=True)
class Definition:
    """A fresh symbol and its definition: `facts` always hold, and `equation` holds wherever `guard` does."""

    symbol: Term
    facts: list[Term]
    guard: Term
    equation: Term


class Number:
    """A number of a formula: a real term, where it is +infinity instead, and where it is defined at all."""

    __slots__ = ("defined", "infinite", "reader", "term")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, reader: Reader, term: Term, infinite: Term = False, defined: Term = True) -> None:
        self.reader = reader
        self.term = term
        self.infinite = infinite
        self.defined = defined

    @property
    def is_finite(self) -> Term:
        """Where this is a real number."""
        return both(self.defined, negation(self.infinite))

    def __add__(self, other: Any) -> Number:
        other = self.reader.number(other)
        return self._with(other, self.term + other.term, either(self.infinite, other.infinite))

    def __sub__(self, other: Any) -> Number:
        other = self.reader.number(other)
        return self._with(other, self.term - other.term, self.infinite, negation(other.infinite))

    def __mul__(self, other: Any) -> Number:
        other = self.reader.number(other)
        infinite = either(self.infinite, other.infinite)
        fine = True
        for one, two in ((self, other), (other, self)):
            if one.infinite is not False:  # inf * x is inf for x > 0 only; 0 * inf is NaN
                fine = both(fine, z3.Implies(one.infinite, either(two.infinite, two.term > 0)))
        return self._with(other, self.term * other.term, infinite, fine)

    def __truediv__(self, other: Any) -> Number:
        other = self.reader.number(other)
        quotient = self.reader.quotient(self.term, other.term)
        fine = both(other.term != 0, negation(other.infinite))
        if self.infinite is not False:  # inf / x is inf for x > 0 only
            fine = both(fine, z3.Implies(self.infinite, other.term > 0))
        return self._with(other, quotient, self.infinite, fine)

    def __neg__(self) -> Number:
        return self.reader.number(0) - self

    def __pow__(self, exponent: Any) -> Number:
        return whole_power(self, exponent, self.reader.number(1))

    def __radd__(self, other: Any) -> Number:
        return self.reader.number(other) + self

    def __rsub__(self, other: Any) -> Number:
        return self.reader.number(other) - self

    def __rmul__(self, other: Any) -> Number:
        return self.reader.number(other) * self

    def __rtruediv__(self, other: Any) -> Number:
        return self.reader.number(other) / self

    def __lt__(self, other: Any) -> Condition:
        other = self.reader.number(other)
        below = both(negation(self.infinite), either(other.infinite, self.term < other.term))
        return Condition(self.reader, below, both(self.defined, other.defined))

    def __le__(self, other: Any) -> Condition:
        other = self.reader.number(other)
        below = either(other.infinite, both(negation(self.infinite), self.term <= other.term))
        return Condition(self.reader, below, both(self.defined, other.defined))

    def __gt__(self, other: Any) -> Condition:
        return self.reader.number(other) < self

    def __ge__(self, other: Any) -> Condition:
        return self.reader.number(other) <= self

    def __eq__(self, other: Any) -> Condition:  # type: ignore[override]
        other = self.reader.number(other)
        finite = both(self.is_finite, other.is_finite)
        return Condition(self.reader, self.term == other.term, finite)

    def __ne__(self, other: Any) -> Condition:  # type: ignore[override]
        other = self.reader.number(other)
        return Condition(self.reader, self.term != other.term, both(self.is_finite, other.is_finite))

    def __abs__(self) -> Number:
        return self.reader.abs(self)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def _with(self, other: Number, term: Term, infinite: Term, fine: Term = True) -> Number:
        return Number(self.reader, term, infinite, both(both(self.defined, other.defined), fine))


class Condition:
    """A truth value of a formula, and where it is defined."""

    __slots__ = ("defined", "holds", "reader")

    def __init__(self, reader: Reader, holds: Term, defined: Term) -> None:
        self.reader = reader
        self.holds = holds
        self.defined = defined

    def __and__(self, other: Condition) -> Condition:
        return Condition(self.reader, both(self.holds, other.holds), both(self.defined, other.defined))

    def __or__(self, other: Condition) -> Condition:
        return Condition(self.reader, either(self.holds, other.holds), both(self.defined, other.defined))

    def __invert__(self) -> Condition:
        return Condition(self.reader, negation(self.holds), self.defined)

    def __bool__(self) -> bool:
        return self.reader.decide(self)


class Reader:
    """The namespace `xp` of a proof; it collects the definitions of its fresh symbols."""

    def __init__(self, mark: str = "#") -> None:
        self.definitions: list[Definition] = []
        self.lemmas: list[Term] = []  # claims of a formula about its own steps, to be proved
        self.logarithms: list[tuple[Term, Term]] = []  # an argument, and the symbol of log(1 + it)
        self._mark = mark  # the prefix of the names of fresh symbols
        self._fresh: dict[str, Term] = {}
        self.inf = Number(self, z3.RealVal(0), infinite=True)

    def decide(self, condition: Condition) -> bool:  # noqa: ARG002
        """Raise, since a condition may hold for some numbers and not for others."""
        raise TypeError("a formula must not branch in Python on its arguments; use xp.where")

    def real(self, name: str) -> Number:
        """Return a free real variable."""
        return Number(self, z3.Real(name))

    def number(self, value: Any) -> Number:
        """Return a literal as an exact rational: the simple fraction that rounds to it, if there is one."""
        if isinstance(value, Number):
            return value
        if value == float("inf"):
            return self.inf
        exact = Fraction(value)
        simple = exact.limit_denominator(1000)
        fraction = simple if float(simple) == float(value) else exact
        return Number(self, z3.RealVal(f"{fraction.numerator}/{fraction.denominator}"))

    asarray = number

    def __getattr__(self, name: str) -> Any:
        raise NotAlgebraicError(f"the function {name}")

    def abs(self, a: Number) -> Number:
        return Number(self, z3.If(a.term >= 0, a.term, -a.term), a.infinite, a.defined)

    def sign(self, a: Number) -> Number:
        one = z3.RealVal(1)
        return Number(self, z3.If(a.term > 0, one, z3.If(a.term < 0, -one, z3.RealVal(0))), False, a.is_finite)

    def maximum(self, a: Any, b: Any) -> Number:
        a, b = self.number(a), self.number(b)
        return self.where(a >= b, a, b)

    def minimum(self, a: Any, b: Any) -> Number:
        a, b = self.number(a), self.number(b)
        return self.where(a <= b, a, b)

    def where(self, condition: Condition, a: Any, b: Any) -> Number:
        """Return `a` where the condition holds and `b` elsewhere; the other one need not be defined there."""
        a, b = self.number(a), self.number(b)
        return Number(
            self,
            choice(condition.holds, a.term, b.term),
            choice(condition.holds, a.infinite, b.infinite),
            both(condition.defined, choice(condition.holds, a.defined, b.defined)),
        )

    def sqrt(self, a: Number) -> Number:
        """Return s >= 0 with s^2 = a, for a >= 0."""
        root = self.fresh("sqrt", a.term, lambda s: Definition(s, [s >= 0], a.term >= 0, s * s == a.term))
        return Number(self, root, False, both(a.is_finite, a.term >= 0))

    def cbrt(self, a: Number) -> Number:
        """Return s >= 0 with s^3 = a, for a >= 0."""
        root = self.fresh("cbrt", a.term, lambda s: Definition(s, [s >= 0], a.term >= 0, s * s * s == a.term))
        return Number(self, root, False, both(a.is_finite, a.term >= 0))

    def cos_third(self, a: Number) -> Number:
        """Return cos(arccos(a) / 3): the y of [1/2, 1] with 4 y^3 - 3 y = a, for a in [-1, 1]."""
        inside = z3.And(a.term >= -1, a.term <= 1)
        bounds = [z3.RealVal("1/2"), z3.RealVal(1)]

        def defining(y: Term) -> Definition:
            return Definition(y, [bounds[0] <= y, y <= bounds[1]], inside, 4 * y * y * y - 3 * y == a.term)

        return Number(self, self.fresh("cos_third", a.term, defining), False, both(a.is_finite, inside))

    def log1p(self, a: Number) -> Number:
        """Return a number for which only the sign is known, and that equal arguments give equal numbers."""

        def defining(y: Term) -> Definition:
            sign = z3.And(z3.Implies(a.term == 0, y == 0), z3.Implies(a.term > 0, y > 0))
            same = [z3.Implies(a.term == b, y == log) for b, log in self.logarithms]
            self.logarithms.append((a.term, y))
            return Definition(y, [sign, *same], z3.BoolVal(True), z3.BoolVal(True))

        return Number(self, self.fresh("log1p", a.term, defining), False, both(a.is_finite, a.term > -1))

    def lemma(self, a: Number, holds: Callable[[Number], Condition]) -> Number:
        """Return a number of which only the property is known; `lemmas` records the claim that `a` has it."""

        def defining(s: Term) -> Definition:
            claim = holds(a)
            self.lemmas.append(both(a.is_finite, both(claim.defined, claim.holds)))
            return Definition(s, [holds(Number(self, s)).holds], z3.BoolVal(True), z3.BoolVal(True))

        return Number(self, self.fresh("lemma", a.term, defining))

    def power(self, a: Number, b: Any) -> Number:
        """Return a to the power b, for a >= 0, where b is a literal with a small denominator."""
        if isinstance(b, Number):
            raise NotAlgebraicError("a power with a variable exponent")
        exponent = Fraction(b).limit_denominator(100)
        roots: dict[int, Callable[[Number], Number]] = {1: lambda a: a, 2: self.sqrt, 3: self.cbrt}
        if float(exponent) != float(b) or exponent.denominator not in roots or exponent <= 0:
            raise NotAlgebraicError(f"the power {b}")
        return roots[exponent.denominator](a) ** exponent.numerator

    def quotient(self, a: Term, b: Term) -> Term:
        """Return q with q b = a wherever b is not zero."""
        if z3.is_rational_value(b) and b.as_fraction() != 0:
            return a if b.as_fraction() == 1 else a / b
        return self.fresh(f"{a.sexpr()} over", b, lambda q: Definition(q, [], b != 0, q * b == a))

    def fresh(self, function: str, argument: Term, defining: Callable[[Term], Definition]) -> Term:
        """Return the symbol so defined; the same function of the same argument is the same symbol."""
        key = f"{function} {argument.sexpr()}"
        if key not in self._fresh:
            self._fresh[key] = z3.Real(f"{self._mark}{len(self._fresh)}")
            definition = defining(self._fresh[key])  # this may make symbols of its own, which come first
            self.definitions.append(definition)
        return self._fresh[key]


def both(a: Term, b: Term) -> Term:
    """Return a and b."""
    if a is False or b is False:
        return False
    return b if a is True else a if b is True else z3.And(a, b)


def either(a: Term, b: Term) -> Term:
    """Return a or b."""
    if a is True or b is True:
        return True
    return b if a is False else a if b is False else z3.Or(a, b)


def negation(a: Term) -> Term:
    """Return not a."""
    return (not a) if isinstance(a, bool) else z3.Not(a)


def choice(condition: Term, a: Term, b: Term) -> Term:
    """Return a where the condition holds and b elsewhere."""
    if isinstance(condition, bool):
        return a if condition else b
    if isinstance(a, bool) and isinstance(b, bool):
        return a if a == b else condition if a else z3.Not(condition)
    return z3.If(condition, a, b)
