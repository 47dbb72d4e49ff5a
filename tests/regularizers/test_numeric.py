"""Numeric and from_cvxpy: a regularizer that is only a value, against the catalogue and against dense search."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest
import torch

from proxsae import ProxSAE, solve
from proxsae.formulas.numba import compiled
from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    AsymmetricL0,
    Blocks,
    Cardinality,
    GroupL2,
    Huber,
    LogSum,
    Lq,
    NonNegative,
    Numeric,
    Simplex,
    SquaredL2,
    Tilt,
    from_cvxpy,
    parse,
)
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.regularizers.tabulation import exact_prox
from proxsae.verification import verify
from proxsae.verification.oracles.convex import compare_with_solver
from proxsae.verification.oracles.properties import check_monotone
from proxsae.verification.oracles.traits import check_traits
from proxsae.verification.pair import pair_of_regularizer


def modulus(z):
    return np.abs(z)


def count(z):
    return 1.0 if z != 0 else 0.0  # of a float, not of an array


def root(z):
    return np.sqrt(np.abs(z))


def capped_below(z):
    return np.where(z < 0, np.inf, np.minimum(z, 0.7))


def two_costs(z):
    return np.where(z > 0, 1.0, np.where(z < 0, 2.0, 0.0))


def steps(z):
    """A staircase with isolated wells: nothing in the catalogue."""
    return 0.3 * np.floor(np.abs(z)) + np.where(z == 0, 0.0, 0.2) + 0.1 * np.sin(5 * z) ** 2


PAIRS = [
    (modulus, L1()),
    (count, L0()),
    (root, Lq(0.5)),
    (two_costs, AsymmetricL0(1.0, 2.0)),
    (lambda z: np.log1p(abs(z) / 0.3), LogSum(0.3)),
]


def away_from_jumps(R, U, t):
    """Where the prox moves less than 0.01 within 1e-5: next to a jump either side is right."""
    return np.abs(R.prox(U + 1e-5, t) - R.prox(U - 1e-5, t)) < 0.01


def objective(R, U, t, Z):
    return 0.5 * ((Z - U) ** 2).sum(1) + t * R.value(Z)


def searched(R, U, t=1.0):
    """The prox of a Numeric of weight 1 without its table."""
    return exact_prox(R.function, R.limit, R.points, t, U.ravel()).reshape(U.shape)


@pytest.mark.parametrize(("function", "R"), PAIRS, ids=[str(R) for _, R in PAIRS])
@pytest.mark.parametrize("t", [0.1, 1.0, 5.0])
def test_the_value_alone_gives_the_closed_form(function, R, t):
    U = np.random.default_rng(0).normal(size=(400, 1)) * 4
    expected, found = R.prox(U, t), Numeric(function).prox(U, t)
    fine = away_from_jumps(R, U, t)
    assert fine.mean() > 0.99
    np.testing.assert_allclose(found[fine], expected[fine], atol=2e-5)
    assert (abs(found - expected)[fine] <= Numeric(function).error_bound(t) * (1 + abs(expected[fine]))).all()
    excess = objective(R, U, t, found) - objective(R, U, t, expected)
    assert (excess <= 2e-7 * (1 + U[:, 0] ** 2)).all()
    np.testing.assert_allclose(Numeric(function).value(U), R.value(U), atol=1e-12)
    np.testing.assert_allclose(searched(Numeric(function), U, t)[fine], expected[fine], atol=1e-6)


@pytest.mark.parametrize("t", [0.1, 1.0, 5.0])
def test_the_bound_is_tight_enough_to_mean_something(t):
    for function in (modulus, np.square, root, count):
        assert Numeric(function).error_bound(t) <= 1e-3
    assert Numeric(modulus).error_bound(t) <= 2e-6  # linear on both sides of its kink


def test_the_bound_sees_a_coarse_table(monkeypatch):
    """With few nodes and no halving the error is large, and the bound is still above it."""
    monkeypatch.setattr("proxsae.regularizers.tabulation.INPUT_SPACING", 0.3)
    for function in (modulus, lambda z: np.abs(z) ** 1.5, lambda z: z**4):
        coarse = Numeric(function, limit=5.0, tolerance=10.0)
        U = np.linspace(-5, 5, 4001)[:, None]
        Z, best = coarse.prox(U), searched(coarse, U)
        error = np.abs(Z - best) / (1 + np.abs(best))
        assert 1e-3 < error.max() <= coarse.error_bound()


@pytest.mark.parametrize("t", [0.2, 1.0, 4.0])
def test_jumps_and_wells_are_searched_whole(t):
    R = Numeric(steps, limit=20.0, points=range(-40, 41))
    z = np.union1d(np.linspace(-8, 8, 160001), np.nextafter(np.arange(1.0, 9), 0))
    for u in np.random.default_rng(1).uniform(-5, 5, size=25):
        claimed = searched(R, np.array([u]), t)[0]
        best = np.min(0.5 * (z - u) ** 2 + t * steps(z))
        assert 0.5 * (claimed - u) ** 2 + t * steps(np.array(claimed)) <= best + 1e-8
        assert R.prox(np.array([u]), t)[0] == pytest.approx(claimed, abs=1e-4)


def shifted_box(z):
    return np.where(np.abs(z - 0.5) <= 1, 0.0, np.inf)


def barrier(z):
    return np.where(z > 0, -np.log(np.where(z > 0, z, 1.0)), np.inf)


def stairs(z):
    return np.ceil(np.abs(z))


@pytest.mark.parametrize("t", [1e-4, 0.3, 7.0])
def test_jumps_and_ends_of_the_domain_are_found_off_the_grid(t):
    u = np.linspace(-9.0, 9.0, 301)
    np.testing.assert_allclose(Numeric(shifted_box, limit=10.0).prox(u, t), np.clip(u, -0.5, 1.5), atol=5e-6)
    root = 0.5 * (u + np.sqrt(u * u + 4.0 * t))
    np.testing.assert_allclose(Numeric(barrier, limit=10.0).prox(u, t), root, atol=2e-5)
    steps = np.arange(10.0)[:, None]  # the best z of each stair
    z = np.sign(u) * np.minimum(np.abs(u), steps)
    F = 0.5 * (z - u) ** 2 + t * stairs(z)
    found = Numeric(stairs, limit=10.0).prox(u, t)
    np.testing.assert_allclose(0.5 * (found - u) ** 2 + t * stairs(found), F.min(axis=0), atol=1e-7)


def test_an_isolated_point_has_to_be_named():
    def integers(z):
        return np.where(z == np.round(z), 0.0, np.inf)

    with pytest.raises(ValueError, match="alone; name such points"):
        Numeric(integers, limit=5.0).prox(np.array([1.2]))
    named = Numeric(integers, limit=5.0, points=tuple(range(-10, 11)))
    np.testing.assert_array_equal(named.prox(np.array([1.2, -2.7, 0.4])), [1.0, -3.0, 0.0])


def test_domain_and_traits_are_seen():
    R = Numeric(capped_below)
    U = np.linspace(-3, 3, 61)[:, None]
    assert R.is_nonnegative
    assert R.is_least_at_zero
    assert not R.is_symmetric
    assert (R.prox(U) >= 0).all()
    assert Numeric(modulus).is_symmetric
    convex = (modulus, np.square, lambda z: np.where(abs(z) <= 1, 0.0, np.inf), lambda z: np.logaddexp(z, -z))
    assert all(Numeric(function).is_convex for function in convex)
    assert not any(Numeric(function).is_convex for function in (count, root, two_costs, steps, lambda z: -z * z))
    assert not Numeric(lambda z: z).is_least_at_zero
    assert np.isinf(R.value(np.array([-1.0])))


def test_it_adds_like_any_other():
    U = np.random.default_rng(2).normal(size=(60, 6)) * 3
    mine, known = Numeric(modulus), L1()
    for extra in (
        NonNegative(),
        SquaredL2(),
        0.4 * L0(),
        Tilt(-0.3),
        Cardinality(2),
        NonNegative() + Cardinality(2),
        Cardinality(2, "batch"),
    ):
        np.testing.assert_allclose((0.7 * mine + extra).prox(U, 0.8), (0.7 * known + extra).prox(U, 0.8), atol=1e-5)
    per_coordinate = np.array([0.1, 0.5, 1.0, 2.0, 0.0, 3.0])
    np.testing.assert_allclose((per_coordinate * mine).prox(U), (per_coordinate * known).prox(U), atol=1e-5)
    steps_ = np.array([0.3, 1.0, 2.0])[:, None]
    np.testing.assert_allclose(mine.prox(U[:3], steps_), known.prox(U[:3], steps_), atol=1e-5)


def test_torch_reads_the_same_table_and_differentiates_it():
    U = np.random.default_rng(3).normal(size=(50, 3)) * 3
    for R, known in ((Numeric(root), Lq(0.5)), (Numeric(modulus) + NonNegative(), L1() + NonNegative())):
        u = torch.from_numpy(U).requires_grad_()
        Z = R.prox(u, 0.7)
        np.testing.assert_allclose(Z.detach().numpy(), R.prox(U, 0.7), rtol=0, atol=1e-14)
        (gradient,) = torch.autograd.grad(Z.sum(), u)
        other = torch.from_numpy(U).requires_grad_()
        (expected,) = torch.autograd.grad(known.prox(other, 0.7).sum(), other)
        torch.testing.assert_close(gradient, expected, rtol=2e-2, atol=2e-2)
        assert R.prox(u.detach().float(), 0.7).dtype == torch.float32
        assert R.value(u.detach()).dtype == torch.float64


@pytest.mark.parametrize("limit", [5.0, 10.0, 12.0, 20.0, 50.0])
def test_zero_is_a_node_of_the_table(limit):
    assert 0.0 in Numeric(modulus, limit=limit).table(1.0).u


def test_a_solver_takes_it():
    rng = np.random.default_rng(8)
    X, D = rng.normal(size=(5, 6)), rng.normal(size=(9, 6))
    mine, known = solve(X, D, 0.5 * Numeric(modulus) + NonNegative()), solve(X, D, 0.5 * L1() + NonNegative())
    np.testing.assert_allclose(mine.objective, known.objective, rtol=1e-5)


def test_other_units_and_the_text():
    R, U = 0.6 * Numeric(root), np.random.default_rng(4).normal(size=(40, 2)) * 3
    fine = away_from_jumps(0.6 * Lq(0.5), U, 1.0)
    np.testing.assert_allclose(R.rescaled(1.7).prox(1.7 * U)[fine], 1.7 * R.prox(U)[fine], atol=1e-4)
    assert repr(R) == "0.6*Numeric(root)"
    assert parse("0.6*Numeric(root)", root=root) == R
    assert r"\mathrm{root}" in R.latex()
    assert "prox" in R.latex("prox")
    assert Numeric(modulus) != Numeric(root)


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: Numeric(3.0), TypeError, "takes a function of z"),
        (lambda: Numeric(lambda z: z / z * np.inf), ValueError, "NaN at z = 0"),
        (lambda: Numeric(lambda z: np.inf + 0 * z), ValueError, "infinite everywhere"),
        (lambda: Numeric(modulus, limit=5.0).prox(np.array([7.0])), ValueError, "limit=5"),
        (lambda: Numeric(modulus, limit=5.0).prox(7.0), ValueError, "limit=5"),
        (lambda: Numeric(modulus, limit=5.0).prox(torch.tensor(7.0)), ValueError, "limit=5"),
        (lambda: Numeric(lambda z: -0.9 * z, limit=5.0).prox(np.array([1.0]), 100.0), ValueError, "beyond 10"),
        (
            lambda: Numeric(modulus).prox(np.ones((70, 1)), np.linspace(1, 2, 70)[:, None]),
            ValueError,
            "at most 64 at once, got 70",
        ),
        (lambda: Numeric(np.floor).prox(np.array([1.0])), ValueError, "over 100000 nodes"),
        (lambda: compiled(Numeric(modulus)), TypeError, "no formula to compile"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_input_is_refused_in_words(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()


CONVEX = [
    (lambda z: cp.norm1(z), L1()),
    (lambda z: (0.5 * cp.norm2(z[:2]) + 0.5 * cp.norm2(z[2:]), [z >= 0]), 0.5 * GroupL2(2, [1.0, 1.0]) + NonNegative()),
    (lambda z: cp.sum(cp.huber(z, 0.5)), Huber(0.5)),
]


@pytest.mark.parametrize("encoder", ["amortized", "unrolled"])
@pytest.mark.parametrize("build", [from_cvxpy, lambda f: Blocks([(L1(), 2), (0.3 * from_cvxpy(f), 4)])])
def test_from_cvxpy_needs_a_solved_encoder(build, encoder):
    X = np.random.default_rng(0).normal(size=(20, 4))
    with pytest.raises(ValueError, match=r'has no gradient, so that it needs encoder="solved"$'):
        ProxSAE(build(cp.norm1), 6, encoder=encoder, n_steps=2).fit(X)


@pytest.mark.parametrize("i", range(3))
def test_from_cvxpy_solves(i):
    build, known = CONVEX[i]
    R = from_cvxpy(build)
    U = np.random.default_rng(5).normal(size=(6, 4)) * 2
    t = np.linspace(0.3, 2, 6)[:, None]
    np.testing.assert_allclose(R.prox(U, t), known.prox(U, t), atol=1e-4)
    np.testing.assert_allclose((0.5 * R).prox(U, t), (0.5 * known).prox(U, t), atol=1e-4)
    np.testing.assert_allclose(R.rescaled(2.0).prox(U), known.rescaled(2.0).prox(U), atol=1e-4)
    Z = known.prox(U, t)
    np.testing.assert_allclose(R.value(Z), known.value(Z), atol=1e-6)
    np.testing.assert_allclose(R.prox(torch.from_numpy(U)).numpy(), known.prox(U), atol=1e-4)
    assert R.is_convex
    assert np.isinf(R.value(-np.ones(4))) == np.isinf(known.value(-np.ones(4)))


def test_threads_may_share_one_from_cvxpy():
    R = from_cvxpy(cp.norm1)
    U = np.random.default_rng(0).normal(size=(3, 20, 4))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda u: (R.prox(u, 0.3), R.value(u)), U))
    for u, (z, values) in zip(U, found, strict=True):
        np.testing.assert_allclose(z, L1().prox(u, 0.3), atol=1e-5)
        np.testing.assert_allclose(values, abs(u).sum(-1), atol=1e-9)


def test_from_cvxpy_takes_other_variables_and_refuses_what_is_not_convex():
    def infimal(z):
        w = cp.Variable(z.shape)
        return cp.norm1(w) + 0.5 * cp.sum_squares(z - w)

    U = np.random.default_rng(6).normal(size=(3, 3))
    np.testing.assert_allclose(from_cvxpy(infimal).prox(U), Huber(1.0).prox(U), atol=1e-4)
    np.testing.assert_allclose(from_cvxpy(infimal).value(U), Huber(1.0).value(U), atol=1e-6)
    with pytest.raises(ValueError, match="not convex"):
        from_cvxpy(lambda z: -cp.norm1(z)).prox(U)
    with pytest.raises(ValueError, match="not convex"):
        from_cvxpy(lambda z: -cp.norm1(z)).value(U)
    with pytest.raises(TypeError, match="no gradient"):
        from_cvxpy(infimal).prox(torch.ones(2, 3, requires_grad=True))
    with pytest.raises(ValueError, match="no calculus rule"):
        from_cvxpy(infimal) + L1()
    assert (MCP() + L0()).is_separable


def test_from_cvxpy_takes_a_number_and_an_expression_of_one_entry():
    u = np.array([0.5, -0.2, 0.3])
    simplex = from_cvxpy(lambda z: (0, [z >= 0, cp.sum(z) == 1]))
    np.testing.assert_allclose(simplex.prox(u), Simplex().prox(u), atol=1e-6)
    assert simplex.value(Simplex().prox(u)) == 0
    assert from_cvxpy(lambda z: cp.sum(cp.abs(z), keepdims=True)).value(u) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [tuple, set, iter])
def test_from_cvxpy_takes_constraints_in_any_iterable(kind):
    ball = from_cvxpy(lambda z: (cp.norm1(z), kind([z >= 0, z <= 0.3])))
    np.testing.assert_allclose(ball.prox(np.array([1.6, -0.2, 1.1])), [0.3, 0.0, 0.1], atol=1e-6)
    assert ball.value(np.array([[0.3, 0.0, 0.1], [-0.3, 0.0, 0.1]])).tolist() == [0.4, np.inf]


@pytest.mark.parametrize("method", ["prox", "value"])
@pytest.mark.parametrize(
    "build",
    [
        *(lambda z: None, lambda z: z >= 0, cp.abs, lambda z: (0, z >= 0), lambda z: (0, [True]), lambda z: (0, [], 0)),
        *(lambda z: np.nan, lambda z: (np.inf, [z >= 0]), lambda z: True),
    ],
)
def test_from_cvxpy_says_what_an_expression_is(build, method):
    sentence = "must be a scalar expression or a finite number, or a pair of either and a list of constraints, got"
    with pytest.raises(ValueError, match=sentence):
        getattr(from_cvxpy(build), method)(np.zeros(3))


def test_from_cvxpy_is_verified():
    report = verify(from_cvxpy(cp.norm_inf))
    assert report.passed, str(report)


EXPRESSIONS = {
    "norm1": lambda z: cp.norm1(z),
    "total variation": lambda z: cp.tv(z),
    "huber": lambda z: cp.sum(cp.huber(z, 0.5)),
    "fused lasso": lambda z: 0.3 * cp.norm1(z) + cp.norm1(cp.diff(z)),
    "quadratic form": lambda z: cp.quad_form(z, np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]])),
    "sum_largest": lambda z: cp.sum_largest(cp.abs(z), (z.size + 1) // 2),
    "simplex": lambda z: (0.0 * cp.sum(z), [z >= 0, cp.sum(z) == 1]),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_from_cvxpy_has_the_properties_of_a_prox(name):
    R = from_cvxpy(EXPRESSIONS[name])
    pair = pair_of_regularizer(R)
    checks = [check_monotone(pair, is_convex=True), check_traits(R, pair), compare_with_solver(R, pair)]
    assert all(check.verdict == "passed" for check in checks), str([check for check in checks if check.reason])


def test_what_from_cvxpy_forgives_is_small():
    class Wrong(FromCvxpy):
        def prox_of(self, xp, U, t):
            return super().prox_of(xp, U, 0.99 * t)

    R = Wrong(cp.norm1)
    pair = pair_of_regularizer(R)
    assert 0 < pair.tolerance <= 2e-5
    assert compare_with_solver(R, pair).verdict == "failed"
    assert check_monotone(pair, is_convex=True).verdict == "failed"


def test_from_cvxpy_does_not_depend_on_the_call_before():
    R, u = from_cvxpy(cp.norm1), np.array([0.3, -0.2, 2.0])
    alone = from_cvxpy(lambda z: cp.norm1(z)).prox(u)
    R.prox(1e3 * u, 1e6)
    assert np.array_equal(R.prox(u), alone)


def test_from_cvxpy_meets_its_tolerance_at_large_steps():
    R = from_cvxpy(lambda z: (cp.sum_squares(z), [z >= 0, cp.sum(z) <= 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(R.prox(np.zeros(3), 30.0)).max() <= R.tolerance


def test_from_cvxpy_names_a_width_that_does_not_fit():
    with pytest.raises(ValueError, match="no expression for codes of 2 components"):
        from_cvxpy(EXPRESSIONS["quadratic form"]).prox(np.zeros(2))
