"""A stand-in for a scalar regularizer of which only its theorem is known."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import z3

from proxsae.formulas.arrays import Array
from proxsae.regularizers.separable import Separable
from proxsae.verification.proofs.arrays_z3 import PathReader
from proxsae.verification.proofs.formulas_z3 import Definition, Number


class AnyScalar:
    """A stand-in for a scalar r of which only its theorem is known; each prox and each value is a separate symbol.

    Attributes
    ----------
    proxes : list of (u, t, p)
        p is the prox of t r at u >= 0.
    values : list of (z, r(z))
        At z >= 0.
    """

    def __init__(self, reader: PathReader, name: str, r: Separable) -> None:
        self.reader, self.name = reader, name
        self.is_indicator, self.is_convex = r.is_indicator, r.is_convex
        self.proxes: list[tuple[Any, Any, Any]] = []
        self.values: list[tuple[Any, Any]] = [(z3.RealVal(0), z3.RealVal(0))]

    def as_arrays(self, xp: Any) -> AnyScalar:  # noqa: ARG002
        """Return itself: there are no parameters."""
        return self

    def weighted_prox(self, xp: PathReader, u: Array, t: Array) -> Array:
        """Return the proxes at each u and t."""
        u, t = np.broadcast_arrays(u, t)
        return xp.asarray(
            [self._prox(one.term, step.term) for one, step in zip(u.ravel(), t.ravel(), strict=True)]
        ).reshape(u.shape)

    def weighted_value(self, xp: PathReader, z: Array) -> Array:
        """Return the values at each z."""
        return xp.asarray([self._value(one.term) for one in z.ravel()]).reshape(z.shape)

    def _prox(self, u: Any, t: Any) -> Number:
        u, t = z3.simplify(u), z3.simplify(t)
        p = self.reader.fresh(
            f"{self.name} prox {t.sexpr()}", u, lambda p: _free(p, p >= 0, z3.Implies(u == 0, p == 0))
        )
        if not any(p.eq(known) for _, _, known in self.proxes):
            self.proxes.append((u, t, p))
            self._value(p)
        return Number(self.reader, p)

    def _value(self, z: Any) -> Number:
        z = z3.simplify(z)
        for known, value in self.values:
            if known.eq(z):
                return Number(self.reader, value)
        self.values.append((z, self.reader.fresh(f"{self.name} value", z, _free)))
        return Number(self.reader, self.values[-1][1])

    def facts(self, other: AnyScalar) -> list[Any]:
        """Return the statements of the theorem about the proxes of this object and the values of the other."""
        value_of = {p.sexpr(): value for p, value in self.values}
        facts = []
        for u, t, p in self.proxes:
            best = p * p / 2 - p * u + t * value_of[p.sexpr()]
            facts.append(z3.Or(p == 0, best < 0))
            facts += [best <= z * z / 2 - z * u + t * value for z, value in other.values if not z.eq(p)]
        if other is self:  # r is a function
            facts += [z3.Implies(y == z, r_y == r_z) for (y, r_y), (z, r_z) in combinations(self.values, 2)]
        return facts


def _free(symbol: Any, *facts: Any) -> Definition:
    return Definition(symbol, list(facts), z3.BoolVal(True), z3.BoolVal(True))
