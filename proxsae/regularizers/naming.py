"""Regularizers by name and by text: ``get("abstopk", k=32)``, ``parse("0.1*L1 + NonNegative")``."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from proxsae.regularizers.asymmetric import AsymmetricL0, gated
from proxsae.regularizers.base import CLASSES, Regularizer, combine
from proxsae.regularizers.basic import L0, L1, LInfBall, NonNegative, SquaredL2
from proxsae.regularizers.cardinality import Cardinality, GroupCardinality
from proxsae.regularizers.concave import CEL0, MCP
from proxsae.regularizers.entmax import Entmax
from proxsae.regularizers.simplex import Simplex
from proxsae.regularizers.translated import Translated

MOST_CHARACTERS = 1_000_000  # most characters of a text
MOST = 10**18  # largest integer; larger ones become floats
MOST_TERMS = 100  # most terms of a sum; each is compared with every other

# What a text may call besides the classes.
BUILDERS: dict[str, Callable[..., Regularizer]] = {
    "CEL0": CEL0,
    "LInfBall": LInfBall,
    "Translated": Translated,
    "Rescaled": lambda inner, scale: inner.in_units(scale),
}

# The names the field uses for an activation, and the regularizer whose prox it is.
ACTIVATIONS: dict[str, Callable[..., Regularizer]] = {
    "relu": lambda lam: lam * L1() + NonNegative(),
    "jumprelu": lambda lam: lam * L0() + NonNegative(),
    "topk": lambda k: NonNegative() + Cardinality(k),
    "abstopk": lambda k: Cardinality(k),
    "batchtopk": lambda k: NonNegative() + Cardinality(k, "batch"),
    "batchabstopk": lambda k: Cardinality(k, "batch"),
    "soft": lambda lam: lam * L1(),
    "hard": lambda lam: lam * L0(),
    "elasticnet": lambda lam, ridge: lam * L1() + ridge * SquaredL2(),
    "softtopk": lambda lam, k: lam * L1() + Cardinality(k),
    "sparsemax": lambda: Simplex(),
    "entmax": lambda alpha: Entmax(alpha),
    "grouptopk": lambda s, groups: NonNegative() + GroupCardinality(s, groups),
    "firm": lambda lam, mu: lam * MCP(mu),
    "jumprelu2": lambda positive, negative: AsymmetricL0(0.5 * positive**2, 0.5 * negative**2),
    "gated": gated,
}


def get(name: str, **parameters: Any) -> Regularizer:
    """Return the regularizer whose prox is the named activation.

    Parameters
    ----------
    name : str
        One of ``ACTIVATIONS``: "relu", "jumprelu", "topk", "abstopk", "batchtopk", "batchabstopk", "soft", "hard",
        "elasticnet", "softtopk", "firm", "jumprelu2" (two-sided), "gated" (tied weights), "sparsemax",
        "entmax", "grouptopk".
    **parameters
        ``lam`` (weight), ``k`` (non-zeros a sample), ``ridge``, ``mu`` (upper knot), ``positive`` and ``negative``
        (thresholds), ``threshold`` and ``shift``, ``alpha``, ``s`` and ``groups``, as the name needs.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If the parameters are not those the name needs.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    needed = list(inspect.signature(ACTIVATIONS[name]).parameters)
    if set(parameters) != set(needed):
        raise TypeError(f"{name!r} takes {', '.join(needed)}; got {', '.join(parameters) or 'nothing'}")
    return ACTIVATIONS[name](**parameters)


def catalogue() -> dict[str, type[Regularizer]]:
    """Return the classes of the library that are formulas, by name."""
    written_by_the_user = ("Numeric", "FromCvxpy")
    ours = {name: cls for name, homes in CLASSES.items() for home, cls in homes.items() if home.startswith("proxsae.")}
    return {name: cls for name, cls in ours.items() if name not in written_by_the_user}


def parse(text: str, **arrays: Any) -> Regularizer:
    """Return the regularizer that `text` spells; ``parse(repr(R)) == R`` for scalar parameters.

    Parameters
    ----------
    text : str
        A sum of weighted terms: ``"0.1*L1 + NonNegative"``, ``"Cardinality(32)"``, ``"w*L0"``. Brackets without
        arguments may be left out. Numbers, strings, lists, names of classes, calls, + and * are read, within limits of
        length and depth; nothing is evaluated, so that the text may come from a stranger's file. A class of your own
        has a name once it is defined.
    **arrays
        The arrays for which other names in the text stand.

    Raises
    ------
    ValueError
        If the text is not such a sum, names no class or a name that several classes have, or has no exact prox.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a regularizer's text has at most {MOST_CHARACTERS:,} characters, got {len(text):,}")
    parsed = _Reader(text, arrays).whole()
    if not isinstance(parsed, Regularizer):
        raise ValueError(f"{_short(text)} is not a regularizer, it is {type(parsed).__name__}")
    return parsed


def checked_spelling(R: Regularizer) -> tuple[str, dict[str, Any]]:
    """Return the text of R and the arrays that it names, for a file, after a check that they give R again.

    Raises
    ------
    TypeError
        If R holds a Python function.
    ValueError
        If ``parse(text, **arrays)`` is not R again.
    """
    arrays: dict[str, Any] = {}
    text = R.spelled(arrays)
    if any(callable(array) for array in arrays.values()):
        raise TypeError(f"{R} holds a Python function, which a file cannot: only formulas can be saved")
    try:
        again = parse(text, **arrays)
    except ValueError as error:
        raise ValueError(f"{R} cannot be saved: {error}") from error
    if again != R:
        raise ValueError(f"{R} cannot be saved: its text reads as {again}")
    return text, arrays


def builder_of(name: str, text: str) -> Callable[..., Regularizer]:
    """Return the class or function that a name in a text stands for.

    Raises
    ------
    ValueError
        If the name is unknown, or belongs to several classes.
    """
    homes: dict[str, Callable[..., Regularizer]] = {**CLASSES.get(name, {})}
    if name in BUILDERS:
        homes[BUILDERS[name].__module__] = BUILDERS[name]
    if len(homes) > 1:
        raise ValueError(f"the name {name!r} belongs to classes of {' and of '.join(homes)}: rename one")
    if not homes:
        known = sorted([*CLASSES, *BUILDERS])
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"unknown regularizer {name!r} in {_short(text)}{hint}; known are {', '.join(known)}, and what you define "
            "or import"
        )
    return next(iter(homes.values()))


class _Reader:
    """A text as Python's parser sees it, and the values of its nodes."""

    def __init__(self, text: str, arrays: dict[str, Any]) -> None:
        self.text = text
        self.arrays = arrays

    def whole(self) -> Any:
        try:
            return self.read(ast.parse(" ".join(self.text.split()), mode="eval").body)
        except SyntaxError as error:
            raise ValueError(f"cannot read the regularizer {_short(self.text)}: {error.msg}") from None
        except OverflowError:
            raise ValueError(f"a number in the regularizer {_short(self.text)} is beyond the range of floats") from None
        except (MemoryError, RecursionError):
            raise ValueError(f"the regularizer {_short(self.text)} is nested too deep") from None

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() | float() | str() as value):
                return float(value) if isinstance(value, int) and value > MOST else value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.List(elts=entries) | ast.Tuple(elts=entries):
                return [self.read(entry) for entry in entries]
            case ast.Name(id=name) if name in self.arrays:
                return self.arrays[name]
            case ast.Name(id=name):
                return self.built(name, builder_of(name, self.text))
            case ast.Call(func=ast.Name(id=name)):
                build = builder_of(name, self.text)
                by_name = {keyword.arg: self.read(keyword.value) for keyword in node.keywords if keyword.arg}
                if len(by_name) == len(node.keywords):
                    return self.built(name, partial(build, *map(self.read, node.args), **by_name))
            case ast.BinOp(op=ast.Add()):
                return self.sum(_operands(node, ast.Add))
            case ast.BinOp(op=ast.Mult()):
                return self.product(_operands(node, ast.Mult))
        raise ValueError(f"cannot read the regularizer {_short(self.text)} at {_short(ast.unparse(node))}")

    def sum(self, nodes: list[ast.expr]) -> Any:
        if len(nodes) > MOST_TERMS:
            raise ValueError(f"a sum has at most {MOST_TERMS} terms, and {_short(self.text)} has more")
        terms = [self.read(node) for node in nodes]
        for term in terms:
            if not isinstance(term, Regularizer):
                raise ValueError(f"only regularizers add, and {_short(self.text)} adds {type(term).__name__}")
        return self.built("the sum", lambda: combine([part for term in terms for part in term.terms]))

    def product(self, nodes: list[ast.expr]) -> Any:
        factors = [self.read(node) for node in nodes]
        regularizers = [factor for factor in factors if isinstance(factor, Regularizer)]
        weights = [factor for factor in factors if not isinstance(factor, Regularizer)]
        if len(regularizers) != 1 or any(isinstance(weight, str) for weight in weights):
            raise ValueError(f"a product is of one regularizer and its weights; {_short(self.text)} has another")
        total = regularizers[0]
        for weight in weights:
            total = self.built("the weight", partial(total.scaled, weight))
        return total

    def built(self, what: str, build: Callable[[], Any]) -> Any:
        """Return the result of a function of the text, whose errors become one sentence."""
        try:
            return build()
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
            sentence = " ".join(str(error).split()).removeprefix(f"{what}: ")
            raise ValueError(f"{what} in {_short(self.text)}: {sentence}") from None


def _operands(node: ast.expr, operation: type) -> list[ast.expr]:
    """Return a, b and c of ``a + b + c``."""
    operands = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, operation):
        operands.append(node.right)
        node = node.left
    return [node, *reversed(operands)]


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
