"""z3 reads the shipped formulas and proves them; it refutes each formula once a mutation makes it wrong."""

from __future__ import annotations

from collections import Counter
from operator import eq, le, lt
from random import Random
from typing import Any

import numpy as np
import pytest
import z3

from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    SCAD,
    AsymmetricL0,
    Box,
    CappedL1,
    Cardinality,
    GroupCardinality,
    Huber,
    LogSum,
    Lq,
    NonNegative,
    SquaredL2,
    Tanh,
    Tilt,
    Translated,
    Zero,
    gated,
)
from proxsae.regularizers.separable import Separable
from proxsae.verification import prove
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.gain_rule import (
    even_ranking_lemma,
    exchange_lemma,
    positive_ranking_lemma,
)
from proxsae.verification.proofs.theorem import NotProvedError, prove_lemmas

FAR = float("inf")

PROVED = [
    Zero(),
    L1(),
    L0(),
    SquaredL2(),
    NonNegative(),
    Box(-1.0, 2.0),
    L1() + NonNegative(),
    L0() + NonNegative(),
    SquaredL2() + NonNegative(),
    L1() + SquaredL2(),
    L1() + SquaredL2() + NonNegative(),
    L0() + SquaredL2(),
    L0() + SquaredL2() + NonNegative(),
    L1() + L0(),
    L1() + L0() + NonNegative(),
    L1() + L0() + SquaredL2(),
    L1() + Box(-1.0, 2.0),
    L0() + Box(-1.0, 2.0),
    SquaredL2() + Box(-1.0, 2.0),
    L1() + L0() + SquaredL2() + Box(-1.0, 2.0),
    np.array([0.1, 0.2]) * L1() + NonNegative(),
    MCP(),
    MCP() + NonNegative(),
    MCP() + SquaredL2(),
    SCAD() + NonNegative(),
    CappedL1(),
    Huber(),
    Huber() + L0(),
    Lq(0.5),
    pytest.param(Lq(2 / 3), marks=pytest.mark.soak),
    Tilt(-0.3) + L1(),
    AsymmetricL0(0.2, 0.4),
    Translated(L0() + L1(), 0.3),
    Translated(L0() + NonNegative(), 0.5),
    gated(1.0, -0.3),
    Cardinality(3) + MCP(),
    Cardinality(3) + gated(1.0, -0.3),
    Cardinality(3),
    Cardinality(3, "batch"),
    Cardinality(3) + NonNegative(),
    Cardinality(3) + 0.1 * L1(),
    Cardinality(3) + 0.1 * L1() + NonNegative(),
    Cardinality(3) + 0.1 * L0() + SquaredL2(),
    Cardinality(3) + Box(-1.0, 1.0),
    Cardinality(3) + Box(-1.0, 2.0),
    Cardinality(3) + np.array([0.1, 0.2]) * L1(),
]


@pytest.mark.parametrize("R", PROVED, ids=repr)
def test_shipped_formula_is_proved(R):
    proof = prove(R)
    assert (proof.verdict, proof.counterexample) == ("proved", None)
    assert proof.regularizer == repr(R)


class HardAtTheWeight(L0):
    def prox_of(self, xp, u, t):
        return xp.where(xp.abs(u) > t, u, 0.0)


class LargerSupportAtTies(L0):
    def prox_of(self, xp, u, t):
        return xp.where(xp.abs(u) >= xp.sqrt(2.0 * t), u, 0.0)


class OutsideOfTheDomain(NonNegative):
    def prox_of(self, xp, u, t):
        return u


class DividesByZero(SquaredL2):
    def prox_of(self, xp, u, t):
        return u * (1.0 - t) / (1.0 - t * t)


class RootOfNegative(L0):
    def prox_of(self, xp, u, t):
        return xp.where(xp.sqrt(u) * xp.sqrt(u) > xp.sqrt(2.0 * t), u, 0.0)


class WeightOfZeroTimesInfinity(Separable):
    """The indicator of z >= 0 that forgets to say that it is one, so that a weight of zero gives 0 inf."""

    is_convex = True
    is_symmetric = False

    def value_of(self, xp, z):
        return xp.where(z < 0, xp.inf, 0.0)

    def prox_of(self, xp, u, t):
        return xp.maximum(u, 0.0)

    def rescaled(self, scale):
        return self


class MinusInfinityBelowZero(NonNegative):
    def value_of(self, xp, z):
        return xp.where(z < 0, xp.inf, 0.0) / -1.0


class FalseStep(L1):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, xp.lemma(u, lambda v: v > u), t)


class WeakStep(L1):
    """Right, but all the prover is told of u is that it is not above itself."""

    def prox_of(self, xp, u, t):
        return super().prox_of(xp, xp.lemma(u, lambda v: v <= u), t)


@pytest.mark.parametrize(
    ("R", "fails"),
    [
        (FalseStep(), "step 1 of the formula"),
        (HardAtTheWeight(), "F(prox(u)) <= F(z)"),
        (HardAtTheWeight() + NonNegative(), "F(prox(u)) <= F(z)"),
        (LargerSupportAtTies(), "the smaller support wins ties"),
        (OutsideOfTheDomain(), "the prox is in the domain"),
        (DividesByZero(), "the prox is a real number"),
        (RootOfNegative(), "the prox is a real number"),
        (WeightOfZeroTimesInfinity(), "the value is defined everywhere"),
        (MinusInfinityBelowZero(), "the value is defined everywhere"),
        (Cardinality(2) + HardAtTheWeight(), "F(prox(u)) <= F(z)"),
    ],
    ids=repr,
)
def test_wrong_formula_is_refuted(R, fails):
    proof = prove(R)
    assert proof.verdict == "counterexample"
    assert proof.counterexample["fails"] == fails


def test_a_weight_of_zero_times_infinity_is_called_that():
    numbers = prove(WeightOfZeroTimesInfinity()).counterexample
    assert (numbers["weight"], "better z" in numbers) == (0.0, False)
    assert "weight 0 times infinity" in numbers["because"]


def test_counterexample_is_one_in_floating_point_too():
    numbers = prove(HardAtTheWeight()).counterexample
    R = HardAtTheWeight(weight=numbers["weight"])
    u, t, z = numbers["u"], numbers["t"], numbers["better z"]
    p = R.prox(np.array([u]), t)
    assert p == numbers["claimed z"]
    claimed, better = (0.5 * (v - u) ** 2 + t * R.value(np.array([v])) for v in (p.item(), z))
    assert claimed > better
    assert (claimed, better) == (numbers["claimed objective"], numbers["better objective"])


class ParameterNamedLikeTheStep(Separable):
    """Right where the parameter t is the step t: a proof has to tell them apart."""

    t: Any = 1.0

    is_convex = True

    def conditions(self):
        return [*super().conditions(), (self.t >= 0, "t must not be negative")]

    def value_of(self, xp, z):
        return self.t * xp.abs(z)

    def weighted_prox(self, xp, u, t):
        return self.prox_of(xp, u, self.weight * t * t)

    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


def test_a_parameter_may_have_the_name_of_a_variable():
    numbers = prove(ParameterNamedLikeTheStep()).counterexample
    assert numbers["t"] > 0
    assert numbers["r.t"] != numbers["t"]


class Exponential(L1):
    def value_of(self, xp, z):
        return xp.exp(z)


@pytest.mark.parametrize(
    ("R", "function"),
    [
        (Exponential(), "exp"),
        (np.array([0.1, 0.2]) * Tanh(), "a formula with parameters of one value a coordinate"),
        (Tanh() + Cardinality(2), "root"),
    ],
    ids=repr,
)
def test_transcendental_formula_says_so(R, function):
    proof = prove(R)
    assert proof.verdict == "unknown"
    assert function in proof.theorem


class Impossible(L1):
    """Wrong, under conditions that nothing meets: a vacuous theorem is not a proof."""

    def __post_init__(self):
        pass

    def conditions(self):
        return [(self.weight > 0, "positive"), (self.weight < 0, "negative")]

    def prox_of(self, xp, u, t):
        return u


def test_contradictory_conditions_prove_nothing():
    assert prove(Impossible()).verdict == "unknown"


def test_steps_that_say_too_little_are_no_counterexample():
    assert prove(WeakStep()).verdict == "unknown"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda xp, z: z**2.0, "no theorem: the power 2.0 is not algebraic"),
        (
            lambda xp, z: xp.tanh(abs(z)),
            "no theorem: abs(z) in place of xp.abs(z), among transcendental functions, is not",
        ),
        (lambda xp, z: 1.0 * (z != 0), "cannot be read: unsupported operand"),
        (lambda xp, z: xp.abs(+z), "cannot be read: bad operand"),
        (lambda xp, z: 2.0**z, "cannot be read: unsupported operand"),
        (lambda xp, z: np.maximum(z, 0.0), "cannot be read: a formula must not branch"),
        (lambda xp, z: z.clip(0.0, 1.0), "cannot be read: 'Number' object has no attribute 'clip'"),
    ],
)
def test_an_operation_that_the_prover_does_not_know_is_unknown(value, reason):
    class Own(Separable):
        def value_of(self, xp: Any, z: Any) -> Any:
            return value(xp, z)

        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            return u / (1.0 + 2.0 * t)

    assert reason in str(prove(Own()))


def test_a_mistake_in_an_unread_formula_is_raised():
    class Reshaped(L1):
        def value_of(self, xp: Any, z: Any) -> Any:
            return xp.abs(z).reshape(7)

    with pytest.raises(ValueError, match="reshape"):
        prove(Reshaped())


def test_a_step_that_an_unread_prox_refuses_is_no_mistake():
    class Concave(Separable):
        def value_of(self, xp: Any, z: Any) -> Any:
            return -0.5 * z * (+z)

        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            if isinstance(t, float) and t >= 1.0:
                raise ValueError("t must be below 1")
            return u / (1.0 - t)

    said = str(prove(Concave()))
    assert "cannot be read: bad operand type for unary +" in said
    assert "and its prox refuses t = 1: t must be below 1" in said


@pytest.mark.parametrize("value", [lambda z: 0.5 * z ** np.int64(2), lambda z: 0.5 * z**2 + z**0 - 1.0])
def test_a_power_is_one_of_any_whole_number(value):
    class Square(Separable):
        def value_of(self, xp: Any, z: Any) -> Any:
            return value(z)

        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            return u / (1.0 + t)

    assert prove(Square()).verdict == "proved"


def test_models_meet_the_facts_and_contradictions_are_none():
    random, symbols = Random(0), z3.Reals("x y w")

    def polynomial(depth: int) -> Any:
        if depth == 0:
            return random.choice([*symbols, random.randint(-2, 2)])
        a, b = polynomial(depth - 1), polynomial(depth - 1)
        return random.choice([a + b, a * b, z3.If(a <= b, a, b)])

    verdicts = Counter()
    for _ in range(60):
        facts = [random.choice([le, lt, eq])(polynomial(2), polynomial(1)) for _ in range(3)]
        facts = [fact if z3.is_expr(fact) else z3.BoolVal(fact) for fact in facts]
        verdict, model = decide(facts, [], FAR)
        verdicts[str(verdict)] += 1
        if verdict == z3.sat:
            assert all(z3.is_true(z3.simplify(model.eval(fact, model_completion=True))) for fact in facts)
        else:
            solver = z3.Solver()
            solver.add(facts)
            assert solver.check() == verdict
    assert min(verdicts["sat"], verdicts["unsat"]) >= 10


def test_a_mistake_in_a_prox_is_no_unknown_theorem():
    class Mistaken(Separable):
        def value_of(self, xp: Any, z: Any) -> Any:
            return xp.abs(z)

        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            return xp.sign(u) * xp.maximum(xp.abs(u) - t)

    with pytest.raises(TypeError, match=r"maximum\(\) missing 1 required positional argument"):
        prove(Mistaken())


@pytest.mark.parametrize(("R", "function"), [(Lq(0.5), "cos_third"), (LogSum(0.2), "log1p")])
def test_a_function_that_array_code_cannot_call_is_named(R, function):
    assert f"no theorem: the function {function}" in str(prove(R + GroupCardinality(2, 4)))


def test_the_theorem_that_took_all_the_time_is_the_one_told():
    proof = prove(Lq(2 / 3), timeout=0.0)
    assert proof.verdict == "unknown"
    assert "for all real u, z and t > 0" in proof.theorem


def test_timeout_is_unknown():
    assert prove(L1() + L0() + SquaredL2() + Box(-1.0, 2.0), timeout=0.0).verdict == "unknown"


@pytest.mark.parametrize("lemma", [exchange_lemma, even_ranking_lemma, positive_ranking_lemma])
def test_lemmas_of_the_gain_rule(lemma):
    prove_lemmas(lemma(), FAR)


def test_lemma_without_its_hypothesis_is_refuted():
    for refutation in even_ranking_lemma() + positive_ranking_lemma() + exchange_lemma():
        with pytest.raises(NotProvedError, match="counterexample"):
            prove_lemmas([refutation[1:]], FAR)


class NegativeBelowOne(L1):
    """A partner that pays for being used: ranking by max(u, 0) then misses gains of negative u."""

    is_convex = True
    is_nonnegative = True
    is_symmetric = False
    is_least_at_zero = True  # it is not: that is what the proof has to find

    def value_of(self, xp, z):
        return xp.where(z < 0, xp.inf, -z)

    def weighted_value(self, xp, z):
        return xp.where(z < 0, xp.inf, -self.weight * z)

    def prox_of(self, xp, u, t):
        return xp.maximum(u + t, 0.0)


class NegativeAndEven(NegativeBelowOne):
    """It says that it is even, and not that it is least at zero."""

    is_nonnegative = False
    is_symmetric = True
    is_least_at_zero = False


@pytest.mark.parametrize(
    ("partner", "fails"),
    [(NegativeBelowOne(), "r(0) <= r(z)"), (NegativeAndEven(), "r is never negative")],
    ids=repr,
)
def test_ranking_by_u_is_refuted_where_the_gain_orders_otherwise(partner, fails):
    proof = prove(Cardinality(1, partner=partner))
    assert proof.verdict == "counterexample"
    assert proof.counterexample["fails"] == fails


def test_numbers_of_a_counterexample_are_what_runs():
    numbers = prove(Cardinality(1, partner=NegativeAndEven())).counterexample
    R = NegativeAndEven(weight=numbers["weight"])
    assert [R.value(np.array([z])) for z in (numbers["z"], -numbers["z"])] == [numbers["r(z)"], numbers["r(-z)"]]
    assert numbers["r(z)"] < 0

    class NegativeNorm(Separable):
        is_symmetric, is_least_at_zero = True, False

        def value_of(self, xp: Any, z: Any) -> Any:
            return -xp.sqrt(z * z)

        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            return xp.where(u >= 0, u + t, u - t)

    numbers = prove(Cardinality(1, partner=NegativeNorm())).counterexample
    assert numbers["fails"] == "r is never negative"
    assert numbers["r(-z)"] == numbers["r(z)"] < 0

    class OfRoots(NegativeAndEven):
        def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
            return xp.sqrt(u - t)

    numbers = prove(OfRoots()).counterexample
    assert numbers["fails"] == "the prox is a real number"
    assert np.isnan(numbers["claimed z"])


def test_only_regularizers_are_proved():
    with pytest.raises(TypeError, match="prove takes a regularizer, got str"):
        prove("L1")
