"""A conjugate that is too small makes a duality gap that bounds nothing: the check and the proof have to see it."""

from __future__ import annotations

import numpy as np
import pytest

from proxsae.regularizers import (
    L0,
    L1,
    Cardinality,
    GroupL2,
    Huber,
    LInf,
    LInfBall,
    NonNegative,
    SquaredL2,
    Tilt,
    Translated,
)
from proxsae.regularizers.conjugate import Piece
from proxsae.regularizers.separable import Separable
from proxsae.verification import prove, verify
from proxsae.verification.oracles.fenchel import check_fenchel
from proxsae.verification.pair import pair_of_regularizer


class Modulus(Separable):
    """r(z) = abs(z), with the conjugate of a subclass."""

    is_convex, is_symmetric, degree = True, True, 1

    def value_of(self, xp, z):
        return xp.abs(z)

    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)

    @property
    def writer(self):  # of the value: what else it writes belongs to it
        return type(self)


class Bounded(Modulus):
    def conjugate_of(self, xp, v):
        return xp.where(xp.abs(v) <= 1.0, 0.0 * v, xp.inf)


class Unbounded(Modulus):
    def conjugate_of(self, xp, v):
        return 0.0 * v


class BoundedAbove(Modulus):
    def conjugate_of(self, xp, v):
        return xp.where(v <= 1.0, 0.0 * v, xp.inf)


class BoundTooWide(Modulus):
    def conjugate_of(self, xp, v):
        return xp.where(xp.abs(v) <= 1.0001, 0.0 * v, xp.inf)


class NoNumberFarOut(Modulus):
    def conjugate_of(self, xp, v):
        return xp.where(xp.abs(v) <= 1.0, 0.0 * v, xp.inf - xp.inf)


class WrongPiece(Modulus):
    def piece(self):
        return Piece(ridge=1e-3)


class UnsaidConvex(Modulus):
    """Solvers ask for the conjugate, whether R says that it is convex or not."""

    is_convex = False

    def conjugate_of(self, xp, v):
        return 0.0 * v


class UnboundedHuber(Huber):
    def value_of(self, xp, z):
        return super().value_of(xp, z)

    def conjugate_of(self, xp, v):
        return 0.5 * self.alpha * v * v


class HalfTheDualNorm(LInf):
    def value_of(self, xp, Z):
        return super().value_of(xp, Z)

    def dual_norm_of(self, xp, V):
        return 0.5 * xp.abs(V).sum(-1)


class ForgetsTheRidge(GroupL2):
    """Right by itself, and too small in a sum with a ridge."""

    def conjugate_on(self, xp, V, ridge=0.0):
        return super().conjugate_on(xp, V, 2.0 * ridge)


TOO_SMALL = [
    Unbounded(),
    0.3 * Unbounded(),
    1e6 * Unbounded(),
    np.array([0.1, 0.0, 3.0]) * Unbounded(),
    Unbounded() + NonNegative(),
    Translated(Unbounded(), 0.4) + Tilt(0.2),
    BoundedAbove(),
    BoundTooWide(),
    0.01 * BoundTooWide(),
    NoNumberFarOut(),
    WrongPiece(),
    UnsaidConvex(),
    UnboundedHuber(1.0),
    HalfTheDualNorm(),
    ForgetsTheRidge(2),
]


@pytest.mark.parametrize("R", TOO_SMALL, ids=repr)
def test_a_conjugate_that_is_too_small_is_seen(R):
    found = check_fenchel(R, pair_of_regularizer(R))
    assert found.verdict == "failed"
    if isinstance(R, NoNumberFarOut):
        assert "no number" in found.reason
        return
    sides = [value for name, value in found.counterexample.items() if name not in ("z", "v")]
    assert sides[0] + sides[1] < sides[2]


@pytest.mark.parametrize(
    "R",
    [
        Bounded(),
        1e-3 * Bounded(),
        1e6 * Bounded(),
        np.array([0.1, 0.0, 3.0]) * Bounded(),
        1e3 * L1() + Tilt(999.0),  # rounding allows 2e-6 beyond an edge at 1
        1e4 * L1() + Tilt(1e4),
        1e-6 * SquaredL2(),
    ],
    ids=repr,
)
def test_a_right_one_passes(R):
    found = check_fenchel(R, pair_of_regularizer(R))
    assert found.verdict == "passed", str(found)


@pytest.mark.parametrize("R", [Unbounded(), UnsaidConvex(), UnboundedHuber(1.0)], ids=repr)
def test_verify_sees_it(R):
    report = verify(R, proof_timeout=0.0)
    assert [check.method for check in report.failures] == ["Fenchel's inequality with the conjugate"]


class WrittenForArrays(Modulus):
    def conjugate_of(self, xp, v):
        return np.where(abs(v) <= 1.0, 0.0, np.inf)


@pytest.mark.parametrize("form", [lambda R: R, lambda R: R + NonNegative(), lambda R: 0.3 * R + Tilt(0.2)])
def test_the_proof_covers_the_conjugate(form):
    proof = prove(form(Bounded()))
    assert proof.verdict == "proved"
    assert "r(z) + r*(v) >= z v for all real z and v" in proof.theorem
    numbers = prove(form(Unbounded())).counterexample
    assert numbers["fails"] == "r(z) + r*(v) >= z v"
    assert numbers["r(z)"] + numbers["r*(v)"] < numbers["z v"] == numbers["z"] * numbers["v"]


def test_the_proof_covers_the_conjugate_of_a_partner():
    assert prove(Unbounded() + Cardinality(2)).counterexample["fails"] == "r(z) + r*(v) >= z v"


@pytest.mark.parametrize("R", [L1(), LInfBall(2.0), GroupL2(2), WrittenForArrays()], ids=repr)
def test_a_proof_without_the_conjugate_says_so(R):
    proof = prove(R)
    assert proof.verdict == "proved"
    assert proof.theorem.endswith("the conjugate is not part of the proof")
    assert "conjugate" not in prove(L0()).theorem
