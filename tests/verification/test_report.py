"""`verify` on the catalogue, what its report says, and what each oracle can see that the others cannot."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers import L0, L1, SCAD, Box, Cardinality, Entmax, NonNegative, SquaredL2
from proxsae.verification import Check, Report, verify
from proxsae.verification.functions import pairs_of_functions
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.oracles.convex import compare_with_solver
from proxsae.verification.oracles.fenchel import check_fenchel_young
from proxsae.verification.oracles.line import search_pair
from proxsae.verification.oracles.mixed_integer import compare_with_mixed_integer
from proxsae.verification.oracles.properties import (
    check_limits,
    check_monotone,
    check_repeatable,
)
from proxsae.verification.oracles.rounding import check_rounding
from proxsae.verification.oracles.supports import enumerate_supports
from proxsae.verification.oracles.traits import check_traits
from proxsae.verification.pair import pair_of_regularizer

SELECTIONS = [
    Cardinality(2),
    Cardinality(2, "batch"),
    NonNegative() + Cardinality(2),
    0.3 * L1() + 0.2 * L0() + Cardinality(2),
    np.array([0.1, 0.9, 0.4]) * L1() + Cardinality(2),
    Box(-0.5, 1.0) + Cardinality(1, "batch"),
]


SCALAR = [R for R in (*SEPARABLE, *TRANSCENDENTAL, *SUMS) if R.is_uniform]
EACH_COORDINATE = [
    np.array([0.0, 0.9]) * L1() + NonNegative(),
    np.array([0.2, 0.9]) * L0() + SquaredL2(),
    SCAD(3.7, np.array([0.5, 2.0])),
]


def once_a_class(catalogue):
    """Leave to the long run what brings no class that was not there before, and what takes long."""
    seen = set()
    for R in catalogue:
        classes = {type(term) for term in (*R.terms, *R.made_of())}
        is_quick = Entmax not in classes  # whose exact answers take seconds
        yield R if is_quick and classes - seen else pytest.param(R, marks=pytest.mark.soak)
        seen |= classes


@pytest.mark.parametrize("R", [*once_a_class([*SCALAR, *JOINT, *EACH_COORDINATE]), *SELECTIONS], ids=repr)
def test_catalogue_is_verified(R):
    report = verify(R, proof_timeout=0.0)
    assert report.passed, str(report)


def test_report_shows_each_check():
    report = verify("0.1*L1 + NonNegative")
    assert report.passed
    assert report.subject == "0.1*L1() + NonNegative()"
    assert report.counterexample is None
    text = str(report)
    assert text.startswith("passed: 0.1*L1() + NonNegative()")
    for check in report.checks:
        assert check.method in text
        assert check.covers
        assert check.seconds > 0
    methods = " ".join(check.method for check in report.checks)
    for oracle in ("search", "convex solver", "monotonicity", "Fenchel-Young", "backends", "proof"):
        assert oracle in methods


def test_report_of_a_failure_shows_the_numbers():
    text = str(verify(value=lambda z: 1.0 * (z != 0), prox=lambda u, t: np.where(np.abs(u) > t, u, 0.0)))
    assert text.startswith("FAILED:")
    for name in ("u ", "t ", "claimed z", "better z", "claimed objective", "better objective"):
        assert name in text


def test_undecided_and_skipped_checks_prove_nothing():
    undecided = Check("a", "b", "undecided")
    assert not Report("R", ()).passed
    assert not Report("R", (undecided, Check("a", "b", "skipped"))).passed
    assert Report("R", (undecided, Check("a", "b", "passed"))).passed
    assert not Report("R", (Check("a", "b", "failed"), Check("a", "b", "passed"))).passed


def test_missing_packages_skip_their_check(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("flint", "pyscipopt") else find_spec(name)
    )
    report = verify(0.2 * L0())
    assert report.passed
    skipped = {check.method: check.reason for check in report.checks if check.verdict == "skipped"}
    assert set(skipped) == {"mixed-integer solver (SCIP)", "proof"}
    assert all('pip install "proxsae[prove]"' in reason for reason in skipped.values())


# --- what each oracle sees by itself ---------------------------------------------------------------------------------


def wrong_soft(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - 0.9 * t, 0.0)


class WrongL1(L1):
    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.abs(u) - 0.9 * t, 0.0)


class OneTooMany(Cardinality):
    def prox_on(self, xp, U, step):
        return Cardinality(self.k + 1).prox_on(xp, U, step)


class WrongCardinality(Cardinality):
    def prox_on(self, xp, U, step):
        return Cardinality(1).prox_on(xp, U, step)


def pair(prox):
    return pairs_of_functions(lambda z: np.abs(z).sum(), prox, n=3)[0]


def overflows(u, t):
    return np.full_like(u, 1e308) * 10.0


def pair_that_forgets():
    answers = iter([np.zeros_like, lambda U: np.full_like(U, np.nan)])
    return replace(pair(wrong_soft), prox=lambda U, t: next(answers)(U))


class NaNInExactNumbers(L1):
    def prox_of(self, xp, u, t):
        return xp.where(xp.rounds_alike(u, u), super().prox_of(xp, u, t), u + xp.inf - xp.inf)


def on_pair(check, R):
    return check(R, pair_of_regularizer(R))


@pytest.mark.parametrize(
    "check",
    [
        lambda: search_pair(pairs_of_functions(np.abs, wrong_soft)[0]),
        lambda: search_codes(pair(wrong_soft)),
        lambda: search_pair(pairs_of_functions(np.abs, overflows)[0]),
        lambda: search_codes(pair(overflows)),
        lambda: check_repeatable(pair_that_forgets()),
        lambda: on_pair(check_rounding, NaNInExactNumbers()),
        lambda: on_pair(enumerate_supports, WrongCardinality(2)),
        lambda: on_pair(enumerate_supports, OneTooMany(2)),
        lambda: on_pair(compare_with_solver, WrongL1()),
        lambda: on_pair(compare_with_mixed_integer, WrongCardinality(2)),
        lambda: check_monotone(pair(lambda u, t: np.roll(u, 1))),
        lambda: check_monotone(pair(lambda u, t: -u)),
        lambda: check_monotone(pair(lambda u, t: 1.5 * u), is_convex=True),
        lambda: check_monotone(pair_of_regularizer(WrongL1()), is_convex=True),
        lambda: check_limits(pair(lambda u, t: u / (1 + 1 / t))),
    ],
)
def test_oracle_alone_sees_the_error(check):
    found = check()
    assert found.verdict == "failed"
    assert found.counterexample
    assert found.reason


@pytest.mark.parametrize(
    "check",
    [
        lambda: search_pair(pairs_of_functions(np.abs, lambda u, t: np.sign(u) * np.maximum(np.abs(u) - t, 0.0))[0]),
        lambda: on_pair(compare_with_solver, 0.3 * L1() + 0.5 * SquaredL2() + NonNegative()),
        lambda: on_pair(compare_with_mixed_integer, 0.2 * L1() + Box(-0.5, 1.0) + L0()),
        lambda: on_pair(
            compare_with_mixed_integer, np.array([0.1, 2.0, 0.5]) * L0() + SquaredL2() + NonNegative() + Cardinality(2)
        ),
        lambda: check_fenchel_young(0.3 * L1() + NonNegative(), pair_of_regularizer(0.3 * L1() + NonNegative())),
    ],
)
def test_oracle_alone_accepts_the_right_one(check):
    assert check().verdict == "passed"


class Even(L1):
    is_nonnegative = True
    is_scale_free = True


def test_traits_that_do_not_hold_are_seen():
    found = check_traits(Even(), pair_of_regularizer(Even()))
    assert found.verdict == "failed"
    assert "codes are non-negative" in found.reason


def test_local_minimum_does_not_hold_the_search():
    """At u = 3 the claimed answer 3 is a local minimum of |z|^(1/2), and so is what a local optimiser finds from it."""

    def nearest(u, t):
        return u - t * np.sign(u) / (2 * np.sqrt(np.abs(u) + 1e-12))

    pair = pairs_of_functions(lambda z: np.sqrt(np.abs(z)), nearest)[0]
    assert search_pair(pair).verdict == "failed"


def at_most_two(z):
    return np.inf if np.count_nonzero(z) > 2 else 0.0


def at_most_two_and_nonnegative(z):
    return np.inf if np.count_nonzero(z) > 2 or (z < 0).any() else 0.0


def keeps_all_ties(u, t):
    return np.where(np.abs(u) >= np.sort(np.abs(u))[-2], u, 0.0)


def keeps_all_positive_ties(u, t):
    return np.where(u >= np.sort(u)[-2], np.maximum(u, 0.0), 0.0)


def is_nan_at_ties(u, t):
    z = keeps_all_ties(u, t)
    return z if np.count_nonzero(z) <= 2 else np.full_like(u, np.nan)


@pytest.mark.parametrize("n", [3, 8, 40])
@pytest.mark.parametrize(
    ("value", "prox", "reason"),
    [
        (at_most_two, keeps_all_ties, "the claimed z is outside of the domain"),
        (at_most_two_and_nonnegative, keeps_all_positive_ties, "the claimed z is outside of the domain"),
        (at_most_two, is_nan_at_ties, "the prox is not finite"),
    ],
)
def test_an_answer_outside_of_the_domain_at_ties_alone_is_refuted(value, prox, reason, n):
    (functions,) = pairs_of_functions(value, prox, n)
    check = search_codes(functions)
    assert (check.verdict, check.reason) == ("failed", reason)
    u, better = check.counterexample["u"], check.counterexample["better z"]
    assert not np.isfinite(value(prox(u, 1.0)) + prox(u, 1.0)).all()
    assert value(better) == 0.0


def test_the_search_says_at_how_many_points_a_better_code_was_sought():
    covers = search_codes(pair_of_regularizer(Cardinality(2), effort="quick")).covers
    assert covers == "R(z) at 100 pairs (u, t) of length 3, t from 0.1 to 30; a better z sought at 20"


@pytest.mark.parametrize(
    ("R", "width"),
    [(L1(), None), (np.ones(3) * L1(), 3), (np.ones(3) * L0() + Cardinality(2), 3), (Cardinality(9), None)],
)
def test_width(R, width):
    assert pair_of_regularizer(R).is_free == (width is None)
    assert width in (None, pair_of_regularizer(R).n)


def test_pair_counts_what_interacts():
    assert all(pair.is_separable for pair in pairs_of_functions(np.abs, wrong_soft))
    assert pair(wrong_soft).is_separable  # a sum, though it is given as one number


def test_a_sum_given_as_one_number_is_searched_along_the_whole_line():
    def prox(u, t):
        z = np.sign(u) * np.maximum(np.abs(u) - t, 0.0)
        return np.where((np.abs(u) > 2e3) & (np.abs(u) < 5e3), u - 1.5 * np.sign(u) * t, z)

    assert not verify(value=lambda z: np.abs(z).sum(), prox=prox, effort="quick").passed


@pytest.mark.parametrize(
    "value",
    [
        np.linalg.norm,
        lambda z: float(z.any()),
        lambda z: np.abs(z).max(),
        lambda z: 0.0 if np.count_nonzero(z) <= 2 else np.inf,
        lambda z: 0.0 if z @ z <= 1 else np.inf,
        lambda z: 0.0 if abs(z.mean()) < 1e-9 else np.inf,
        lambda z: np.sort(np.abs(z))[::-1] * np.arange(len(z)),
    ],
)
def test_what_interacts_is_no_sum(value):
    assert not any(pair.is_separable for pair in pairs_of_functions(value, lambda u, t: u))
