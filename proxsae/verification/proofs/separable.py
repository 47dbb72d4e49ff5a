"""The two formulas of one coordinate, proved for all real numbers and all parameters at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import z3

from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import WithCount
from proxsae.regularizers.translated import TranslatedSeparable
from proxsae.verification.proofs.decide import conjuncts, decide, is_possible
from proxsae.verification.proofs.formulas_z3 import Number, Reader, either, negation
from proxsae.verification.proofs.jets import Jet, Jets
from proxsae.verification.proofs.other_claims import FENCHEL, LEAST, claims_beside, numbers_beside
from proxsae.verification.proofs.theorem import NotProvedError, Theorem

OPTIMAL = "F(prox(u)) <= F(z)"
STEP = "step"
TIES = "the smaller support wins ties"
TRAIT = "r is "
DEFINED = "the value is defined everywhere"
BOUND = (
    "weight 0 times infinity: write a bound as a sum, as in L1() + Box(0.0, 1.0); an r that is 0 or infinite sets "
    "is_indicator"
)
ATTAINED = "r >= 0, so that F is least somewhere"  # wanted of a formula with a logarithm


@dataclass(frozen=True)
class Objective:
    """The prox problem of one coordinate, as symbols: F(v) = (v - u)^2 / 2 + t r(v)."""

    u: Number
    z: Number
    t: Number
    r: Separable
    claimed: Number
    value: Number
    value_of_claimed: Number
    assumptions: list[Any]
    shipped: Separable  # r with its numbers

    def parameters(self) -> dict[str, Number]:
        """Return the symbols of the parameters by the names that a counterexample gives them."""
        return {reported_name(name): symbol for name, symbol in self.r.parameters()}

    def at(self, v: Number, value: Number) -> Number:
        """Return F(v), given r(v)."""
        return (self.u - v) * (self.u - v) * 0.5 + self.t * value


def reported_name(name: str) -> str:
    """Return the name of a parameter that no other number of a counterexample has."""
    return f"r.{name}" if name in ("u", "z", "t", "v") else name


def scalar_theorem(R: Separable) -> Theorem:
    """Return the theorem about the two formulas of one coordinate: only the form of R matters, not its parameters.

    NotAlgebraicError where a formula calls a function that z3 cannot read.
    """
    reader = Reader()
    objective = read(R, reader)
    return Theorem(_statement(R), partial(prove_claims, objective, obligations(objective), reader))


def _statement(R: Separable) -> str:
    admissible = [sentence for _, sentence in R.conditions()]
    if any(isinstance(part, WithCount) for part in parts(R)):
        admissible.append("r(0) = 0 without the count")
    given = f" where {', '.join(dict.fromkeys(admissible))}" if admissible else ""
    ties = f"; {TIES}" if _prefers_zero(R) else ""
    return f"{OPTIMAL} for all real u, z and t > 0{given}{ties}"


def parts(R: Separable) -> Iterator[Separable]:
    """Yield a separable regularizer and all those it is made of."""
    yield R
    for field in fields(R):
        part = getattr(R, field.name)
        if isinstance(part, Separable):
            yield from parts(part)


def read(R: Separable, reader: Reader, *, has_weight: bool = True) -> Objective:
    """Run the shipped formulas of R on symbols; without a weight, it is one."""
    u, z, t = (reader.real(name) for name in ("u", "z", "t"))
    # A parameter may be named u, z or t too.
    r = R.map_parameters(
        lambda name, _: reader.real(f"r.{name}") if has_weight or name != "weight" else reader.number(1)
    )
    claimed = r.weighted_prox(reader, u, t)
    assumptions = [t.term > 0]
    for holds, _ in r.conditions():
        assumptions += [holds.holds, holds.defined]
    for part in parts(r):
        if isinstance(part, WithCount):  # the condition under which the rule may be used
            free = part.inner.weighted_value(reader, reader.number(0))
            assumptions += [free.is_finite, free.term == 0]
    value, value_of_claimed = r.weighted_value(reader, z), r.weighted_value(reader, claimed)
    return Objective(u, z, t, r, claimed, value, value_of_claimed, assumptions, R)


def _prefers_zero(R: Separable) -> bool:
    """Whether zero wins ties: a translated regularizer prefers its centre."""
    return not any(isinstance(part, TranslatedSeparable) for part in parts(R))


def obligations(objective: Objective) -> dict[str, Any]:
    """Return the claims to prove, in words and as z3 formulas."""
    p, t = objective.claimed, objective.t
    zero = t.reader.number(0)
    value_at_zero = objective.r.weighted_value(t.reader, zero)
    best = objective.at(p, objective.value_of_claimed).term
    better_than_zero = either(value_at_zero.infinite, best < objective.at(zero, value_at_zero).term)
    claims = {
        **{f"{STEP} {i} of the formula": lemma for i, lemma in enumerate(t.reader.lemmas, start=1)},
        "the prox is a real number": p.is_finite,
        DEFINED: objective.value.defined,
        "the prox is in the domain": objective.value_of_claimed.is_finite,
        OPTIMAL: either(objective.value.infinite, best <= objective.at(objective.z, objective.value).term),
    }
    if t.reader.logarithms:
        claims[ATTAINED] = either(objective.value.infinite, objective.value.term >= 0)
        claims[OPTIMAL] = either(negation(may_be_least(objective)), claims[OPTIMAL])
    if _prefers_zero(objective.r):
        claims[TIES] = either(p.term == 0, better_than_zero)
    return claims | claims_beside(objective)


def may_be_least(objective: Objective) -> Any:
    """Return the conditions on every minimiser z of F, which exists: they suffice where r has a logarithm.

    The reader of jets takes a formula of r only if it is continuous on a closed domain. As r >= 0, F is least
    somewhere; and there, but for the edges of its pieces and where it has no slopes, the first slope is 0, the second
    is not negative, and the third is 0 where the second is.
    """
    reader = objective.t.reader
    once = Jets(reader)
    one, zero = reader.number(1), reader.number(0)

    def constant(number: Any) -> Jet:
        return Jet(Jet(Jet(number, zero), Jet(zero, zero)), Jet(Jet(zero, zero), Jet(zero, zero)))

    z = Jet(Jet(Jet(objective.z, one), Jet(one, zero)), Jet(Jet(one, zero), Jet(zero, zero)))
    r = objective.r.map_parameters(lambda _, parameter: constant(parameter))
    away = z - constant(objective.u)
    F = away * away * 0.5 + constant(objective.t) * r.weighted_value(Jets(Jets(once)), z)
    slopes = [F.slope.value.value, F.slope.slope.value, F.slope.slope.slope]
    first, second, third = (slope.term for slope in slopes)
    edges = [edge.term == 0 for edge in once.edges]
    is_flat = z3.And(first == 0, second >= 0, z3.Implies(second == 0, third == 0))
    return z3.Or(*edges, z3.Implies(z3.And(*(slope.is_finite for slope in slopes)), is_flat))


def prove_claims(objective: Objective, claims: dict[str, Any], reader: Reader, deadline: float) -> None:
    """Prove the claims one after another."""
    given = [*objective.assumptions]
    if not is_possible([*given, objective.value.is_finite], reader.definitions, deadline):
        raise NotProvedError
    for words, claim in claims.items():
        for part in conjuncts(claim):
            result, model = decide([z3.Not(part), *given], reader.definitions, deadline)
            if result == z3.sat:
                numbers = _numbers(objective, words, model)
                if _may_be_told_too_little(objective.r, words, numbers, reader):
                    raise NotProvedError
                raise NotProvedError({"fails": words, **numbers})
            if result == z3.unknown:
                raise NotProvedError
            if words.startswith(STEP):
                given.append(part)


def _may_be_told_too_little(r: Separable, fails: str, numbers: dict[str, Any], reader: Reader) -> bool:
    """Whether a model may be spurious: the prover knows little of lemmas and next to nothing of logarithms."""
    if fails == ATTAINED:
        return True
    if fails in (DEFINED, FENCHEL, LEAST) or fails.startswith(TRAIT):
        return bool(reader.logarithms or reader.lemmas)
    if reader.logarithms and not _is_worse(r, numbers):
        return True
    return bool(reader.lemmas) and not fails.startswith(STEP) and not _is_what_runs(r, numbers)


def _is_what_runs(r: Separable, numbers: dict[str, Any]) -> bool:
    """Whether the claimed z of a model is the result of the formula."""
    r = r.map_parameters(lambda name, _: numbers[reported_name(name)])
    shipped = r.prox_unchecked(np.array([numbers["u"]]), numbers["t"])
    return bool(np.isclose(shipped[0], numbers["claimed z"], rtol=1e-6, atol=1e-9))


def _is_worse(r: Separable, numbers: dict[str, Any]) -> bool:
    """Whether the better z of a model is better by the formulas that run."""
    r = r.map_parameters(lambda name, _: numbers[reported_name(name)])
    z = np.array([[r.prox_unchecked(np.array([numbers["u"]]), numbers["t"])[0]], [numbers["better z"]]])
    claimed, better = 0.5 * ((z - numbers["u"]) ** 2).sum(-1) + numbers["t"] * r.value(z)
    return bool(better < claimed - 1e-9 * (1.0 + abs(claimed)))


def as_float(model: Any, number: Number) -> float:
    """Return the number of a model as a float, NaN where the formula is undefined."""
    defined, infinite = (
        x if isinstance(x, bool) else z3.is_true(model.eval(x, model_completion=True))
        for x in (number.defined, number.infinite)
    )
    if not defined or infinite:
        return math.inf if defined else math.nan
    value = model.eval(number.term, model_completion=True)
    return float((value.approx(20) if z3.is_algebraic_value(value) else value).as_fraction())


def _numbers(objective: Objective, fails: str, model: Any) -> dict[str, Any]:
    o = objective
    if fails == DEFINED:
        return _numbers_undefined(o, model)
    if fails in (FENCHEL, LEAST):
        return {name: as_float(model, number) for name, number in numbers_beside(o, fails).items()}
    if fails.startswith(TRAIT):
        numbers = {name: as_float(model, number) for name, number in {"z": o.z, **o.parameters()}.items()}
        r = o.shipped.map_parameters(lambda name, _: numbers[reported_name(name)])
        z = np.array([numbers["z"]])  # the model may not know the roots in r(-z)
        return {**numbers, "r(z)": float(r.value(z)), "r(-z)": float(r.value(-z))}
    better = o.t.reader.number(0) if fails == TIES else o.z
    symbols = {
        "u": o.u,
        "t": o.t,
        **o.parameters(),
        "claimed z": o.claimed,
        "better z": better,
        "claimed objective": o.at(o.claimed, o.value_of_claimed),
        "better objective": o.at(better, o.r.weighted_value(o.t.reader, better)),
    }
    return {name: as_float(model, number) for name, number in symbols.items()}


def _numbers_undefined(o: Objective, model: Any) -> dict[str, Any]:
    """Return the numbers at which the value is undefined, and the reason if it is a weight of 0 times infinity."""
    numbers: dict[str, Any] = {name: as_float(model, x) for name, x in {"z": o.z, **o.parameters()}.items()}
    if numbers.get("weight") == 0 and as_float(model, o.r.value_of(o.t.reader, o.z)) == math.inf:
        numbers["because"] = BOUND
    return numbers
