"""The Numba reader of a formula: its operations on symbols are written as scalar code and compiled."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

from proxsae.formulas.arrays import ArrayNamespace, Equation, newton
from proxsae.formulas.integers import is_count

_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "truediv": "/"}
_CONDITIONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|"}


class Symbol:
    """A variable of a program being written; an operation on it appends a line and returns a new variable."""

    __slots__ = ("name", "program")

    def __init__(self, name: str, program: list[str]) -> None:
        self.name = name
        self.program = program

    def assign(self, expression: str) -> Symbol:
        """Append a line and return its result."""
        name = f"v{len(self.program)}"
        self.program.append(f"{name} = {expression}")
        return Symbol(name, self.program)

    def __neg__(self) -> Symbol:
        return self.assign(f"-{self.name}")

    def __invert__(self) -> Symbol:
        return self.assign(f"not {self.name}")

    def __pow__(self, exponent: int) -> Symbol:
        if not is_count(exponent):
            raise TypeError(f"a formula takes powers by integers >= 1, got {exponent}; others are xp.power")
        return functools.reduce(operator.mul, [self] * exponent)

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch in Python on its arguments; use xp.where")

    __hash__ = None  # type: ignore[assignment]


def _text(operand: Any) -> str:
    return operand.name if isinstance(operand, Symbol) else f"number({float(operand)!r})"


def _infix(sign: str, *, reflected: bool) -> Callable[[Symbol, Any], Symbol]:
    def operate(self: Symbol, other: Any) -> Symbol:
        left, right = (_text(other), self.name) if reflected else (self.name, _text(other))
        return self.assign(f"{left} {sign} {right}")

    return operate


for _name, _sign in (_ARITHMETIC | _CONDITIONS).items():
    setattr(Symbol, f"__{_name}__", _infix(_sign, reflected=False))
for _name, _sign in _ARITHMETIC.items():
    setattr(Symbol, f"__r{_name}__", _infix(_sign, reflected=True))


def _line(text: str) -> Any:
    """Return the function that appends this line, with its arguments in place of the braces."""

    def called(*operands: Any) -> Symbol:
        symbol = next((operand for operand in operands if isinstance(operand, Symbol)), None)
        if symbol is None:
            raise TypeError("a function of numbers alone is no part of a formula: compute it by math")
        return symbol.assign(text.format(*map(_text, operands)))

    return staticmethod(called)


class SymbolNamespace:
    """The functions a formula may call, as lines of scalar code."""

    inf = math.inf

    abs = _line("abs({})")
    sign = _line("number(({0} > 0) - ({0} < 0))")
    sqrt = _line("math.sqrt({})")
    power = _line("number(math.pow({}, {}))")
    cbrt = _line(f"number(math.pow({{}}, number({1.0 / 3.0!r})))")
    cos_third = _line("number(math.cos(math.acos({}) / number(3.0)))")
    log1p = _line("number(math.log1p({}))")
    tanh = _line("number(math.tanh({}))")
    maximum = _line("{0} if {0} >= {1} else {1}")
    minimum = _line("{0} if {0} <= {1} else {1}")
    where = _line("{1} if {0} else {2}")
    lemma = ArrayNamespace.lemma

    @classmethod
    def root(cls, equation: Equation, start: Symbol, low: Any, high: Any, steps: int) -> Symbol:
        """Return the root of an equation by the steps of :func:`newton`, written as a loop."""
        program = start.program
        z = start.assign(f"number({start.name})")
        program.append(f"for _ in range({steps}):")
        first = len(program)
        program.append(f"{z.name} = {newton(cls, equation, z, low, high, steps=1).name}")
        program[first:] = [f"    {line}" for line in program[first:]]
        return z

    @staticmethod
    def called(*_: Any) -> Symbol:
        """Refuse: a function of NumPy arrays is no formula."""
        raise TypeError("Numeric has no formula to compile; a solver that calls R.prox takes it, as fista does")

    tabulated = called


def compiled(r: Any, formula: Literal["prox", "value"] = "prox", dtype: str = "float64") -> Any:
    """Return the scalar formula of `r` as a Numba function, for loops that cannot call arrays.

    Parameters
    ----------
    r : Separable
        Its scalar parameters are arguments, not constants of the code, so that two regularizers of the same form share
        one compiled function. Per-coordinate parameters are passed coordinate by coordinate.
    formula : {"prox", "value"}
        ``prox(u, t, parameters)`` or ``value(z, parameters)``, with `parameters` a tuple in the order of
        ``r.parameters()``.
    dtype : {"float32", "float64"}
        The dtype of every operation; it rounds as the array formula does, but for powers above 2.
    """
    return _compile(*_written(r, formula), dtype)


def _written(r: Any, formula: str) -> tuple[tuple[str, ...], str]:
    """Run the formula on symbols and return the arguments and the body of the scalar function."""
    program: list[str] = []
    names = [name for name, _ in r.parameters()]
    symbolic = r.map_parameters(lambda name, _: Symbol(f"p[{names.index(name)}]", program))
    first = Symbol("u" if formula == "prox" else "z", program)
    if formula == "prox":
        result = symbolic.weighted_prox(SymbolNamespace, first, Symbol("t", program))
    else:
        result = symbolic.weighted_value(SymbolNamespace, first)
    arguments = ("u", "t", "p") if formula == "prox" else ("z", "p")
    return arguments, "\n    ".join([*program, f"return {_text(result)} + number(0.0)"])


@functools.lru_cache(maxsize=256)  # a function for each value of a parameter that formulas hold as a number
def _compile(arguments: tuple[str, ...], body: str, dtype: str) -> Any:
    import numba

    scope: dict[str, Any] = {"math": math, "inf": math.inf, "number": getattr(numba, dtype)}
    # The text is what our own formulas wrote down: operators and numbers, no name from outside.
    exec(f"def scalar({', '.join(arguments)}):\n    {body}\n", scope)  # noqa: S102
    return numba.njit(scope["scalar"], error_model="numpy")
