"""Transcendental formulas: balls hold every real result; log-sum is proved, the rest certified, no mutant is."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import z3
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.formulas.arrays import ArrayNamespace
from proxsae.regularizers import (
    L0,
    Cardinality,
    Entmax,
    LogSum,
    Lq,
    NonNegative,
    Numeric,
    SquaredL2,
    Tanh,
    Tilt,
    parse,
)
from proxsae.verification import prove, verify
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.pair import pair_of_regularizer
from proxsae.verification.proofs import certified
from proxsae.verification.proofs.certified import Balls, scalar_certificate
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError, Reader, negation
from proxsae.verification.proofs.jets import Jet, Jets
from proxsae.verification.proofs.separable import may_be_least, read
from proxsae.verification.proofs.theorem import proof_of


def certified_alone(R):
    return proof_of(R, scalar_certificate(R))


@pytest.fixture
def few_points(monkeypatch):
    monkeypatch.setattr(certified, "INPUTS", (-3.0, -0.5, 0.0, 0.25, 1.0, 2.0, 7.0))
    monkeypatch.setattr(certified, "STEPS", (0.2, 1.0, 5.0))
    monkeypatch.setattr(certified, "CODES", ((-1.0, 0.0, 0.5), (0.5, 0.75, 2.0)))


@pytest.mark.parametrize(
    "R",
    [
        LogSum(0.5),
        LogSum(0.5) + NonNegative(),
        pytest.param(LogSum() + SquaredL2(), marks=pytest.mark.soak),
        pytest.param(np.array([0.1, 0.2]) * LogSum(), marks=pytest.mark.soak),  # the same variables again
        LogSum(0.5) + Cardinality(2),
    ],
    ids=repr,
)
def test_log_sum_is_proved_for_all_parameters(R):
    proof = prove(R)
    assert (proof.verdict, proof.counterexample) == ("proved", None), str(proof)


class ZeroNotCompared(LogSum):
    def best_of(self, xp, u, t, candidates):
        return candidates[0]


class SmallerRoot(LogSum):
    def best_of(self, xp, u, t, candidates):
        return super().best_of(xp, u, t, [candidates[0] - 0.01 * xp.sign(candidates[0])])


class HalfTheStep(LogSum):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, u, 0.5 * t)


class HardLogSum(LogSum):
    def prox_of(self, xp, u, t):
        return xp.where(xp.abs(u) > t, u, 0.0)


@pytest.mark.parametrize("R", [ZeroNotCompared(0.1), SmallerRoot(), HalfTheStep(), HardLogSum()], ids=lambda R: type(R))
def test_no_wrong_log_sum_is_proved_or_certified(R, few_points):
    assert prove(R).verdict in ("unknown", "counterexample")
    assert certified_alone(R).verdict == "counterexample"
    assert not verify(R, proof_timeout=0.0).passed


def test_a_formula_that_need_not_have_a_least_value_is_not_proved(few_points):
    class Jumps(LogSum):
        def value_of(self, xp, z):
            return xp.log1p(xp.abs(z)) + xp.where(z <= 0, xp.inf, 0.0)

    class Signs(LogSum):
        def value_of(self, xp, z):
            return xp.log1p(xp.abs(z)) + xp.sign(z)

    for R in (Jumps(), Signs()):
        assert prove(R).verdict == "unknown"


@pytest.mark.soak  # z3 looks for an r < 0 for long
def test_what_falls_below_zero_is_certified_where_it_cannot_be_proved(few_points):
    assert prove(LogSum() + Tilt(0.3)).verdict == "certified at 21 points"


class HiddenKink(LogSum):
    def value_of(self, xp, z):
        return xp.log1p(xp.sqrt((z - 1.0) * (z - 1.0)) / self.delta)


def test_a_point_without_a_slope_may_be_least():
    reader = Reader()
    objective = read(HiddenKink(), reader)
    never = [negation(may_be_least(objective)), objective.z.term == 1, *objective.assumptions]
    assert decide(never, reader.definitions, float("inf"))[0] == z3.unsat


@pytest.mark.parametrize("R", [Lq(0.3), 0.7 * Tanh(1.5), LogSum(0.5) + NonNegative(), Lq(0.5)], ids=repr)
def test_right_formula_is_certified(R, few_points):
    assert certified_alone(R).verdict == "certified at 21 points"


def test_prove_falls_back_on_balls(few_points):
    for R in (Lq(0.3), Tanh(), Lq(0.3) + SquaredL2(), Tilt(0.5) + Lq(0.3)):
        proof = prove(R)
        assert proof.verdict == "certified at 21 points", str(proof)
        assert "all z" in proof.theorem


@pytest.mark.parametrize("R", [Entmax(1.5), 0.5 * Entmax(1.2, 2.0)], ids=repr)
def test_entmax_is_certified(R, few_points):
    assert prove(R).verdict == "certified at 6 points"


class Late(Lq):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, u, 1.001 * t)


class TooFar(Tanh):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, u, t) * 1.0001


class Undefined(Tanh):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, u, t) / (u - u)


class Outside(Lq):
    def value_of(self, xp, z):
        return super().value_of(xp, z) + xp.where(z < 0, xp.inf, 0.0)


class EndsAtTwo(Tanh):
    """The middle of the first box, at 32, is outside of the domain."""

    is_symmetric = False

    def value_of(self, xp, z):
        return super().value_of(xp, z) + xp.where(z > 2.0, xp.inf, 0.0)

    def prox_of(self, xp, u, t):
        return xp.where(u > 2.0, 0.0, super().prox_of(xp, u, t))


class FarMinimum(Tanh):
    """Falls again, beyond where the square of the distance has grown."""

    def value_of(self, xp, z):
        return super().value_of(xp, z) - z * z


@pytest.mark.parametrize("R", [Late(0.3), TooFar(), Outside(0.3), EndsAtTwo()], ids=lambda R: type(R).__name__)
def test_wrong_formula_is_refuted(R, few_points):
    proof = prove(R)
    assert proof.verdict == "counterexample"
    if proof.counterexample["fails"].startswith("F"):
        found = proof.counterexample
        z = np.array([[found["claimed z"]], [found["better z"]]])
        claimed, better = 0.5 * ((z - found["u"]) ** 2).sum(-1) + found["t"] * R.value(z)
        assert better < claimed
        np.testing.assert_allclose([claimed, better], [found["claimed objective"], found["better objective"]])


def test_a_domain_that_does_not_end_at_zero_is_certified(few_points):
    R = parse("Translated(Tanh(1.0) + NonNegative, -5.0)")
    assert certified_alone(R).verdict == "certified at 21 points"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_undefined_or_falls_far_out_is_not_certified(few_points):
    assert certified_alone(Undefined()).counterexample["fails"] == "the prox is a real number"
    assert certified_alone(FarMinimum()).verdict != "certified at 21 points"


class WrongLevel(Entmax):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, U, t) * 1.0001


class WrongShape(Entmax):
    def prox_of(self, xp, U, t):
        return super().prox_of(xp, 1.001 * U, t)


@pytest.mark.parametrize("kind", [WrongShape, WrongLevel])
def test_wrong_entmax_is_not_certified(kind, few_points):
    assert prove(kind(1.5)).verdict == "unknown"
    assert search_codes(pair_of_regularizer(kind(1.5))).verdict == "failed"  # of the oracles the quickest


def test_what_has_no_ball_says_so():
    with pytest.raises(NotAlgebraicError, match="a table"):
        certified_alone(Numeric(np.abs))
    with pytest.raises(NotAlgebraicError, match="one value a coordinate"):
        certified_alone(np.array([0.1, 0.2]) * Tanh())
    with pytest.raises(NotAlgebraicError, match="pieces"):
        certified_alone(L0())


mpmath.mp.dps = 40
FUNCTIONS = {
    "log1p": (lambda xp, z: xp.log1p(xp.abs(z) / 0.3), lambda z: mpmath.log1p(abs(z) / mpmath.mpf(0.3))),
    "tanh": (lambda xp, z: xp.tanh(z * z - z), lambda z: mpmath.tanh(z * z - z)),
    "power": (lambda xp, z: xp.power(xp.abs(z), 0.3) * z, lambda z: abs(z) ** mpmath.mpf(0.3) * z),
    "root": (lambda xp, z: 2.0 / xp.sqrt(xp.abs(z) + 1.0), lambda z: 2 / mpmath.sqrt(abs(z) + 1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(st.floats(-20, 20), st.floats(0, 3), st.floats(0, 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_balls_and_slopes_hold_every_real_result(name, low, width, place):
    read, exact = FUNCTIONS[name]
    high = low + width
    z = min(max(low + place * width, low), high)
    jet = read(Jets(Balls()), Jet(arb(low).union(arb(high)), arb(1)))
    number = arb(mpmath.nstr(exact(mpmath.mpf(z)), 35))
    assert jet.value.is_nan() or jet.value.overlaps(number)
    if abs(z) > 1e-6:
        slope = arb(mpmath.nstr(mpmath.diff(exact, mpmath.mpf(z)), 15))
        assert jet.slope.is_nan() or jet.slope.overlaps(slope * arb(1, 1e-9))
    point = read(Jets(Balls()), Jet(arb(z), arb(0))).value
    array = np.array([z])
    assert float(point.mid()) == pytest.approx(read(ArrayNamespace(array), array)[0], rel=1e-12, abs=1e-12)


def test_a_power_has_its_slope():
    z = Jet(arb(3), arb(1))
    for power, value, slope in ((0, 1, 0), (1, 3, 1), (np.int64(3), 27, 27)):
        assert ((z**power).value, (z**power).slope) == (value, slope)


@pytest.mark.parametrize("function", ["tanh", "log1p"])
def test_functions_take_the_power_0(function, few_points):
    class Constant(Tanh):
        def value_of(self, xp, z):
            return getattr(xp, function)(z**0)

        def prox_of(self, xp, u, t):
            return u

    assert prove(Constant()).verdict in ("certified at 21 points", "proved")
