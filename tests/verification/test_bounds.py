"""Interval bounds: the arithmetic never loses the true value; each transcendental formula is bounded, no mutant is."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.regularizers import L0, Cardinality, Entmax, LogSum, Lq, NonNegative, Tanh
from proxsae.regularizers.entmax import entries, penalty
from proxsae.verification import prove
from proxsae.verification.boxes import intervals
from proxsae.verification.boxes.bounds import Question, bound
from proxsae.verification.boxes.paths import PathReader
from proxsae.verification.boxes.theorems import bound_entmax, bound_selection, bound_separable

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinity and NaN belong to the arithmetic

FAR = float("inf")
COARSE = 0.02

mpmath.mp.dps = 60
number = st.floats(-1e6, 1e6)
positive = st.floats(1e-9, 1e6)
width = st.floats(0.0, 10.0)


def holds(interval, exact):
    low, high = (float(end) for end in interval)
    return (low == -FAR or Fraction(low) <= exact) and (high == FAR or exact <= Fraction(high))


@given(number, width, number, width, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_rational_operations_enclose_the_exact_result(a, da, b, db, i, j):
    x, y = (np.array(a), np.array(a + da)), (np.array(b), np.array(b + db))
    inside = [Fraction(float(lo + s * (hi - lo))) for (lo, hi), s in ((x, i), (y, j))]
    inside = [min(max(v, Fraction(float(lo))), Fraction(float(hi))) for v, (lo, hi) in zip(inside, (x, y), strict=True)]
    assert holds(intervals.add(x, y), inside[0] + inside[1])
    assert holds(intervals.multiply(x, y), inside[0] * inside[1])
    quotient = intervals.divide(x, y, (y[0] > 0) | (y[1] < 0))
    if y[0] > 0 or y[1] < 0:
        assert holds(quotient, inside[0] / inside[1])
    else:
        assert np.isnan(quotient[0])


FUNCTIONS = {
    "sqrt": (intervals.sqrt, mpmath.sqrt),
    "cbrt": (intervals.cbrt, mpmath.cbrt),
    "log1p": (intervals.log1p, lambda x: mpmath.log(1 + x)),
    "tanh": (intervals.tanh, mpmath.tanh),
    "power 0.3": (lambda x: intervals.power(x, 0.3), lambda x: mpmath.power(x, mpmath.mpf(0.3))),
    "power -0.7": (lambda x: intervals.power(x, -0.7), lambda x: mpmath.power(x, mpmath.mpf(-0.7))),
    "power 5": (lambda x: intervals.power(x, 5.0), lambda x: mpmath.power(x, 5)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=positive)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_functions_enclose_the_exact_result(name, x):
    enclose, exact = FUNCTIONS[name]
    low, high = enclose((np.array(x), np.array(x)))
    assert mpmath.mpf(float(low)) <= exact(mpmath.mpf(x)) <= mpmath.mpf(float(high))


def test_what_may_be_undefined_stays_undefined():
    across = np.array(-1.0), np.array(1.0)
    for result in (
        intervals.sqrt(across),
        intervals.power(across, 0.5),
        intervals.log1p((np.array(-1.0), np.array(0.0))),
        intervals.divide(across, across, np.array(False)),
        intervals.multiply((np.array(0.0), np.array(0.0)), (np.array(math.inf), np.array(math.inf))),
    ):
        assert np.isnan(result[0])
        assert np.isnan(result[1])


def formulas(xp, u, t):
    """Return expressions of every kind, in u in [0.5, 1.5] and t in [0.5, 1.5]."""
    wide = xp.sqrt(u * t) - xp.log1p(u / t) + xp.tanh(3.0 * (u - t))
    return [
        wide,
        wide * wide - u * u * t + 2.0 / (u + t),
        xp.power(u, 0.3) * xp.power(t, -0.7),
        xp.cbrt(u) * t,
        xp.abs(u - t) + xp.maximum(u, t * t) - xp.minimum(u * t, 1.0),
        xp.where(u > t, u * u, t),
    ]


@given(st.floats(0.6, 1.4), st.floats(0.6, 1.4), st.floats(0.0, 0.1), st.floats(0.0, 0.1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_enclosures_hold_the_value_at_every_point_of_a_box(u, t, du, dt):
    from proxsae.formulas.arrays import ArrayNamespace

    with np.errstate(all="ignore"):
        reader = PathReader({}, forks=False)
        box = [
            reader.variable(i, np.array(c), np.array(r), name)
            for i, (c, r, name) in enumerate(((u, du, "u"), (t, dt, "t")))
        ]
        read = formulas(reader, *box)
    x, y = (side.ravel() for side in np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)))
    values = formulas(ArrayNamespace(x), u + du * x, t + dt * y)
    for f, value in zip(read, values, strict=True):
        slopes = [*f.slopes, 0.0, 0.0][:2]
        affine = f.center + slopes[0] * x + slopes[1] * y
        spare = 1e-13
        assert (f.low - spare <= value).all()
        assert (value <= f.high + spare).all()
        assert (np.abs(value - affine) <= f.rest + spare).all()


@given(st.floats(0.1, 4.0), st.floats(0.1, 4.0), st.floats(0.0, 0.05), st.floats(0.0, 0.05))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_zeros_of_an_equation_are_enclosed(v, tau, dv, dt):
    """The equation of tanh has one zero or three, and the two searches end at an outer one or at an end."""
    bend = math.atanh(1 / math.sqrt(3))

    def equation(y, v, tau, tanh):
        height = tanh(y)
        return y + tau * (1.0 - height * height) - v

    with np.errstate(all="ignore"):
        reader = PathReader({}, forks=False)
        u = reader.variable(0, np.array([v]), np.array([dv]), "u")
        t = reader.variable(1, np.array([tau]), np.array([dt]), "t")

        def read(y):
            height = reader.tanh(y)
            slope = 1.0 - 2.0 * t * height * (1.0 - height * height)
            return equation(y, u, t, reader.tanh), reader.where(slope > 0, slope, 1.0)

        near = reader.root(read, 0.0 * u, 0.0, reader.minimum(u, bend), 24)
        far = reader.root(read, u, bend, u, 24)
    for x, y in ((-1.0, 1.0), (0.0, 0.0), (1.0, -1.0)):
        a, b = max(v + dv * x, 0.0), tau + dt * y
        up, down = np.linspace(0.0, min(a, bend), 4001), np.linspace(a, min(bend, a), 4001)
        risen = np.append(up[equation(up, a, b, np.tanh) >= 0], up[-1])[0]
        fallen = np.append(down[equation(down, a, b, np.tanh) <= 0], down[-1])[0]
        assert (near.low - 2e-3 <= risen).all()
        assert (risen <= near.high + 2e-3).all()
        assert (far.low - 2e-3 <= fallen).all()
        assert (fallen <= far.high + 2e-3).all()


@pytest.mark.parametrize(
    ("R", "epsilon"),
    [
        (LogSum(0.5), COARSE),
        (0.5 * LogSum(), COARSE),
        (Tanh(0.7), 0.1),
        (Lq(0.3), COARSE),
        (Lq(2 / 3), COARSE),
        (LogSum(0.5) + NonNegative(), COARSE),
        (L0(), COARSE),
    ],
    ids=repr,
)
def test_shipped_formula_is_bounded(R, epsilon):
    proof = bound_separable(R, FAR, epsilon)
    assert (proof.verdict, proof.counterexample, proof.epsilon) == ("bounded", None, epsilon)
    assert "-8 <= u <= 8, 0.05 <= t <= 8" in proof.theorem


@pytest.mark.parametrize("R", [LogSum() + Cardinality(2), LogSum() + NonNegative() + Cardinality(2)], ids=repr)
def test_selection_with_a_bounded_partner_is_bounded(R):
    assert bound_selection(R, FAR, COARSE).verdict == "bounded"


@pytest.mark.parametrize("R", [Entmax(1.5), 0.5 * Entmax(1.2, 2.0)], ids=repr)
def test_entmax_is_bounded(R):
    assert bound_entmax(R, FAR, COARSE).verdict == "bounded"


def test_what_takes_too_long_is_unknown():
    assert bound_separable(LogSum(), 0.0).verdict == "unknown"


class DiscriminantOfAnotherPenalty(LogSum):
    def prox_of(self, xp, u, t):
        a = xp.abs(u)
        discriminant = (a + self.delta) * (a + self.delta) - 2.0 * t
        root = xp.sqrt(xp.where(discriminant > 0, discriminant, 1.0))
        return xp.where(discriminant > 0, xp.sign(u) * xp.maximum(0.5 * (a - self.delta + root), 0.0), 0.0)


class ZeroNotCompared(LogSum):
    def prox_of(self, xp, u, t):
        a = xp.abs(u)
        discriminant = (a + self.delta) * (a + self.delta) - 4.0 * t
        root = xp.sqrt(xp.where(discriminant > 0, discriminant, 1.0))
        return xp.where(discriminant > 0, xp.sign(u) * xp.maximum(0.5 * (a - self.delta + root), 0.0), 0.0)


class NearCandidateOnly(Tanh):
    def best_of(self, xp, u, t, candidates):
        return super().best_of(xp, u, t, candidates[:1])


class ThresholdOffByAPercent(Lq):
    def _threshold(self, xp, t):
        return 1.01 * super()._threshold(xp, t)


class ShiftedByAPercent(LogSum):
    def prox_of(self, xp, u, t):
        return 1.01 * super().prox_of(xp, u, t)


class RootOfNegative(LogSum):
    def prox_of(self, xp, u, t):
        return super().prox_of(xp, u, t) + 0.0 * xp.sqrt(u)


class Outside(NonNegative):
    def prox_of(self, xp, u, t):
        return u


@pytest.mark.parametrize(
    "R",
    [
        DiscriminantOfAnotherPenalty(0.5),
        ZeroNotCompared(0.5),
        NearCandidateOnly(1.0),
        ThresholdOffByAPercent(0.3),
        ShiftedByAPercent(0.5),
        LogSum(0.5) + Outside(),
    ],
    ids=lambda R: type(R).__name__,
)
def test_mutant_is_refuted_by_numbers_that_hold_in_floating_point(R):
    proof = bound_separable(R, FAR, 1e-3)
    found = proof.counterexample
    assert proof.verdict == "counterexample"
    claimed, better = (
        0.5 * (z - found["u"]) ** 2 + found["t"] * R.value(np.array([z]))
        for z in (found["claimed z"], found["better z"])
    )
    assert claimed > better + 1e-3
    assert R.prox(np.array([found["u"]]), found["t"])[0] == pytest.approx(found["claimed z"], rel=1e-14)
    assert (found["claimed objective"], found["better objective"]) == pytest.approx((claimed, better), rel=1e-12)


def test_what_is_no_number_is_refuted():
    proof = bound_separable(RootOfNegative(), FAR, 1e-2)
    assert proof.counterexample["fails"] == "the prox is a real number"


def test_entmax_of_another_exponent_is_refuted():
    def value(xp, z):
        return xp.where(z < 0, xp.inf, xp.where(z > 1, xp.inf, penalty(xp, z, 1.5) + z * (1 / 0.75 - 0.5)))

    wrong = Question(value, lambda xp, v, t: entries(xp, v, t, 1.4, at_one=True))
    found = bound(wrong, (-8.0, 8.0), (1.0, 1.0), 1e-3, FAR)
    assert found.refutation is not None
    u, t, claimed, better = found.refutation
    assert t == 1.0
    claimed, better = (
        0.5 * (z - u) ** 2 + 0.5 * (z - z * z) - (z - z**1.5) / 0.75 + z * (1 / 0.75 - 0.5) for z in (claimed, better)
    )
    assert claimed > better + 1e-3


def test_prove_says_bounded():
    proof = prove(Lq(0.3))
    assert proof.verdict == "bounded"
    assert proof.epsilon is not None


class UndefinedRival(Tanh):
    def best_of(self, xp, u, t, candidates):
        return super().best_of(xp, u, t, [xp.sqrt(1.0 - xp.abs(u)) * 0.0, *candidates])


def test_an_undefined_candidate_is_not_passed_over():
    assert bound_separable(UndefinedRival(), 10.0, 0.1).verdict in ("counterexample", "unknown")
