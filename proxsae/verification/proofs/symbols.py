"""Parameters of a regularizer as symbols of a proof: which become one, what is assumed of them, and which are given."""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import SquaredL2
from proxsae.regularizers.cardinality import GroupCardinality, GroupL0
from proxsae.regularizers.groups import OfNorms
from proxsae.regularizers.partition import Grouped
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sorted_l1 import SortedL1
from proxsae.regularizers.translated import TranslatedNonSeparable
from proxsae.verification.proofs.any_scalar import AnyScalar
from proxsae.verification.proofs.arrays_z3 import PathReader
from proxsae.verification.proofs.formulas_z3 import Number

RADIAL = (OfNorms, GroupL0, GroupCardinality, SquaredL2)  # of norms and inner products of groups alone
ABSENT = {"ridge": "weight", "tilt": "slope"}  # a sum holds these at zero where it has none
FORM = ("k", "s", "groups", "group_weights")  # numbers that are of the form of R, and no parameters


def takes_norms_only(R: Regularizer) -> bool:
    """Whether only norms and inner products of groups are taken."""
    return all(isinstance(term, RADIAL) and np.ndim(term.weight) == 0 for term in R.terms)


def with_symbols(R: Regularizer, reader: PathReader, n: int, groups: Any = None, path: str = "") -> Regularizer:
    """Return R with a symbol in place of each parameter, and assume what is admissible."""
    groups = _groups(R, n) if groups is None else groups
    if isinstance(R, Separable):
        return _with_scalar_symbols(R, reader, n, path)
    twin = copy.copy(R)
    for name, parameter in _symbols(R, reader, n, groups, path).items():
        object.__setattr__(twin, name, parameter)
    return twin


def _with_scalar_symbols(R: Separable, reader: PathReader, n: int, path: str) -> Separable:
    """Return R with a symbol in place of each number, and n of them in place of an array."""

    def symbol(i: int, name: str, value: Any) -> Number:
        return reader.real(f"{path}{name}{f'[{i}]' if np.ndim(value) else ''}")

    for i in range(n):
        for condition, _ in R.map_parameters(partial(symbol, i)).conditions():
            reader.assume(condition)
    return R.map_parameters(
        lambda name, value: reader.asarray(
            [symbol(i, name, value) for i in range(n)] if np.ndim(value) else symbol(0, name, value)
        )
    )


def _groups(R: Regularizer, n: int) -> Any:
    """Return the groups read: each vector is one; of a selection the first two real entries are; else there is one."""
    if takes_norms_only(R):
        return 1
    is_selection = any(isinstance(term, GroupCardinality) for term in R.terms)
    return np.maximum(np.arange(n) - 1, 0) if is_selection else n


def _has_symbol(R: Regularizer, name: str) -> bool:
    """Whether a number becomes a symbol: of a class of one's own, it need not be what ours of that name are."""
    classes: dict[str, tuple[type, ...]] = {"weights": (SortedL1,), "center": (TranslatedNonSeparable,)}
    is_weight = name == "weight" and not R.is_indicator
    return is_weight or (name == "radius" and name in R.lengths) or isinstance(R, classes.get(name, ()))


def given_numbers(R: Regularizer) -> list[str]:
    """Return the names of the numbers that are read as they are, those of inner regularizers included."""
    given = []
    for name in (field.name for field in fields(R) if field.init):
        value = getattr(R, name)
        if isinstance(value, Regularizer):
            given += [] if isinstance(value, Separable) else [f"{name}.{inner}" for inner in given_numbers(value)]
        elif np.asarray(value).dtype.kind in "iuf" and name not in FORM and not _has_symbol(R, name):
            given.append(name)
    return given


def _symbols(R: Any, reader: PathReader, n: int, groups: Any, path: str) -> dict[str, Any]:
    symbols: dict[str, Any] = {}
    for name in (field.name for field in fields(R)):
        value = getattr(R, name)
        if isinstance(R, OfNorms) and name == "r" and reader.scalars is not None:
            symbols[name] = reader.scalars.setdefault(path, AnyScalar(reader, f"{path}r", R.r))
        elif isinstance(value, Regularizer):
            is_absent = name in ABSENT and not np.any(getattr(value, ABSENT[name]))
            symbols[name] = value if is_absent else with_symbols(value, reader, n, groups, f"{path}{name}.")
        elif name in ("weight", "radius") and _has_symbol(R, name):
            symbol = reader.real(path + name)
            reader.assume(symbol >= 0 if name == "weight" else symbol > 0)
            symbols[name] = reader.asarray(symbol)
        elif name == "weights" and _has_symbol(R, name):
            falling = reader.reals(path + name, n)
            for one, next_one in zip(falling, [*falling[1:], reader.number(0)], strict=True):
                reader.facts.append(one.term >= next_one.term)
            symbols[name] = falling
        elif name == "center" and _has_symbol(R, name):
            symbols[name] = reader.reals(path + name, n)
        elif name == "groups" and isinstance(R, Grouped):
            symbols[name] = groups
        elif name == "group_weights" and isinstance(R, Grouped):
            # The weight stands for the cost of a group where there is one.
            symbols[name] = None if isinstance(groups, int) and groups == n else _costs(reader, path + name, n)
    return symbols


def _costs(reader: PathReader, name: str, n: int) -> Array:
    costs = reader.reals(name, n)
    for cost in costs:
        reader.assume(cost >= 0)
    return costs
