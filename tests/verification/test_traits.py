"""Every trait that a sum, a cardinality or a solver relies on is checked against a class that claims it falsely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proxsae.regularizers import L0, L1, GroupL2, LInf, OfNorms
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.partition import Grouped
from proxsae.regularizers.separable import Separable
from proxsae.verification import prove, verify
from proxsae.verification.oracles.traits import check_sums, check_traits
from proxsae.verification.pair import pair_of_regularizer


def soft(xp, u, t):
    return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


class DipBelowZero(Separable):
    """-3 at z = -0.777, else 0: the prox is right, and with z >= 0 the calculus would take it at max(u, 0)."""

    is_least_at_zero = True

    def value_of(self, xp, z):
        return xp.where(xp.abs(z + 0.777) > 0, 0.0, -3.0)

    def prox_of(self, xp, u, t):
        return xp.where((u + 0.777) * (u + 0.777) < 6.0 * t, -0.777, u)


class LeastAtOne(Separable):
    is_convex, is_least_at_zero = True, True

    def value_of(self, xp, z):
        return xp.abs(z - 1.0)

    def prox_of(self, xp, u, t):
        return 1.0 + soft(xp, u - 1.0, t)


class EvenButFalling(Separable):
    """-abs(z) up to 1: an even r whose prox is odd but at 0."""

    is_symmetric = True

    def value_of(self, xp, z):
        return -xp.minimum(xp.abs(z), 1.0)

    def prox_of(self, xp, u, t):
        a = xp.abs(u)
        return xp.sign(u) * xp.where(a + t < 1.0, a + t, xp.maximum(a, 1.0))


class FiniteBelowZero(Separable):
    """So steep below 0 that no answer is there."""

    is_convex, is_nonnegative = True, True

    def value_of(self, xp, z):
        return xp.where(z < 0, -1e9 * z, 0.0)

    def prox_of(self, xp, u, t):
        return xp.where(u < 0, xp.minimum(u + 1e9 * t, 0.0), u)


class WithoutWeight(Separable):
    """A weight would be taken for nothing."""

    is_convex, is_symmetric, is_indicator = True, True, True

    def value_of(self, xp, z):
        return xp.abs(z)

    def prox_of(self, xp, u, t):
        return soft(xp, u, t)


class ConvexButForOnePoint(Separable):
    is_convex = True

    def value_of(self, xp, z):
        return xp.abs(z) + xp.where(xp.abs(z - 2.0) > 0, 0.0, -1e-3)

    def prox_of(self, xp, u, t):
        return soft(xp, u, t)


class OfAnotherDegree(L1):
    degree = 2


class OfAnotherUnit(Separable):
    """min(abs(z), theta)^0, whose theta is not said to be a length."""

    theta: Any = 1.0
    is_convex, is_symmetric, degree = True, True, 0

    def value_of(self, xp, z):
        return xp.where(xp.abs(z) <= self.theta, 0.0, xp.inf)

    def prox_of(self, xp, u, t):
        return xp.minimum(xp.maximum(u, -self.theta), self.theta)


class LargestEntry(NonSeparable):
    """max(z_1, ..., z_n, 0) looks at signs."""

    is_convex, is_symmetric = True, True

    def value_of(self, xp, Z):
        return xp.maximum(Z, 0.0).max(-1)

    def prox_of(self, xp, U, t):
        return xp.minimum(U, 0.0) + LInf().prox_of(xp, xp.maximum(U, 0.0), t)


class DistanceFromTheMean(NonSeparable):
    """Its prox moves a zero to where the others are, which no function of norms does."""

    is_convex, is_radial = True, True

    def value_of(self, xp, Z):
        return 0.5 * ((Z - Z.mean(-1)[..., None]) ** 2).sum(-1)

    def prox_of(self, xp, U, t):
        mean = U.mean(-1)[..., None]
        return mean + (U - mean) / (1.0 + t)


class OneNormOfAll(Grouped, NonSeparable):
    """The norm of the whole code, which says that it is the sum of the norms of its groups."""

    groups: Any

    is_convex = True

    def __post_init__(self):
        super().__post_init__()
        self.read_groups()

    def is_sum_over(self, groups):
        return self.has_groups(groups)

    def group_values(self, xp, Z, parts):
        return OfNorms(L1(), self.groups).group_values(xp, Z, parts)

    def value_of(self, xp, Z):
        return OfNorms(L1()).value_of(xp, Z)

    def prox_of(self, xp, U, t):
        return OfNorms(L1()).prox_of(xp, U, t)


LIES = [
    (DipBelowZero(), "R is least at zero"),
    (np.array([0.5, 2.0]) * DipBelowZero(), "R is least at zero"),
    (LeastAtOne(), "R is least at zero"),
    (EvenButFalling(), "R does not fall"),
    (FiniteBelowZero(), "R is infinite unless"),
    (WithoutWeight(), "R is 0 or infinite"),
    (ConvexButForOnePoint(), "R is convex"),
    (OfAnotherDegree(), "other units"),
    (OfAnotherUnit(), "other units"),
    (LargestEntry(), "R ignores signs"),
    (OneNormOfAll([0, 1, 0]), "R is the sum of its groups"),
]


@pytest.mark.parametrize(("R", "words"), LIES, ids=repr)
def test_a_false_trait_is_seen(R, words):
    found = check_traits(R, pair_of_regularizer(R))
    assert found.verdict == "failed"
    assert words in found.reason
    if "other units" not in words:
        numbers = found.counterexample
        assert not numbers["at least"] <= numbers["R(z)"] <= numbers["at most"]


def test_a_false_claim_to_be_radial_is_seen_in_the_sum_that_rests_on_it():
    assert check_sums(GroupL2(2), pair_of_regularizer(GroupL2(2))).verdict == "passed"
    found = check_sums(DistanceFromTheMean(), pair_of_regularizer(DistanceFromTheMean()))
    assert found.verdict == "failed"
    assert "R is radial" in found.reason
    assert found.counterexample["better objective"] < found.counterexample["claimed objective"]


@pytest.mark.parametrize("R", [LeastAtOne(), WithoutWeight(), DistanceFromTheMean()], ids=repr)
def test_verify_fails(R):
    methods = [check.method for check in verify(R, proof_timeout=0.0).failures]
    assert methods == ["sum that rests on is_radial" if R.is_radial else "traits"]


def test_the_counterexample_names_both_codes():
    numbers = check_traits(DipBelowZero(), pair_of_regularizer(DipBelowZero())).counterexample
    assert (numbers["z"], numbers["R(z)"], numbers["at most"]) == (0.0, 0.0, -3.0)
    assert numbers["other z"] == -0.777


@pytest.mark.parametrize("R", [DipBelowZero(), LeastAtOne(), 0.3 * LeastAtOne()], ids=repr)
def test_the_proof_refutes_that_r_is_least_at_zero(R):
    numbers = prove(R).counterexample
    assert numbers["fails"] == "r(0) <= r(z)"
    assert numbers["r(z)"] < numbers["r(0)"]
    assert "r(0) <= r(z) for these parameters" in prove(L0()).theorem
