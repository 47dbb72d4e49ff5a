"""The convex solver's own text of R: there for every convex class, and the value of the class."""

import itertools
import warnings

import cvxpy as cp
import numpy as np
import pytest
from zoo import JOINT, PER_COORDINATE, SEPARABLE, SUMS

from proxsae.regularizers import L1, Blocks, Entmax, GroupL2, Huber, NonNegative, Simplex, Tilt, Translated, from_cvxpy
from proxsae.verification.oracles import convex
from proxsae.verification.oracles.convex import compare_with_solver, expression_of
from proxsae.verification.pair import pair_of_regularizer

COMPOSED = [
    Translated(0.7 * GroupL2([0, 0, 1, 1, 1]), PER_COORDINATE) + Tilt(0.2),
    Translated(0.3 * Huber(0.5), PER_COORDINATE) + Tilt(0.2),
    2.0 * Blocks([(Simplex(), 2), (PER_COORDINATE[:3] * L1() + NonNegative(), 3)]),
    0.5 * from_cvxpy(lambda z: (cp.norm1(z), [z >= -1])),
]
CONVEX = [R for R in [*SEPARABLE, *SUMS, *JOINT, *COMPOSED] if R.is_convex]
WRITTEN = [R for R in CONVEX if not isinstance(R, Entmax)]  # which is a difference of two convex functions


def test_every_convex_regularizer_but_one_is_written():
    z = cp.Variable(5)
    assert {type(R) for R in CONVEX if expression_of(R, z) is None} == {Entmax}
    assert {R.is_convex for R in CONVEX} == {True}
    assert all(expression_of(R, z) is None for R in [*SEPARABLE, *SUMS, *JOINT] if not R.is_convex)


@pytest.mark.parametrize("R", WRITTEN, ids=repr)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_expression_is_convex_and_has_the_value(R, scale):
    R = R.rescaled(scale)
    for point in R.prox(np.random.default_rng(0).normal(size=(3, 5))):
        z = cp.Variable(5)
        expression, constraints = expression_of(R, z)
        problem = cp.Problem(cp.Minimize(expression), [*constraints, cp.abs(z - point) <= 1e-9])
        assert problem.is_dcp()
        assert problem.solve(solver=cp.CLARABEL) == pytest.approx(R.value(point), abs=1e-6)


def test_a_subclass_of_another_value_is_not_taken_for_its_base():
    class Doubled(L1):
        def value_of(self, xp, z):
            return 2.0 * xp.abs(z)

    class Renamed(L1):
        pass

    z = cp.Variable(5)
    assert expression_of(Doubled(), z) is None
    assert expression_of(Renamed(), z) is not None
    assert compare_with_solver(Doubled(), pair_of_regularizer(Doubled())).verdict == "skipped"


def test_an_inaccurate_solution_that_agrees_passes_without_a_warning():
    R = 0.3 * L1() + 0.3 * GroupL2(4)  # Clarabel stops short at one of these points
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare_with_solver(R, pair_of_regularizer(R, steps=(0.1, 1.0))).verdict == "passed"


@pytest.mark.parametrize(
    ("first", "later", "verdict", "reason"),
    [
        ([], "optimal", "failed", "it is another one"),
        ([], "optimal_inaccurate", "undecided", "it is another one, but the solver's status is optimal_inaccurate"),
        (["optimal_inaccurate"], "optimal", "failed", "it is another one"),
    ],
)
def test_an_inaccurate_solution_that_disagrees_refutes_nothing(monkeypatch, first, later, verdict, reason):
    solve = convex._solve
    statuses = itertools.chain(first, itertools.repeat(later))
    monkeypatch.setattr(convex, "_solve", lambda *at: (solve(*at)[0] + 1.0, solve(*at)[1], next(statuses)))
    check = compare_with_solver(L1(), pair_of_regularizer(L1(), steps=(1.0,)))
    assert check.verdict == verdict
    assert check.reason.endswith(reason)
