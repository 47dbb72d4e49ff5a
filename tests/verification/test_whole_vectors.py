"""z3 reads the array code of groups and whole codes, path by path, and proves it; each mutation is refuted."""

from __future__ import annotations

import time
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np
import pytest
import z3
from long_runs import apart_from

from proxsae.regularizers import (
    L1,
    MCP,
    Blocks,
    GroupCardinality,
    GroupL0,
    GroupL2,
    KSupport,
    L1Ball,
    L1MinusL2,
    L2Ball,
    LInf,
    Lq,
    OfNorms,
    Simplex,
    SortedL1,
    SumOfKLargest,
    Tilt,
    Translated,
    from_cvxpy,
    parse,
)
from proxsae.regularizers.naming import catalogue
from proxsae.regularizers.nonseparable import NonSeparable, NonSeparableSum
from proxsae.regularizers.partition import Partition
from proxsae.regularizers.simplex import water_level
from proxsae.verification import prove, verify
from proxsae.verification.proofs.arrays_z3 import PathReader, paths
from proxsae.verification.proofs.catalogue import CERTIFIED, GROUPS, SEARCHED, SELECTIONS, WHOLE_CODES
from proxsae.verification.proofs.catalogue import CLASSES as SCALAR
from proxsae.verification.proofs.composition import composition_lemma, square_lemma
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.separable import OPTIMAL
from proxsae.verification.proofs.symbols import with_symbols
from proxsae.verification.proofs.theorem import NotProvedError, prove_lemmas
from proxsae.verification.proofs.whole_vectors import _answers

FAR = float("inf")


def test_every_class_has_a_theorem():
    texts = (*SCALAR, *SELECTIONS, *GROUPS, *WHOLE_CODES, *CERTIFIED, *SEARCHED)
    proved = {type(term).__name__ for text in texts for term in parse(text).terms}
    assert proved >= set(catalogue())


SLOW = ("L1 + NonNegative + GroupCardinality(1, 2)", "L1 + TreeGroups([[0], [0, 1], [2]])")


@pytest.mark.parametrize("text", apart_from(SLOW, GROUPS))
def test_shipped_code_is_proved(text):
    proof = prove(parse(text), timeout=600)  # on a busy machine too
    assert (proof.verdict.startswith("proved"), proof.counterexample) == (True, None), str(proof)


@pytest.mark.parametrize("text", apart_from(["SortedL1([1.0, 0.5])"], WHOLE_CODES))
def test_a_theorem_about_short_codes_says_so(text):
    proof = prove(parse(text))
    of_every_length = text in ("L2Ball", "L1 + L2Ball")
    assert proof.verdict == ("proved" if of_every_length else "proved for n = 2"), str(proof)


def test_a_theorem_about_fewer_weights_than_given_says_so():
    proof = prove(SortedL1([3.0, 2.0, 1.0]))
    assert proof.verdict == "proved for n = 2"
    assert "of 2 coordinates (the one given is for 3)" in proof.theorem


class HalfTheThreshold(GroupL2):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, 0.5 * t)


class Grows(GroupL2):
    def prox_of(self, xp, U, t):
        return 1.5 * U


class NoRoot(GroupL0):
    def prox_on(self, xp, U, step):
        return super().prox_on(xp, U, step * step)


class KeepsAll(GroupCardinality):
    def prox_on(self, xp, U, step):
        return self.partner.prox_on(xp, U, step)


class KeepsTheFirst(GroupCardinality):
    def prox_on(self, xp, U, step):
        return U * np.array([1.0, 0.0])


class HalfTheRadius(L2Ball):
    def prox_of(self, xp, U, t):
        return 0.5 * super().prox_of(xp, U, t)


class SumOfTwo(Simplex):
    def prox_of(self, xp, U, t):
        depths, level = water_level(U, 2.0 * self.radius)
        return xp.asarray((depths - level).clip(0.0))


class InsideMovesToo(L1Ball):
    def prox_of(self, xp, U, t):
        depths, level = water_level(xp.abs(U), self.radius)
        return xp.asarray(xp.sign(U) * (depths - level).clip(0.0))


class StepForgotten(LInf):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, t * t)


class WeightsReversed(SortedL1):
    def prox_of(self, xp, U, t):
        return self.replace_weights(self.weights[::-1])._as_written(xp, U, t)

    def replace_weights(self, weights):
        twin = object.__new__(WeightsReversed)
        twin.__dict__.update(self.__dict__, weights=weights)
        return twin

    def _as_written(self, xp, U, t):
        return SortedL1.prox_of(self, xp, U, t)


class OneTooMany(SumOfKLargest):
    def prox_of(self, xp, U, t):
        return SumOfKLargest(self.k + 1).prox_of(xp, U, t)


class NotStretched(L1MinusL2):
    def prox_of(self, xp, U, t):
        return xp.sign(U) * xp.maximum(xp.abs(U) - t, 0.0)


class TwiceTheNorm(L1MinusL2):
    def value_of(self, xp, Z):
        return super().value_of(xp, Z) - xp.sqrt((Z * Z).sum(-1))


class WithoutTheSquare(KSupport):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, 2.0 * t)


class CoreFirst(NonSeparableSum):
    def prox_on(self, xp, U, step):
        return self.base.prox_on(xp, self.core.prox_on(xp, U, step), step)


class InfiniteForZero(NonSeparableSum):
    def prox_on(self, xp, U, step):
        Z = super().prox_on(xp, U, step)
        return xp.where(Z == 0, xp.inf, Z)


class StepTwice(NonSeparableSum):
    def prox_on(self, xp, U, step):
        return super().prox_on(xp, U, 2.0 * step)


class NotANumber(NonSeparableSum):
    def prox_on(self, xp, U, step):
        return super().prox_on(xp, U, step) + 0.0 / (U - U)


class WeightsInAnyOrder(NonSeparable, named=False):
    """Weighted L1, its prox right only where the weights fall, as those of a sorted norm do."""

    weights: Any = (1.0, 2.0)

    is_convex = True

    def value_of(self, xp, Z):
        return (xp.asarray(self.weights) * xp.abs(Z)).sum(-1)

    def prox_of(self, xp, U, t):
        falling = xp.asarray(sorted(self.weights, reverse=True))
        return xp.sign(U) * xp.maximum(xp.abs(U) - t * falling, 0.0 * U)

    def in_units(self, scale):
        return self


class RadiusOfEitherSign(NonSeparable, named=False):
    """A tilt, its prox right only where the radius is positive, as that of a ball is."""

    radius: Any = -1.0

    is_convex = True

    def value_of(self, xp, Z):
        return self.radius * Z.sum(-1)

    def prox_of(self, xp, U, t):
        return U - t * abs(self.radius)

    def in_units(self, scale):
        return self


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [(WeightsInAnyOrder, (2.0, 1.0), (1.0, 2.0)), (RadiusOfEitherSign, 1.0, -1.0)],
)
def test_a_parameter_of_ones_own_is_not_taken_for_ours_of_that_name(kind, right, wrong):
    (name,) = (field.name for field in fields(kind) if field.name != "weight")
    assert prove(kind(wrong)).verdict == "counterexample"
    proof = prove(kind(right))
    assert proof.verdict == "proved for n = 2"
    assert proof.theorem.endswith(f"all admissible weights and the given {name}")


@pytest.mark.parametrize(
    ("R", "given"),
    [(RadiusOfEitherSign(1), "radius"), (Translated(RadiusOfEitherSign(1.0), 0.5), "inner.radius")],
)
def test_a_number_that_is_taken_as_it_is_is_named(R, given):
    assert prove(R).theorem.endswith(f"all admissible weights and the given {given}")


class TwoNames(L1, named=False):
    a: Any = 1.0
    a0: Any = 2.0


def test_no_two_numbers_are_one_symbol():
    R = NonSeparableSum(LInf(), TwoNames(np.ones(2), 2.0), *SPARSE_PARTS[2:])
    base = with_symbols(R, PathReader([], "#"), 2).base
    symbols = {str(number.term) for number in (*base.a, base.a0[()])}
    assert symbols == {"base.a[0]", "base.a[1]", "base.a0"}


def test_a_counterexample_names_every_parameter():
    R = Simplex() + Tilt(np.array([0.3, 0.2]))
    numbers = prove(StepTwice(R.core, R.base, R.ridge, R.tilt)).counterexample
    R = Simplex(numbers["core.radius"]) + numbers["tilt.weight"] * Tilt([numbers[f"tilt.slope[{i}]"] for i in range(2)])
    claimed, better = (
        0.5 * ((z - numbers["u"]) ** 2).sum() + numbers["t"] * R.value(z)
        for z in (numbers["claimed z"], numbers["better z"])
    )
    np.testing.assert_allclose([claimed, better], [numbers["claimed objective"], numbers["better objective"]])
    assert better < claimed


SPARSE_GROUPS = parse("L1 + GroupL2(2)")
SPARSE_PARTS = [getattr(SPARSE_GROUPS, name) for name in ("core", "base", "ridge", "tilt")]


@pytest.mark.parametrize(
    "R",
    [
        HalfTheThreshold(2),
        Grows(2),
        NoRoot(2),
        KeepsAll(1, 2),
        KeepsTheFirst(1, 2),
        HalfTheRadius(),
        SumOfTwo(),
        InsideMovesToo(),
        StepForgotten(),
        WeightsReversed([1.0, 0.5]),
        OneTooMany(1),
        NotStretched(),
        TwiceTheNorm(),
        *(kind(*SPARSE_PARTS) for kind in (CoreFirst, InfiniteForZero, NotANumber)),
    ],
    ids=lambda R: type(R).__name__,
)
def test_wrong_code_is_refuted(R):
    proof = prove(R)
    assert proof.verdict == "counterexample", str(proof)
    assert proof.counterexample["fails"]


@pytest.mark.parametrize("text", ["GroupL2(2)", "GroupCardinality(1, 2)", "L1 + GroupL2(2)", "TreeGroups([[0], [1]])"])
def test_groups_that_are_spread_in_another_order_are_not_proved(text, monkeypatch):
    spread = Partition.spread
    monkeypatch.setattr(Partition, "spread", lambda self, V: spread(self, V[..., :: -1 if V.shape[-1] > 2 else 1]))
    assert prove(parse(text)).verdict == "unknown"


def test_wrong_code_that_no_theorem_is_about_is_found_by_the_search():
    report = verify(WithoutTheSquare(1), proof_timeout=0.0)
    assert report.counterexample["better objective"] < report.counterexample["claimed objective"]


@pytest.mark.parametrize("R", [SumOfTwo(), StepForgotten(), OneTooMany(1)], ids=lambda R: type(R).__name__)
def test_counterexample_can_be_checked_by_hand(R):
    numbers = prove(R).counterexample
    parameters = {name: numbers[name] for name in ("weight", "radius") if name in numbers}
    R, u, t = R.replace(**parameters), numbers["u"], numbers["t"]
    claimed = R.prox(u, t)
    np.testing.assert_allclose(claimed, numbers["claimed z"])
    if numbers["fails"] == OPTIMAL:
        worse, better = (0.5 * ((z - u) ** 2).sum() + t * R.value(z) for z in (claimed, numbers["better z"]))
        assert worse > better
    else:
        assert R.value(claimed) == np.inf


@pytest.mark.parametrize("lemma", [composition_lemma, square_lemma])
def test_lemmas(lemma):
    refutations = lemma()
    prove_lemmas(refutations, FAR)
    for refutation in refutations:  # their hypotheses do not contradict each other
        with pytest.raises(NotProvedError, match="counterexample"):
            prove_lemmas([refutation[:-1]], FAR)


def test_each_point_is_on_one_path_and_its_result_is_that_of_numpy():
    names = [z3.Real(f"x{i}") for i in range(3)]
    orders = list(paths(lambda reader: np.sort(reader.reals("x", 3))))
    for point in product((0, 1, 2), repeat=3):
        numbers = [(name, z3.RealVal(value)) for name, value in zip(names, point, strict=True)]
        here = [
            [z3.simplify(z3.substitute(entry.term, *numbers)).as_long() for entry in result]
            for reader, result in orders
            if z3.is_true(z3.simplify(z3.substitute(z3.And(reader.facts), *numbers)))
        ]
        assert here == [sorted(point)]


def test_vectors_are_read_by_their_inner_products():
    def run(reader):
        u, z = reader.vectors("u", 1)[0], reader.vectors("z", 1)[0]
        square = (u - 2.0 * z) * (u - 2.0 * z)
        return (square == u * u - 4.0 * (u * z) + 4.0 * (z * z)).holds

    ((_, claim),) = paths(run)
    prove_lemmas([[z3.Not(claim)]], FAR)


class Impossible(L1):
    """Wrong, under conditions that nothing meets."""

    def __post_init__(self):
        pass

    def conditions(self):
        return [(self.weight > 0, "positive"), (self.weight < 0, "negative")]

    def prox_of(self, xp, u, t):
        return u


@pytest.mark.parametrize("core", [SPARSE_GROUPS.core, LInf()], ids=repr)
def test_contradictory_conditions_prove_nothing(core):
    assert prove(NonSeparableSum(core, Impossible(), *SPARSE_PARTS[2:])).verdict == "unknown"


class Unreadable(L1Ball):
    def prox_of(self, xp, U, t):
        return np.asarray(U, dtype=np.float64)


def test_blocks_are_as_good_as_the_weakest_of_them():
    proof = prove(Blocks([(MCP(), 2), (L1(), 2)]))
    assert proof.verdict == "proved"
    assert proof.seconds > 0
    assert prove(Blocks([(Simplex(), 2), (L1(), 2)])).verdict == "proved for n = 2"
    assert prove(Blocks([(Simplex(), 2), (StepForgotten(), 2), (L1(), 1)])).verdict == "counterexample"


def test_what_cannot_be_read_says_so():
    import cvxpy as cp

    proof = prove(from_cvxpy(cp.norm1))
    assert proof.verdict == "unknown"
    assert "a solver" in proof.theorem
    proof = prove(Unreadable())
    assert proof.verdict == "unknown"
    assert "its code cannot be read" in proof.theorem


def test_timeout_is_unknown():
    start = time.process_time()
    assert prove(LInf(), timeout=0.05).verdict == "unknown"
    assert time.process_time() - start < 10


class StepSquared(OfNorms):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, t * t)


class WithoutTheCosts(OfNorms):
    def costs(self, xp, parts):
        return 2.0 * super().costs(xp, parts)

    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, 0.5 * t * t)


class TurnsAround(OfNorms):
    def prox_of(self, xp, U, t):
        return -super().prox_of(xp, U, t)


class SoftMCP(MCP):
    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


@pytest.mark.parametrize("r", [L1(), MCP(3.0)], ids=repr)
@pytest.mark.parametrize("kind", [StepSquared, WithoutTheCosts, TurnsAround])
def test_wrong_code_of_norms_is_refuted_with_numbers(kind, r):
    proof = prove(kind(r, 2))
    assert proof.verdict == "counterexample", str(proof)
    assert proof.counterexample["fails"]


def test_a_wrong_scalar_makes_wrong_norms():
    proof = prove(OfNorms(SoftMCP(3.0), 2))
    assert proof.verdict == "counterexample"
    assert proof.counterexample["better objective"] < proof.counterexample["claimed objective"]


@pytest.mark.parametrize("kind", [StepSquared, TurnsAround])
def test_wrong_code_of_norms_that_z3_cannot_read_itself_is_not_proved(kind):
    assert not prove(kind(Lq(0.5), 2)).verdict.startswith("proved")


@pytest.mark.parametrize(
    "text",
    ["OfNorms(Huber, 2)", "OfNorms(CEL0, 2)", "OfNorms(MCP, 2) + GroupL0(2)", "L1 + OfNorms(Lq(0.5), 2) + SquaredL2"],
)
def test_any_scalar_of_norms_is_proved(text):
    assert prove(parse(text)).verdict == "proved"


def test_what_a_stand_in_is_assumed_to_be_is_possible():
    for answer in _answers(OfNorms(MCP(), 2), FAR, any_scalar=True):
        assert decide(answer.reader.facts, answer.reader.definitions, FAR)[0] == z3.sat
