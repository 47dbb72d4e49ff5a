"""Is the shipped formula a prox, for all real numbers at once? z3 reads the formula and proves it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.entmax import Entmax
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import WithCount
from proxsae.regularizers.translated import TranslatedSeparable

if TYPE_CHECKING:
    from proxsae.verification.proofs.formulas_z3 import Number, Reader

OPTIMAL = "F(prox(u)) <= F(z)"
STEP = "step"
TIES = "the smaller support wins ties"
Verdict = Literal["proved", "bounded", "counterexample", "unknown", "not algebraic"]


@dataclass(frozen=True)
class Proof:
    """What was proved of a regularizer, or the numbers that refute it.

    Attributes
    ----------
    regularizer : str
        The regularizer as typed; its parameters are replaced by variables in the theorem.
    theorem : str
        The statement.
    verdict : {"proved", "bounded", "counterexample", "unknown", "not algebraic"}
        "bounded": proved up to an error of epsilon on a box, by intervals, where the formula is transcendental.
        "unknown": the prover ran out of time. "not algebraic": the formula calls a function that neither polynomial
        arithmetic nor the interval bound reads.
    seconds : float
        Time taken.
    counterexample : dict or None
        u, t, the parameters, the claimed z, a better z and both objectives, as floats, and under "fails" the part of
        the theorem that does not hold.
    epsilon : float or None
        The error allowed, where the theorem is an interval bound.
    """

    regularizer: str
    theorem: str
    verdict: Verdict
    seconds: float
    counterexample: dict[str, Any] | None = None
    epsilon: float | None = None

    def __str__(self) -> str:
        text = f"{self.regularizer}: {self.verdict} in {self.seconds:.2f} s: {self.theorem}"
        return text if self.counterexample is None else f"{text}\n  {self.counterexample}"


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

    def at(self, v: Number, value: Number) -> Number:
        """Return F(v), given r(v)."""
        return (self.u - v) * (self.u - v) * 0.5 + self.t * value


def prove(R: Regularizer, *, timeout: float = 60.0) -> Proof:
    r"""Prove that the shipped prox of R minimises, for all real u, z, all t > 0 and all admissible parameters at once.

    With p the formula that runs and :math:`F(v) = \frac12 (v - u)^2 + t\,r(v)`, read as exact real arithmetic:

    1. p is defined (no division by zero, no root of a negative number) and r is finite there;
    2. F(p) <= F(z) for every z with r(z) finite;
    3. F(p) < F(0) unless p = 0: at a threshold the smaller support wins.

    As every parameter is a variable, weights of one value a coordinate are covered too. For :class:`Cardinality` with a
    partner, the partner is proved, then the gain rule: see
    :func:`proxsae.verification.proofs.gain_rule.prove_selection`. Of regularizers of groups and whole codes the array
    code is read, for groups of every size where only their norms count and for short codes elsewhere, as the theorem
    says: see :func:`proxsae.verification.proofs.nonseparable.prove_joint`.
    Where a formula is transcendental, point 2 is bounded instead, on a box and with the parameters given: see
    :func:`proxsae.verification.boxes.theorems.bound_separable`.

    Parameters
    ----------
    R : Regularizer
        Only its form matters, not the values of its parameters.
    timeout : float, default 60
        Seconds after which the verdict is "unknown".

    Returns
    -------
    Proof

    Raises
    ------
    ImportError
        Without z3: ``pip install "proxsae[prove]"``.
    TypeError
        If R is not a regularizer.
    """
    if not isinstance(R, Regularizer):
        raise TypeError(f"prove takes a regularizer, got {type(R).__name__}")
    try:
        import z3  # noqa: F401
    except ImportError:
        raise ImportError('proofs need z3: pip install "proxsae[prove]"') from None
    if isinstance(R, Cardinality):
        from proxsae.verification.proofs.gain_rule import prove_selection

        return prove_selection(R, timeout)
    if isinstance(R, Separable):
        return _prove_separable(R, timeout)
    if isinstance(R, Entmax):
        from proxsae.verification.boxes.theorems import bound_entmax, bound_in_time

        return bound_in_time(bound_entmax, R, timeout)
    from proxsae.verification.proofs.nonseparable import prove_joint

    return prove_joint(R, timeout)


def _prove_separable(R: Separable, timeout: float) -> Proof:
    from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError, Reader

    start = time.monotonic()
    theorem = _statement(R)
    try:
        reader = Reader()
        objective = read(R, reader)
    except NotAlgebraicError as reason:
        return _bounded(R, timeout) or Proof(
            repr(R), f"{theorem} ({reason} is not algebraic)", "not algebraic", time.monotonic() - start
        )
    verdict, counterexample = settle(objective, obligations(objective), reader, start + timeout)
    if verdict == "unknown" and not R.is_algebraic:  # powers, which may be too high for the prover
        return _bounded(R, timeout) or Proof(repr(R), theorem, verdict, time.monotonic() - start)
    return Proof(repr(R), theorem, verdict, time.monotonic() - start, counterexample)


def _bounded(R: Separable, timeout: float) -> Proof | None:
    from proxsae.verification.boxes.paths import UnreadableError
    from proxsae.verification.boxes.theorems import bound_in_time, bound_separable

    try:
        return bound_in_time(bound_separable, R, timeout)
    except UnreadableError:
        return None


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


def read(R: Separable, reader: Reader) -> Objective:
    """Run the shipped formulas of R on symbols."""
    u, z, t = (reader.real(name) for name in ("u", "z", "t"))
    r = R.map_parameters(lambda name, _: reader.real(name))
    claimed = r.weighted_prox(reader, u, t)
    assumptions = [t.term > 0]
    for holds, _ in r.conditions():
        assumptions += [holds.holds, holds.defined]
    for part in parts(r):
        if isinstance(part, WithCount):  # the condition under which the rule may be used
            free = part.inner.weighted_value(reader, reader.number(0))
            assumptions += [free.is_finite, free.term == 0]
    return Objective(u, z, t, r, claimed, r.weighted_value(reader, z), r.weighted_value(reader, claimed), assumptions)


def _prefers_zero(R: Separable) -> bool:
    """Whether zero wins ties: a translated regularizer prefers its centre."""
    return not any(isinstance(part, TranslatedSeparable) for part in parts(R))


def obligations(objective: Objective) -> dict[str, Any]:
    """Return what has to hold, in words and as a z3 formula."""
    from proxsae.verification.proofs.formulas_z3 import either

    p, t = objective.claimed, objective.t
    zero = t.reader.number(0)
    value_at_zero = objective.r.weighted_value(t.reader, zero)
    best = objective.at(p, objective.value_of_claimed).term
    better_than_zero = either(value_at_zero.infinite, best < objective.at(zero, value_at_zero).term)
    claims = {
        **{f"{STEP} {i} of the formula": lemma for i, lemma in enumerate(t.reader.lemmas, start=1)},
        "the prox is a real number": p.is_finite,
        "the value is defined everywhere": objective.value.defined,
        "the prox is in the domain": objective.value_of_claimed.is_finite,
        OPTIMAL: either(objective.value.infinite, best <= objective.at(objective.z, objective.value).term),
    }
    if _prefers_zero(objective.r):
        claims[TIES] = either(p.term == 0, better_than_zero)
    return claims


def settle(
    objective: Objective, claims: dict[str, Any], reader: Reader, deadline: float
) -> tuple[Verdict, dict[str, Any] | None]:
    """Prove the claims one after another."""
    import z3

    from proxsae.verification.proofs.decide import conjuncts, decide

    given = [*objective.assumptions]
    # Assumptions that contradict each other would prove anything.
    possible, _ = decide([*given, objective.value.is_finite], reader.definitions, deadline)
    if possible != z3.sat:
        return "unknown", None
    for words, claim in claims.items():
        for part in conjuncts(claim):
            result, model = decide([z3.Not(part), *given], reader.definitions, deadline)
            if result == z3.sat:
                numbers = _numbers(objective, words, model)
                if reader.lemmas and not words.startswith(STEP) and not _is_what_runs(objective.r, numbers):
                    return "unknown", None  # the steps say too little
                return "counterexample", {"fails": words, **numbers}
            if result == z3.unknown:
                return "unknown", None
            if words.startswith(STEP):
                given.append(part)
    return "proved", None


def _is_what_runs(r: Separable, numbers: dict[str, Any]) -> bool:
    """Whether the claimed z of a model is what the formula gives."""
    shipped = r.map_parameters(lambda name, _: numbers[name]).prox_unchecked(np.array([numbers["u"]]), numbers["t"])
    return bool(np.isclose(shipped[0], numbers["claimed z"], rtol=1e-6, atol=1e-9))


def as_float(model: Any, number: Number) -> float:
    """Return the number of a model as a float."""
    import z3

    infinite = number.infinite
    if infinite is True or (infinite is not False and z3.is_true(model.eval(infinite, model_completion=True))):
        return math.inf
    value = model.eval(number.term, model_completion=True)
    return float((value.approx(20) if z3.is_algebraic_value(value) else value).as_fraction())


def _numbers(objective: Objective, fails: str, model: Any) -> dict[str, Any]:
    o = objective
    better = o.t.reader.number(0) if fails == TIES else o.z
    numbers = {
        "u": o.u,
        "t": o.t,
        **dict(o.r.parameters()),
        "claimed z": o.claimed,
        "better z": better,
        "claimed objective": o.at(o.claimed, o.value_of_claimed),
        "better objective": o.at(better, o.r.weighted_value(o.t.reader, better)),
    }
    return {name: as_float(model, number) for name, number in numbers.items()}
