"""Shipped array code read as exact mathematics, path by path.

A prox of whole codes sorts, selects and pools: its code branches on the data. Run on arrays of symbols, every
comparison asks the reader for an answer. The reader follows one answer that the facts so far allow, and another run
follows the other. The result of a path is a plain term, and the paths together cover all real inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import z3

from proxsae.formulas.arrays import Array, ArrayNamespace, ExactArray
from proxsae.verification.proofs.decide import is_refuted
from proxsae.verification.proofs.formulas_z3 import Condition, NotAlgebraicError, Number, Reader
from proxsae.verification.proofs.theorem import NotProvedError

T = TypeVar("T")


class UnreadableError(Exception):
    """Raised where array code uses an operation that arrays of symbols do not have."""


class PathReader(Reader):
    """The namespace `xp` of one path: arrays of symbols, with every condition decided.

    Parameters
    ----------
    answers : list of bool
        The answers to the first questions; later ones are answered as the facts require, else with yes.
    mark : str
        The prefix of the names of fresh symbols.

    Attributes
    ----------
    facts : list
        The conditions on the symbols by the answers.
    obligations : list
        The conditions under which the comparisons are defined.
    scalars : dict or None
        The stand-ins for scalar regularizers by their place, where such are asked for.
    branches : list of list of bool
        The answers that lead to the paths that branch off this one.
    """

    def __init__(self, answers: list[bool], mark: str) -> None:
        super().__init__(mark)
        self.facts: list[Any] = []
        self.obligations: list[Any] = []
        self.branches: list[list[bool]] = []
        self.scalars: dict[str, Any] | None = None
        self._given = answers
        self._answers: list[bool] = []
        self._known: dict[str, bool] = {}

    def decide(self, condition: Condition) -> bool:
        """Return the answer to a condition on this path."""
        if condition.defined is not True:
            self.obligations.append(condition.defined)
        holds = condition.holds
        question = z3.simplify(z3.BoolVal(holds) if isinstance(holds, bool) else holds)
        if z3.is_true(question) or z3.is_false(question):
            return bool(z3.is_true(question))
        key = question.sexpr()
        if key not in self._known:
            self._known[key] = self._answer(question)
        return self._known[key]

    def _answer(self, question: Any) -> bool:
        place = len(self._answers)
        if place < len(self._given):
            answer = self._given[place]
        elif is_refuted([*self.facts, question], self.definitions):
            answer = False
        else:
            answer = True
            if not is_refuted([*self.facts, z3.Not(question)], self.definitions):
                self.branches.append([*self._answers, False])
        self._answers.append(answer)
        self.facts.append(question if answer else z3.Not(question))
        return answer

    def assume(self, condition: Condition) -> None:
        """Take a condition for granted."""
        self.facts.append(condition.holds)

    def reals(self, name: str, n: int) -> Array:
        """Return n free real variables as an array."""
        return self.asarray([self.real(f"{name}{i}") for i in range(n)])

    # Steps need no help here: a path has no pieces.
    lemma = staticmethod(ArrayNamespace.lemma)

    def vectors(self, name: str, n: int) -> Array:
        """Return an array of n free vectors, each in a separate space of any dimension."""
        entries = [Vector(self, {f"{name}{i}": self.number(1)}) for i in range(n)]
        self.facts += [(entry * entry).term >= 0 for entry in entries]
        return self.asarray(entries)

    def magnitudes(self, Z: Array, parts: Any) -> Array:
        """Return 1 for each group: exact numbers have no range to leave."""
        return self.asarray(np.ones(parts.sums(np.zeros(Z.shape)).shape))

    def in_order(self, squares: Array, scale: Array) -> Array:
        """Return the squares themselves, which is the same order."""
        return squares * scale * scale

    def rounds_alike(self, a: Array, b: Array) -> Array:
        """Return False: rounded numbers may take a short cut here, exact numbers take the formula."""
        return np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=bool)

    # --- the functions of a formula, on arrays ------------------------------------------------------------------------

    def asarray(self, value: Any) -> Array:
        """Return an array of exact numbers."""
        value = np.asarray(value, dtype=object)
        numbers = np.empty(value.shape, dtype=object)
        for index in np.ndindex(value.shape):
            numbers[index] = self.number(value[index])
        return numbers.view(ExactArray)

    def abs(self, a: Any) -> Any:
        return np.abs(a) if isinstance(a, np.ndarray) else (a if a >= 0 else -a)

    def sign(self, a: Array) -> Array:
        """Return -1, 0 or 1; of a vector, whether it is not zero."""
        return self.asarray(np.sign(np.where(_is_vector(a), a * a, a)))

    def sqrt(self, a: Any) -> Any:
        return self._each(super().sqrt, a)

    def cbrt(self, a: Any) -> Any:
        return self._each(super().cbrt, a)

    def cos_third(self, a: Any) -> Any:  # noqa: ARG002
        """Raise, since z3 does not settle paths with roots of a cubic."""
        raise NotAlgebraicError("the function cos_third, on arrays,")

    def log1p(self, a: Any) -> Any:  # noqa: ARG002
        """Raise, since the sign of a logarithm is too little for paths."""
        raise NotAlgebraicError("the function log1p")

    def power(self, a: Any, b: Any) -> Any:
        return self._each(lambda x: super(PathReader, self).power(x, b), a)

    def _each(self, function: Callable[[Number], Number], a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return function(self.number(a))
        results = np.empty(a.shape, dtype=object)
        for index in np.ndindex(a.shape):
            results[index] = function(self.number(a[index]))
        return results.view(ExactArray)

    def maximum(self, a: Any, b: Any) -> Array:
        return np.maximum(self.asarray(a), self.asarray(b))

    def minimum(self, a: Any, b: Any) -> Array:
        return np.minimum(self.asarray(a), self.asarray(b))

    def where(self, condition: Any, a: Any, b: Any) -> Array:
        chosen: Any = np.where(np.asarray(condition, dtype=bool), self.asarray(a), self.asarray(b))
        return chosen.view(ExactArray)


class Vector(Number):
    """A linear combination of free vectors of an inner product space; the product of two is their inner product.

    A group of coordinates of which only norms and inner products are taken can be any vector: read so, a theorem holds
    for groups of every size. (As a subclass it is asked first what a number times a vector is.)
    """

    __slots__ = ("parts",)

    def __init__(self, reader: Reader, parts: dict[str, Number]) -> None:
        self.reader = reader
        self.parts = parts

    @property
    def is_zero(self) -> bool:
        """Whether this is written as the zero vector."""
        return all(_is_zero(part) for part in self.parts.values())

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Vector):  # a zero may be written 0 z
            if self.is_zero:
                return other
            if not _is_zero(self.reader.number(other)):
                raise TypeError("a number was added to a vector")
            return self
        zero = self.reader.number(0)
        names = [*self.parts, *(name for name in other.parts if name not in self.parts)]
        return Vector(self.reader, {n: self.parts.get(n, zero) + other.parts.get(n, zero) for n in names})

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, Vector):
            return Vector(self.reader, {name: part * other for name, part in self.parts.items()})
        products = [
            mine * theirs * self.reader.real(inner_product(one, two))
            for one, mine in self.parts.items()
            for two, theirs in other.parts.items()
        ]
        return sum(products[1:], products[0])

    def __truediv__(self, other: Any) -> Vector:
        return Vector(self.reader, {name: part / other for name, part in self.parts.items()})

    def __neg__(self) -> Vector:
        return Vector(self.reader, {name: -part for name, part in self.parts.items()})

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def _is_zero(number: Number) -> bool:
    return bool(z3.is_true(z3.simplify(number.term == 0)))


def inner_product(one: str, two: str) -> str:
    """Return the name of the inner product of two free vectors, the same in both orders."""
    return f"<{min(one, two)},{max(one, two)}>"


@np.vectorize(otypes=[bool])
def _is_vector(entry: Any) -> bool:
    return isinstance(entry, Vector)


def paths(run: Callable[[PathReader], T], mark: str = "#") -> Iterator[tuple[PathReader, T]]:
    """Yield every path through a computation: its reader, which knows its facts, and its result.

    Parameters
    ----------
    run : callable
        A function of the reader of the path; it is called again for each path, and must do the same each time.
    mark : str
        The prefix of the names of fresh symbols; two computations in one formula need different prefixes.
    """
    pending: list[list[bool]] = [[]]
    while pending:
        reader = PathReader(pending.pop(), mark)
        try:
            result = run(reader)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnreadableError(str(error)) from error
        pending += reader.branches
        yield reader, result


def in_time(results: Iterator[tuple[PathReader, Any]], deadline: float) -> Iterator[Any]:
    """Yield the results of paths; NotProvedError after the deadline."""
    for _, result in results:
        if time.process_time() > deadline:
            raise NotProvedError
        yield result
