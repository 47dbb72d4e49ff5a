"""The enclosing reader of a formula: every box takes one path through the conditions at a time.

Where a box does not decide a condition, the formula is read with the condition true, and what remains to be read with
it false is noted. On a path the decision is a fact: it clips the numbers that were compared, and it keeps, of the box,
the half-plane in which it may hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, Equation
from proxsae.verification.boxes import intervals
from proxsae.verification.boxes.conditions import Both, Choice, Comparison, Condition, Negation
from proxsae.verification.boxes.enclosures import NONE, Enclosure, chosen, enclosed
from proxsae.verification.boxes.zeros import zero_from


class UnreadableError(Exception):
    """A formula calls a function that has no enclosure."""


@dataclass
class PathReader:
    """The namespace `xp` of a bound.

    Attributes
    ----------
    keys : dict
        The expressions met so far, shared by the readings of one formula.
    forced : dict
        By key of a condition, what each box is to take where it does not decide: 1 true, -1 false, 0 true and noted.
    noted : dict
        By key of a condition, the boxes for which it is still to be read as false.
    facts : list
        Pairs of a sign and an enclosure: on the path the product is not negative; the sign is 0 where nothing is known.
    impossible : array
        The boxes that have no such path.
    """

    keys: dict[tuple[Any, ...], int]
    forced: dict[int, Array] = field(default_factory=dict)
    noted: dict[int, Array] = field(default_factory=dict)
    facts: dict[int, tuple[Array, Enclosure]] = field(default_factory=dict)
    impossible: Array = field(default_factory=lambda: np.zeros((), bool))
    forks: bool = True
    axes: int = 2  # of u, t and the one that is asked about
    settled: dict[int, str] = field(default_factory=dict)
    choices: dict[int, Choice] = field(default_factory=dict)
    signs: dict[int, int] = field(default_factory=dict)
    factors: dict[int, tuple[int, ...]] = field(default_factory=dict)

    inf = math.inf
    lemma = staticmethod(ArrayNamespace.lemma)

    def key(self, *expression: Any) -> int:
        """Return the number of an expression."""
        key = self.keys.setdefault(expression, len(self.keys))
        if expression[0] == "negative":
            self.signs[key] = expression[1]
        return key

    def without_sign(self, key: int) -> int:
        """Return the key of x for that of -x."""
        return self.signs.get(key, key)

    def product_key(self, a: int, b: int) -> int:
        """Return the key of a product, whatever the order in which it was multiplied."""
        one = self.key("number", 1.0)
        factors = [f for key in (a, b) for f in self.factors.get(key, (key,)) if f != one]
        key = self.key("product", *sorted(factors)) if len(factors) > 1 else (*factors, one)[0]
        self.factors[key] = tuple(factors)
        return key

    def number(self, value: Any) -> Enclosure:
        """Return a literal, which is the float that it is."""
        if isinstance(value, Enclosure):
            return value
        end = np.asarray(float(value))
        finite = np.isfinite(end)
        center, rest = np.where(finite, end, 0.0), np.where(finite, 0.0, math.inf)
        return Enclosure(self, self.key("number", float(value)), end, end, center, (), rest)

    asarray = number

    def variable(self, axis: int, center: Array, radius: Array, name: str) -> Enclosure:
        """Return center + radius x_axis."""
        ends = intervals.outward(center - radius, center + radius)
        slopes = (*(NONE for _ in range(axis)), radius)
        low, high = (np.where(radius == 0, center, end) for end in ends)
        return Enclosure(self, self.key("variable", name), low, high, center, slopes, np.zeros(()))

    def __getattr__(self, name: str) -> Any:
        raise UnreadableError(f"the function {name}")

    # --- functions -----------------------------------------------------------------------------------------------

    def abs(self, a: Any) -> Enclosure:
        """Return the modulus."""
        return self.number(a).abs()

    def sign(self, a: Enclosure) -> Enclosure:
        """Return -1, 0 or 1."""
        return self.where(a > 0, 1.0, self.where(a < 0, -1.0, 0.0))

    def maximum(self, a: Any, b: Any) -> Enclosure:
        """Return the larger of the two: b + max(a - b, 0), across the kink by the chord."""
        a, b = self.number(a), self.number(b)
        excess = a - b
        key = self.key("maximum", *sorted((a.key, b.key)))
        settled = self._settled(key, excess.low >= 0, excess.high <= 0, a, b)
        if settled is not None:
            return settled
        bent = b + 0.5 * (excess + excess.abs())
        result = chosen(key, excess.low >= 0, a, chosen(key, excess.high <= 0, b, bent))
        ends = np.maximum(a.low, b.low), np.maximum(a.high, b.high)
        return enclosed(self, key, _narrowed(result, *ends), result.center, result.slopes, result.rest)

    def minimum(self, a: Any, b: Any) -> Enclosure:
        """Return the smaller of the two."""
        return -self.maximum(-self.number(a), -self.number(b))

    def sqrt(self, a: Any) -> Enclosure:
        """Return the square root."""
        x = self.number(a)
        root = np.sqrt(0.5 * (x.low + x.high))
        bends = [-0.25 / (end * np.sqrt(end)) for end in x.range]
        result = x.smooth(self.key("sqrt", x.key), intervals.sqrt(x.range), root, 0.5 / root, bends)
        return self._apart(result if x.apart is False else replace(result, apart=x.is_apart))

    def cbrt(self, a: Any) -> Enclosure:
        """Return the cube root."""
        x = self.number(a)
        root = np.cbrt(0.5 * (x.low + x.high))
        bends = [-2.0 / 9.0 / np.cbrt(end) ** 5 for end in x.range]
        return x.smooth(self.key("cbrt", x.key), intervals.cbrt(x.range), root, 1.0 / (3.0 * root * root), bends)

    def power(self, a: Any, b: float) -> Enclosure:
        """Return a to the power of a number."""
        x = self.number(a)
        m = 0.5 * (x.low + x.high)
        # A power of 1 by name: its bend is 0, and 0 times the infinite power of 0 would not be.
        bends = [b * (b - 1.0) * np.power(end, b - 2.0) if b != 1.0 else 0.0 * end for end in x.range]
        slope = b * np.power(m, b - 1.0)
        return x.smooth(self.key("power", x.key, b), intervals.power(x.range, b), np.power(m, b), slope, bends)

    def log1p(self, a: Any) -> Enclosure:
        """Return log(1 + a)."""
        x = self.number(a)
        m = 0.5 * (x.low + x.high)
        bends = [-1.0 / (1.0 + end) ** 2 for end in x.range]
        return x.smooth(self.key("log1p", x.key), intervals.log1p(x.range), np.log1p(m), 1.0 / (1.0 + m), bends)

    def tanh(self, a: Any) -> Enclosure:
        """Return the hyperbolic tangent."""
        x = self.number(a)
        height = np.tanh(0.5 * (x.low + x.high))
        # f'' = 2 h^3 - 2 h with h = tanh is steepest at h = 1/sqrt(3): least and largest there or at the ends.
        heights = [np.tanh(x.low), np.tanh(x.high)]
        heights += [np.clip(turn, *heights) for turn in (-1.0 / math.sqrt(3.0), 1.0 / math.sqrt(3.0))]
        bends = [2.0 * h * (h * h - 1.0) for h in heights]
        spare = 1e-15 * np.ones(())  # near tanh = 1 the bend loses its digits
        bends = [np.minimum.reduce(bends) - spare, np.maximum.reduce(bends) + spare]
        slope = 1.0 - height * height
        return x.smooth(self.key("tanh", x.key), intervals.tanh(x.range), height, slope, bends)

    def root(self, equation: Equation, start: Any, low: Any, high: Any, steps: int) -> Enclosure:  # noqa: ARG002
        """Return the exact zero that Newton's method from `start` goes for, see :func:`zero_from`."""
        with self.without_forks():
            zero = zero_from(self, equation, self.number(start), self.number(low), self.number(high))
        return self._apart(zero)

    def _apart(self, a: Enclosure) -> Enclosure:
        """Return a number that is known less well than others with a variable of its own, for its errors to cancel."""
        if not self.forks:
            return a
        self.axes += 1
        return a.as_variable(self.axes)

    # --- conditions ----------------------------------------------------------------------------------------------

    def compare(self, left: Enclosure, right: Enclosure) -> Comparison:
        """Return the condition left > right."""
        return Comparison(left, right, left - right)

    def undecided(self, condition: Condition) -> Array:
        """Return where a condition is open on this path."""
        holds, fails, _ = self._decided(condition)
        return ~(holds | fails)

    def where(self, condition: Condition, a: Any, b: Any) -> Enclosure:
        """Return `a` where the condition holds and `b` elsewhere."""
        a, b = self.number(a), self.number(b)
        holds, fails, undefined = self._decided(condition)
        key = self.key("where", self._key_of(condition), a.key, b.key)
        a, b = self._clipped(a, condition, True), self._clipped(b, condition, False)
        settled = self._settled(key, holds, fails, a, b)
        choice = Choice(condition, a, b, self.choices.get(b.key))
        if settled is not None and not undefined.any():
            self.choices[settled.key] = choice
            return settled
        self.choices[key] = choice
        one = chosen(key, holds, a, b)
        unknown = undefined | ~(holds | fails)
        if not unknown.any():
            if self.forks:
                self.impossible = self.impossible | (one.low > one.high)
            return one
        low, high = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
        low, high = np.where(unknown, low, one.low), np.where(unknown, high, one.high)
        ends = np.where(undefined, math.nan, low), np.where(undefined, math.nan, high)
        return enclosed(self, key, ends, one.center, one.slopes, np.where(unknown, math.inf, one.rest))

    def _settled(self, key: int, first: Array, second: Array, a: Enclosure, b: Enclosure) -> Enclosure | None:
        """Return the branch that all boxes take, if they do: then it is that number, with its key.

        Some of the boxes must not find keys other than all had, or what was noted for them is lost: a choice that once
        was open stays open on the readings that follow.
        """
        found = "first" if first.all() else "second" if second.all() else ""
        if self.settled.setdefault(key, found) != found:
            self.settled[key] = ""
        return {"first": a, "second": b, "": None}[self.settled[key]]

    def _key_of(self, condition: Condition) -> int:
        if isinstance(condition, Comparison):
            return self.key("exceeds", condition.left.key, condition.right.key)
        if isinstance(condition, Negation):
            return self.key("not", self._key_of(condition.inner))
        assert isinstance(condition, Both)
        return self.key("both", self._key_of(condition.one), self._key_of(condition.two))

    def _decided(self, condition: Condition) -> tuple[Array, Array, Array]:
        """Return where the condition holds, where it fails and where it may be undefined, on this path."""
        if isinstance(condition, Negation):
            holds, fails, undefined = self._decided(condition.inner)
            return fails, holds, undefined
        if isinstance(condition, Both):
            one, two = self._decided(condition.one), self._decided(condition.two)
            return one[0] & two[0], one[1] | two[1], one[2] | two[2]
        assert isinstance(condition, Comparison)
        excess = condition.excess
        holds, fails = (excess.low > 0) | ((excess.low >= 0) & excess.is_apart), excess.high <= 0
        undefined = np.isnan(excess.low) | np.isnan(excess.high)
        key = self._key_of(condition)
        open_ = ~(holds | fails | undefined)
        forced = self.forced.get(key, np.zeros((), np.int8))
        if self.forks:
            self.impossible = self.impossible | ((forced > 0) & fails) | ((forced < 0) & holds)
        if not open_.any() or not (self.forks or key in self.facts):
            return holds, fails, undefined
        if key not in self.facts:
            self.noted[key] = open_ & (forced == 0)
            self.facts[key] = (np.where(open_, np.where(forced < 0, -1.0, 1.0), 0.0), excess)
        sign = self.facts[key][0]
        return holds | (sign > 0), fails | (sign < 0), undefined

    def _clipped(self, a: Enclosure, condition: Condition, truth: bool) -> Enclosure:
        """Return `a` with what the condition says about it."""
        while isinstance(condition, Negation):
            condition, truth = condition.inner, not truth
        if not isinstance(condition, Comparison) or a.key not in (condition.left.key, condition.right.key):
            return a
        left, right = condition.left, condition.right
        at_least = truth == (a.key == left.key)  # a > right, or left <= a
        other = right if a.key == left.key else left
        low = np.maximum(a.low, other.low) if at_least else a.low
        high = a.high if at_least else np.minimum(a.high, other.high)
        # An honest `>` also keeps what is larger off 0.
        apart = at_least & truth & (other.low >= 0)
        clipped = enclosed(self, a.key, (low, high), a.center, a.slopes, a.rest)
        return replace(clipped, apart=apart | a.is_apart)

    @contextmanager
    def without_forks(self) -> Iterator[None]:
        """Read on without noting conditions: an open one gives both of its branches."""
        before, self.forks = self.forks, False
        try:
            yield
        finally:
            self.forks = before


def _narrowed(a: Enclosure, low: Array, high: Array) -> intervals.Interval:
    return np.maximum(a.low, low), np.minimum(a.high, high)
