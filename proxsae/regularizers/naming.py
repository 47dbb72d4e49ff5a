"""Regularizers by name and by text: ``get("abstopk", k=32)``, ``parse("0.1*L1 + NonNegative")``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from proxsae.regularizers.asymmetric import AsymmetricL0, Tilt, gated
from proxsae.regularizers.balls import L2Ball, LInfBall
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L0, L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.blocks import Blocks
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.concave import CEL0, MCP, SCAD, CappedL1
from proxsae.regularizers.entmax import Entmax
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.regularizers.group_selection import GroupCardinality, GroupL0
from proxsae.regularizers.groups import GroupL2
from proxsae.regularizers.huber import Huber
from proxsae.regularizers.k_support import KSupport, KSupportNorm, L1MinusL2
from proxsae.regularizers.log_tanh import LogSum, Tanh
from proxsae.regularizers.numeric import Numeric
from proxsae.regularizers.powers import Lq
from proxsae.regularizers.simplex import L1Ball, LInf, Simplex
from proxsae.regularizers.sorted_l1 import SortedL1, SumOfKLargest
from proxsae.regularizers.translated import Translated
from proxsae.regularizers.tree import TreeGroups

CLASSES: dict[str, type[Regularizer]] = {
    cls.__name__: cls
    for cls in (
        *(Zero, L1, L0, SquaredL2, NonNegative, Box, Cardinality),
        *(MCP, SCAD, CappedL1, CEL0, Lq, LogSum, Tanh, Huber, Tilt, AsymmetricL0),
        *(GroupL2, GroupL0, GroupCardinality, TreeGroups),
        *(Simplex, L1Ball, L2Ball, LInfBall, LInf, SortedL1, SumOfKLargest, KSupport, KSupportNorm, L1MinusL2),
        *(Entmax, Blocks),
    )
}

# What a text may call: the catalogue, and what is made of a regularizer or a function given beside the text.
BUILDERS: dict[str, Callable[..., Regularizer]] = {
    **CLASSES,
    "Translated": Translated,
    "Numeric": Numeric,
    "FromCvxpy": FromCvxpy,
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


def parse(text: str, **arrays: Any) -> Regularizer:
    """Return the regularizer that `text` spells; ``parse(repr(R)) == R`` for scalar parameters.

    Parameters
    ----------
    text : str
        A sum of weighted terms: ``"0.1*L1 + NonNegative"``, ``"Cardinality(32)"``, ``"w*L0"``. Brackets without
        arguments may be left out. Only numbers, lists, names, calls, + and * are read; nothing is evaluated.
    **arrays
        Arrays for the names in the text that are not regularizers.

    Raises
    ------
    ValueError
        If the text is not of this form, or a name is unknown.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"cannot read the regularizer {text!r}: {error.msg}") from None
    parsed = _read(tree.body, text, arrays)
    if not isinstance(parsed, Regularizer):
        raise ValueError(f"{text!r} is not a regularizer, it is {type(parsed).__name__}")
    return parsed


def _read(node: ast.expr, text: str, arrays: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=entries) | ast.Tuple(elts=entries):
            return [_read(entry, text, arrays) for entry in entries]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _read(left, text, arrays) + _read(right, text, arrays)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _read(left, text, arrays) * _read(right, text, arrays)
        case ast.Name(id=name) if name in arrays:
            return arrays[name]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name not in BUILDERS:
            raise ValueError(f"unknown regularizer {name!r} in {text!r}; known are {', '.join(BUILDERS)}")
        case ast.Name(id=name):
            return _build(name, [], {}, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            named = {k.arg: _read(k.value, text, arrays) for k in keywords if k.arg}
            return _build(name, [_read(a, text, arrays) for a in args], named, text)
    raise ValueError(f"cannot read {ast.unparse(node)!r} in the regularizer {text!r}")


def _build(name: str, args: list[Any], named: dict[str, Any], text: str) -> Regularizer:
    try:
        return BUILDERS[name](*args, **named)
    except TypeError as error:
        raise ValueError(f"{name} in {text!r}: {error}") from None
