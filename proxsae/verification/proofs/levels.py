"""The code of a tree of groups, read with a stand-in for each level: the calls, their arguments and their order.

The levels are those of the given tree. The results of the stand-ins are arbitrary numbers; z3 proves that the prox is
the chain of their proxes and the value the sum of their values. The groups of each level are then looked up.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import z3

from proxsae.formulas.arrays import Array
from proxsae.regularizers.groups import GroupL2
from proxsae.regularizers.tree import TreeGroups
from proxsae.verification.proofs.arrays_z3 import PathReader, paths
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.formulas_z3 import Number
from proxsae.verification.proofs.groups import check_groups


@dataclass(frozen=True)
class Called:
    """A call of a level of a tree: its arguments, and the symbols that stand for its result."""

    level: GroupL2
    given: Array
    t: Array | None
    result: Array


class LevelRead:
    """A stand-in for a level of a tree; its prox and its value are arbitrary numbers, and its calls are recorded."""

    def __init__(self, level: GroupL2, calls: list[Called]) -> None:
        self.level, self.calls = level, calls

    def prox_of(self, xp: PathReader, U: Array, t: Array) -> Array:
        return self._noted(U, t, xp.reals(f"level{len(self.calls)} ", U.size).reshape(U.shape))

    def value_of(self, xp: PathReader, Z: Array) -> Array:
        return self._noted(Z, None, xp.reals(f"value{len(self.calls)} ", len(Z)))

    def _noted(self, given: Array, t: Array | None, result: Array) -> Array:
        self.calls.append(Called(self.level, given, t, result))
        return result


def goes_from_the_leaves(R: TreeGroups, n: int, deadline: float) -> bool:
    """Whether the prox takes those of the given groups, each after those inside of it, and the value sums theirs."""
    given = Counter(
        (frozenset(group), cost) for group, cost in zip(R.groups, R.group_weights or (), strict=True) if cost
    )
    for reader, (equal, proxes, values) in paths(partial(_read, R, n)):
        if decide([z3.Not(equal), *reader.facts], reader.definitions, deadline)[0] != z3.unsat:
            return False
        for call in (*proxes, *values):
            if type(call.level) is not GroupL2:  # the theorem is about GroupL2
                return False
            check_groups(call.level)
        shrunk = _groups_of(proxes)
        is_inner_first = not any(first > second for (first, _), (second, _) in combinations(shrunk, 2))
        if not (is_inner_first and Counter(shrunk) == Counter(_groups_of(values)) == given):
            return False
    return True


def _read(R: TreeGroups, n: int, reader: Any) -> tuple[Any, list[Called], list[Called]]:
    """Return that the prox is the chain of the calls of its levels, and the value the sum of its calls, and the calls.

    The levels are those that the code makes for codes of n coordinates.
    """
    u, z, t, weight = (reader.reals(f"{name} ", size)[None] for name, size in (("u", n), ("z", n), ("t", 1), ("w", 1)))
    proxes: list[Called] = []
    values: list[Called] = []
    p = _with_levels_read(R, weight[0, 0], proxes).prox_on(reader, u, t)
    value = _with_levels_read(R, weight[0, 0], values).value_on(reader, z)
    chain = [u, *(call.result for call in proxes)]
    total = sum((call.result for call in values), reader.asarray([0]))
    pairs = [(p, chain[-1]), (value, total * weight[0])]
    for call, before in zip(proxes, chain[:-1], strict=True):
        pairs += [(call.given, before), (call.t, t * weight)]
    pairs += [(call.given, z) for call in values]
    return z3.And([_equal(reader, one, two) for one, two in pairs]), proxes, values


def _equal(reader: PathReader, one: Any, two: Array) -> Any:
    """Return that two arrays are of one shape and hold the same real numbers."""
    one = reader.asarray(one)
    if one.shape != two.shape:
        return z3.BoolVal(False)
    same = [x == y for x, y in zip(one.ravel(), two.ravel(), strict=True)]
    return z3.And([z3.And(condition.holds, condition.defined) for condition in same])


def _with_levels_read(R: TreeGroups, weight: Number, calls: list[Called]) -> TreeGroups:
    """Return R with levels that note how they are called."""

    def levels(_: Any, n_components: int) -> list[LevelRead]:
        return [LevelRead(level, calls) for level in R._levels(n_components)]

    twin = copy.copy(R)
    object.__setattr__(twin, "__class__", type(type(R).__name__, (type(R),), {"_levels": levels}, named=False))
    object.__setattr__(twin, "weight", weight)
    return twin


def _groups_of(calls: list[Called]) -> list[tuple[frozenset[int], float]]:
    """Return the groups that cost something, with their costs, in the order of the calls."""
    return [
        (frozenset(np.flatnonzero(call.level.groups == label).tolist()), float(cost))
        for call in calls
        for label, cost in enumerate(call.level.group_weights)
        if cost
    ]
