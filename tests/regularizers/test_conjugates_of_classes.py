"""R* of the catalogue: against its definition in cvxpy, on dense grids, and by Fenchel and Young's inequality."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from definitions import conjugate
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import JOINT, SEPARABLE, SUMS

from proxsae.regularizers import (
    L1,
    Blocks,
    Box,
    Entmax,
    GroupL2,
    Huber,
    KSupport,
    KSupportNorm,
    L1Ball,
    L2Ball,
    LInf,
    LInfBall,
    NonNegative,
    Numeric,
    Separable,
    Simplex,
    SortedL1,
    SquaredL2,
    SumOfKLargest,
    Tilt,
    Translated,
    TreeGroups,
    from_cvxpy,
)
from proxsae.regularizers.conjugate import conjugate_domain, conjugates, dual_scaling
from proxsae.verification.oracles.convex import expression_of
from proxsae.verification.oracles.fenchel import check_fenchel, check_fenchel_young
from proxsae.verification.pair import pair_of_regularizer

LABELS = [0, 2, 0, 2, 1]
CENTER = np.array([0.5, -1.0, 0.0, 2.0, 0.3])
MORE = [
    Huber(0.5) + 0.4 * SquaredL2() + Tilt(-0.3),
    2.0 * Huber(0.5) + NonNegative() + Tilt(0.2),
    LInfBall(0.7) + Tilt(CENTER),
    LInfBall(0.7) + 0.5 * SquaredL2() + NonNegative(),
    Translated(0.8 * L1(), CENTER) + NonNegative() + Tilt(0.2),
    Translated(0.8 * Huber(0.4) + NonNegative(), 0.4) + 0.3 * SquaredL2(),
    Translated(Translated(L1() + 0.3 * SquaredL2() + Box(-1.0, 2.0), CENTER), 0.5),
    Translated(NonNegative(), -0.7),
    GroupL2(LABELS, [0.0, 1.0, 0.5]) + 0.3 * L1(),
    0.4 * GroupL2(LABELS) + 0.3 * SquaredL2() + CENTER**2 * L1() + Tilt(-0.2),
    GroupL2(LABELS) + NonNegative() + SquaredL2(),
    L2Ball(1.3) + 0.6 * SquaredL2() + 0.2 * L1(),
    Simplex() + Tilt(CENTER),
    LInf() + NonNegative() + Tilt(-0.2),
    0.7 * SumOfKLargest(9) + NonNegative(),
    SortedL1([2.0, 1.0, 0.0, 0.0, 0.0]) + NonNegative(),
    0.8 * KSupport(3) + NonNegative(),
    2.0 * KSupportNorm(3) + NonNegative() + Tilt(CENTER),
    Translated(1.5 * LInf(), CENTER),
    Translated(0.7 * GroupL2(LABELS), CENTER) + SquaredL2() + Tilt(0.3),
    Blocks([(0.3 * Huber(), 2), (0.4 * GroupL2(3), 3)]) + 0.2 * SquaredL2(),
    Blocks([(L1Ball(), 2), (0.7 * KSupportNorm(2), 3)]),
]
WRITTEN = [R for R in (*SEPARABLE, *SUMS, *JOINT, *MORE) if R.is_convex and R.has_conjugate]


def test_every_convex_class_has_a_conjugate_but_two():
    without = [R for R in (*SEPARABLE, *SUMS, *JOINT, *MORE) if R.is_convex and not R.has_conjugate]
    assert {type(term) for R in without for term in R.terms} == {TreeGroups, Entmax}


@pytest.mark.parametrize("R", WRITTEN, ids=repr)
def test_is_the_supremum_that_a_solver_finds(R):
    n = pair_of_regularizer(R).n
    rng = np.random.default_rng(1)
    for scale in (0.05, 0.3, 1.0, 4.0):
        v = scale * rng.normal(size=n)
        z = cp.Variable(n)
        value, constraints = expression_of(R, z)
        problem = cp.Problem(cp.Maximize(v @ z - value), constraints)
        problem.solve(solver=cp.CLARABEL)
        exact = conjugate(R, v)
        if np.isinf(exact):
            assert problem.status == cp.UNBOUNDED
        else:
            assert problem.status == cp.OPTIMAL
            assert exact == pytest.approx(problem.value, abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("R", WRITTEN, ids=repr)
def test_fenchel_young(R):
    for check in (check_fenchel_young, check_fenchel):
        found = check(R, pair_of_regularizer(R))
        assert found.verdict == "passed", str(found)
    n = pair_of_regularizer(R).n
    rng = np.random.default_rng(2)
    Z = R.prox(3.0 * rng.normal(size=(400, n)))  # in the domain
    V = np.resize([0.1, 0.4, 1.0, 3.0], 400)[:, None] * rng.normal(size=(400, n))
    assert (R.value(Z)[:, None] + conjugate(R, V)[None] - Z @ V.T >= -1e-9 * (1 + np.abs(Z) @ np.abs(V.T))).all()


# --- scalar sums: any curve, translated, with any of the other terms --------------------------------------------------

tenths = st.integers(-20, 20).map(lambda i: i / 10)
weights = st.integers(0, 20).map(lambda i: i / 10)


@st.composite
def scalar_sums(draw, bounded=True):
    curve = draw(st.sampled_from([L1(), Huber(0.3), Huber(1.5)]))
    R = draw(weights) * curve + draw(weights) * SquaredL2() + draw(st.sampled_from([NonNegative(), Box(-0.8, 1.7)]))
    R = Translated(R, draw(tenths)) + draw(weights) * SquaredL2() + Tilt(draw(tenths))
    return R + Box(-3.0, 3.0) if bounded else R


@settings(derandomize=True, deadline=None, max_examples=300)
@given(scalar_sums(), st.integers(-60, 60).map(lambda i: i / 10))
def test_a_scalar_sum_is_the_supremum_over_a_dense_grid(R, v):
    grid = np.linspace(-3, 3, 60001)
    on_grid = (grid * v - R.value(grid[:, None])).max()
    assert on_grid - 1e-9 <= conjugate(R, np.array([v])) <= on_grid + 1e-3  # a slope of 10 over a step of 1e-4


@settings(derandomize=True, deadline=None, max_examples=300)
@given(scalar_sums(bounded=False), st.integers(-60, 60).map(lambda i: i / 10), st.floats(-6, 6))
def test_a_scalar_sum_bounds_from_above(R, v, z):
    assert R.value(np.array([z])) + conjugate(R, np.array([v])) >= z * v - 1e-9


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(st.integers(-500, 500).map(lambda i: i / 100), min_size=3, max_size=3),
    st.sampled_from([L1(), Huber(0.3)]),
    tenths,
    weights,
    weights,
)
def test_dual_scaling_reaches_the_edge_of_the_domain(v, curve, slope, w, ridge):
    R = (abs(slope) + w) * curve + ridge * SquaredL2() + Tilt(slope)  # bounded below
    V = np.array([v])
    s = dual_scaling(R, V)
    assert 0 <= s[0] <= 1
    assert np.isfinite(conjugate(R, s[:, None] * V)[0])
    if s[0] < 1:
        assert np.isinf(conjugate(R, (1.0001 * s[:, None] + 1e-6) * V)[0])


# --- weights, dtypes, edges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "R", [L1(), Huber(0.5), GroupL2(LABELS), LInf(), KSupport(2), KSupportNorm(2), SumOfKLargest(3)], ids=repr
)
def test_a_weight_scales_value_and_argument(R):
    V = np.random.default_rng(3).normal(size=(50, 5)) * np.resize([0.1, 0.5, 2.0], 50)[:, None]
    for w in (0.3, 4.0):
        np.testing.assert_allclose(conjugate(w * R, V), w * conjugate(R, V / w), rtol=1e-12)
    V[0] = 0.0
    assert np.array_equal(conjugate(0.0 * R, V), np.where(V.any(axis=1), np.inf, 0.0))


@pytest.mark.parametrize("R", WRITTEN, ids=repr)
def test_torch_is_numpy_in_both_precisions(R):
    n = pair_of_regularizer(R).n
    V = np.random.default_rng(4).normal(size=(40, n)) * np.resize([0.1, 0.5, 2.0], 40)[:, None]
    wide = conjugate(R, V)
    np.testing.assert_allclose(conjugate(R, torch.from_numpy(V)).numpy(), wide, rtol=1e-12, atol=1e-14)
    narrow = conjugate(R, torch.from_numpy(V).float())
    assert narrow.dtype == torch.float32
    np.testing.assert_allclose(narrow.numpy(), wide, rtol=1e-4, atol=1e-5)
    assert conjugate(R, V[3]) == pytest.approx(wide[3])


def test_the_edge_of_a_dual_ball_is_in_it_up_to_rounding():
    for R, edge in [
        (0.3 * LInf(), [0.1, -0.2]),
        (SortedL1([0.7, 0.1]), [0.7, -0.1]),
        (0.5 * KSupportNorm(2), [0.3, 0.4]),
        (0.1 * L1() + 0.5 * GroupL2(2, [1.0]), [-0.4, 0.5]),
        (0.3 * L1() + Tilt(1e3), [1000.3, 999.7]),
    ]:
        v = np.array(edge)
        assert conjugate(R, v * (1 + 1e-13)) == pytest.approx(0.0, abs=1e-9)
        assert np.isinf(conjugate(R, v * (1 + 1e-5)))


def test_each_block_and_group_counts():
    R = Blocks([(Simplex(2.0), 2), (L2Ball(3.0), 2), (LInfBall(0.5), 1)])
    assert conjugate(R, np.array([-1.0, 0.5, 3.0, 4.0, -2.0])) == pytest.approx(1.0 + 15.0 + 1.0)
    assert np.array_equal(conjugates(LInfBall(0.5), np.array([[-2.0, 1.0]])), [[1.0, 0.5]])


@pytest.mark.parametrize(
    "R",
    [
        Entmax(1.5),
        TreeGroups([[0, 1], [0, 1, 2]]),
        LInf() + SquaredL2(),
        Simplex() + SquaredL2(),
        Blocks([(Entmax(), 3)]),
        Translated(Entmax(), 0.1),
        Numeric(np.abs),
        from_cvxpy(cp.norm1),
    ],
    ids=repr,
)
def test_what_has_none(R):
    assert not R.has_conjugate


def test_a_subclass_may_be_another_function():
    class Twice(LInf):
        def value_of(self, xp, Z):
            return 2 * super().value_of(xp, Z)

    class Renamed(LInf):
        pass

    assert not Twice().has_conjugate
    assert Renamed().has_conjugate


def test_the_check_sees_a_wrong_prox_and_a_wrong_conjugate():
    class WrongProx(KSupportNorm):
        def prox_of(self, xp, U, t):
            return super().prox_of(xp, U, 0.999 * t)

    class WrongConjugate(KSupport):
        def value_of(self, xp, Z):
            return super().value_of(xp, Z)

        def conjugate_of(self, xp, V):
            return 1.001 * super().conjugate_of(xp, V)

    for R in (WrongProx(2), WrongConjugate(2)):
        assert check_fenchel_young(R, pair_of_regularizer(R)).verdict == "failed"


class RidgeByHand(Separable, named=False):
    """z^2 / 2, of whose conjugate nothing is known but its values."""

    is_convex, is_symmetric = True, True

    def value_of(self, xp, z):
        return z * z / 2

    def prox_of(self, xp, u, t):
        return u / (1 + t)

    def conjugate_of(self, xp, v):
        return v * v / 2


def test_ends_of_a_domain_beyond_the_dtype_are_none():
    low, high = conjugate_domain(RidgeByHand(), np.zeros(3, np.float32))  # a warning would be an error
    assert (low, high) == (-np.inf, np.inf)
