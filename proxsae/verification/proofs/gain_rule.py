"""The gain rule, proved: which coordinates a cardinality constraint keeps, for any number of coordinates.

For a support S the best objective is const - sum_{i in S} g_i, where g_i >= 0 is the gain of coordinate i. The proof
has three parts: the partner's scalar prox is optimal and its gain is what freeing the coordinate saves (z3 reads the
shipped formulas); exchanging a kept coordinate for one of larger gain never hurts, so that the k largest gains are
optimal; and where the code ranks by abs(u) or max(u, 0) instead, that is the order of the gains. That the code does
keep the k largest is in `selection`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import z3

from proxsae.regularizers.cardinality import Cardinality
from proxsae.verification.proofs.formulas_z3 import Reader, both, either
from proxsae.verification.proofs.selection import COMPETING, prove_selection
from proxsae.verification.proofs.separable import TRAIT, Objective, obligations, prove_claims, read
from proxsae.verification.proofs.theorem import Theorem, prove_lemmas


def gain_rule(R: Cardinality) -> Theorem:
    """Return the theorem that keeping the k largest gains is a prox, for every number of coordinates and every k.

    For any separable partner, at either scope: batch scope is sample scope on the whole matrix.
    """
    reader = Reader()
    objective = read(R.partner, reader)
    claims = {**obligations(objective), **_claims_of_the_gain(R, objective)}
    at_zero = objective.r.weighted_value(reader, reader.number(0))
    objective.assumptions.extend([at_zero.is_finite, at_zero.term == 0])  # the condition of the rule: r(0) = 0

    def prove(deadline: float) -> None:
        prove_claims(objective, claims, reader, deadline)
        prove_lemmas(exchange_lemma() + even_ranking_lemma() + positive_ranking_lemma(), deadline)
        prove_selection(R, deadline)

    rank = {1.0: "max(u, 0)", -1.0: "abs(u)", None: "gains"}[R.rank_sign(np.ones(()))]
    statement = f"keeping the k largest {rank} and applying the scalar prox is optimal for all n, k, u and t > 0; "
    statement += f"the code keeps them for k = {R.k} in every order, with ties, of {COMPETING} around the last place"
    return Theorem(statement, prove)


def _claims_of_the_gain(R: Cardinality, objective: Objective) -> dict[str, Any]:
    o, reader = objective, objective.t.reader
    gain = o.r.gain_of(reader, o.u, o.t)
    saved = o.u * o.u * 0.5 - o.at(o.claimed, o.value_of_claimed)
    claims = {"the gain is what a free z saves": both(gain.is_finite, both(gain.term == saved.term, gain.term >= 0))}
    sign = R.rank_sign(np.ones(()))
    if sign is None:
        return claims
    claims[f"{TRAIT}never negative"] = either(o.value.infinite, o.value.term >= 0)
    if sign == 1.0:
        claims[f"{TRAIT}infinite below zero"] = either(o.z.term >= 0, o.value.infinite)
    else:
        mirrored = o.r.weighted_value(reader, -o.z)
        even = either(z3.And(o.value.infinite, mirrored.infinite), o.value.term == mirrored.term)
        same_domain = o.value.infinite == mirrored.infinite
        values = zip(o.r.parameters(), R.partner.parameters(), strict=True)
        given = [symbol.term == reader.number(float(value)).term for (_, symbol), (_, value) in values]
        # Evenness may be a matter of the numbers, as for the box [-c, c]: it is claimed for those given.
        claims[f"{TRAIT}even for these parameters"] = z3.Implies(z3.And(given), both(even, same_domain))
    return claims


def exchange_lemma() -> list[list[Any]]:
    """Refute: swapping a kept coordinate for one of larger gain, or adding one of gain >= 0, raises the objective."""
    rest, kept, other = z3.Reals("rest kept other")
    swapped = [kept <= other, rest - other > rest - kept]
    added = [other >= 0, rest - other > rest]
    return [swapped, added]


def even_ranking_lemma() -> list[list[Any]]:
    """Refute: abs(u) <= abs(v), and yet the gain at u exceeds the gain at v, for an even r >= 0.

    With p optimal at u and r = r(p): gain(u) = p u - p^2/2 - t r, and the candidates p and -p bound gain(v) below. At
    u = 0 no gain is positive, so that nothing is lost by never keeping a zero.
    """
    u, v, p, cost, gain_of_v = z3.Reals("u v p cost gain_of_v")
    gain_of_u = p * u - p * p / 2 - cost
    known = [
        z3.If(u >= 0, u, -u) <= z3.If(v >= 0, v, -v),
        cost >= 0,
        gain_of_v >= p * v - p * p / 2 - cost,
        gain_of_v >= -p * v - p * p / 2 - cost,
    ]
    return [[*known, gain_of_u > gain_of_v], [cost >= 0, u == 0, gain_of_u > 0]]


def positive_ranking_lemma() -> list[list[Any]]:
    """Refute: max(u, 0) <= max(v, 0), and yet the gain at u exceeds the gain at v, for r >= 0 on z >= 0 only."""
    u, v, p, cost, gain_of_v = z3.Reals("u v p cost gain_of_v")
    gain_of_u = p * u - p * p / 2 - cost
    known = [
        z3.If(u >= 0, u, 0) <= z3.If(v >= 0, v, 0),
        cost >= 0,
        p >= 0,
        gain_of_v >= 0,
        gain_of_v >= p * v - p * p / 2 - cost,
    ]
    return [[*known, gain_of_u > gain_of_v], [cost >= 0, p >= 0, u <= 0, gain_of_u > 0]]
