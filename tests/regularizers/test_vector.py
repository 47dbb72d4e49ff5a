"""Balls, sorted norms, entmax: against cvxpy on their textbook definitions, and dense search where not convex."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from definitions import VECTOR_DEFINITIONS, P
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from proxsae.kernels.isotonic import nonincreasing_fit, pool_ends, pooled_means
from proxsae.regularizers import (
    L1,
    Box,
    Cardinality,
    Entmax,
    GroupL2,
    KSupport,
    KSupportNorm,
    L1Ball,
    L1MinusL2,
    L2Ball,
    LInf,
    LInfBall,
    NonNegative,
    Simplex,
    SortedL1,
    SquaredL2,
    SumOfKLargest,
    get,
)
from proxsae.verification.oracles.convex import expression_of


def points(n=6, p=P):
    rng = np.random.default_rng(0)
    special = [np.zeros(p), np.full(p, 0.9), -3.0 * np.eye(p)[1], np.tile([1.5, -1.5], p)[:p], 0.01 * np.ones(p)]
    return np.concatenate([rng.normal(size=(n, p)) * 2, special])


BALLS = (Simplex, L1Ball, L2Ball, Box)


@pytest.mark.parametrize(("R", "definition"), VECTOR_DEFINITIONS, ids=lambda x: repr(x) if hasattr(x, "prox") else "")
def test_the_prox_solves_its_problem(R, definition):
    assert R.is_convex
    for t in (0.3, 2.5):
        for u, claimed in zip(points(), R.prox(points(), t), strict=True):
            z = cp.Variable(P)
            value, constraints = definition(z)
            problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * value), constraints)
            problem.solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(claimed, z.value, atol=3e-4)
            assert 0.5 * np.sum((claimed - u) ** 2) + t * R.value(claimed) <= problem.value + 1e-6
            if not any(isinstance(term, BALLS) for term in R.terms):
                fixed = cp.Problem(cp.Minimize(value), [*constraints, z == claimed])
                assert R.value(claimed) == pytest.approx(fixed.solve(solver=cp.CLARABEL), abs=1e-6)


@pytest.mark.parametrize("R", [R for R, _ in VECTOR_DEFINITIONS if len(R.terms) == 1], ids=repr)
def test_the_expression_for_cvxpy_has_the_value(R):
    for point in R.prox(points())[:4]:
        z = cp.Variable(P)
        expression, constraints = expression_of(R, z)
        problem = cp.Problem(cp.Minimize(expression), [*constraints, cp.abs(z - point) <= 1e-9])
        assert problem.solve(solver=cp.CLARABEL) == pytest.approx(R.value(point), abs=1e-6)


@pytest.mark.filterwarnings("ignore:Power atom")
@pytest.mark.filterwarnings("ignore:invalid value encountered in power")  # cvxpy, at a solution of -1e-10
@pytest.mark.parametrize("alpha", [1.05, 1.2, 1.5, 1.8, 2.0])
def test_entmax_maximises_the_tsallis_entropy(alpha):
    for u, claimed in zip(points(), get("entmax", alpha=alpha).prox(points()), strict=True):
        z = cp.Variable(P)
        entropy = cp.sum(z - cp.power(z, alpha)) / (alpha * (alpha - 1))
        cp.Problem(cp.Maximize(u @ z + entropy), [z >= 0, cp.sum(z) == 1]).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(claimed, z.value, atol=1e-4)
        assert claimed.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "R", [Entmax(1.5), Entmax(1.2), Entmax(1.7, 2.5), 0.4 * Entmax(1.5), Entmax(2.0, 3.0)], ids=repr
)
@pytest.mark.parametrize("t", [0.2, 1.0, 3.0, 30.0])
def test_entmax_is_the_least_on_the_segment_at_any_step(R, t):
    first = np.linspace(0, 1, 20001)
    segment = np.stack([first, 1 - first], axis=1) * R.radius
    values = R.value(segment)
    for u in ([0.3, 0.1], [1.0, -2.0], [5.0, 5.0], [-0.4, 0.9]):
        F = 0.5 * np.sum((segment - u) ** 2, axis=1) + t * values
        z = R.prox(np.array(u), t)
        assert 0.5 * np.sum((z - u) ** 2) + t * R.value(z) <= F.min() + 1e-9
        assert F.min() - 1e-6 * t <= 0.5 * np.sum((z - u) ** 2) + t * R.value(z)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.6, 1.9, 2.0])
@pytest.mark.parametrize("u", [[3.0, 0.0, -0.2], [0.6, 0.2, 0.0]], ids=["one-hot", "spread"])
@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
def test_autograd_reaches_the_step_and_the_weight_of_entmax(alpha, u, t):
    u, t = torch.tensor([u], dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
    assert torch.autograd.gradcheck(Entmax(alpha).prox, (u.requires_grad_(), t.clone().requires_grad_()))
    assert torch.autograd.gradcheck(lambda u: Entmax(alpha).prox(u, t), (u,))
    assert torch.autograd.gradcheck(lambda w: (w * Entmax(alpha)).prox(u.detach(), 1.0), (t.requires_grad_(),))


def test_entmax_joins_softmax_and_sparsemax():
    U = points()
    np.testing.assert_allclose(Entmax(2.0).prox(U), Simplex().prox(U), atol=1e-12)
    np.testing.assert_allclose(Entmax(1.0001).prox(U), softmax(U, axis=1), atol=1e-3)
    vertices = np.eye(P)
    assert np.array_equal(Entmax(2.0).value(vertices), Simplex().value(vertices))


@pytest.mark.parametrize("t", [0.2, 1.0, 3.0])
def test_l1_minus_l2_is_the_least_on_a_dense_grid(t):
    R = 0.8 * L1MinusL2()
    axis = np.linspace(-4, 4, 321)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    values = R.value(grid)
    for u in (
        [2.0, 1.0],
        [0.5, -0.4],
        [-3.0, 3.0],
        [0.3, 0.3],
        [0.8, 0.1],
        [0.0, 0.0],
        [2.5, 0.0],
        [-0.8 * t, 0.8 * t],
    ):
        u = np.array(u)
        for S, allowed in ((R, grid[:, 0] > -9), (R + NonNegative(), (grid >= 0).all(1))):
            z = S.prox(u, t)
            F = 0.5 * np.sum((grid[allowed] - u) ** 2, axis=1) + t * values[allowed]
            assert 0.5 * np.sum((z - u) ** 2) + t * S.value(z) <= F.min() + 1e-12


def test_l1_minus_l2_keeps_the_first_of_equals():
    assert np.array_equal(L1MinusL2().prox(np.array([0.5, -0.7, 0.7])), [0, -0.7, 0])
    assert not L1MinusL2().value(np.array([0.0, -3.7, 0.0]))


def test_projections_are_idempotent():
    for R in (Simplex(2.0), L1Ball(1.2), L2Ball(0.7), LInfBall(0.4)):
        Z = R.prox(points())
        np.testing.assert_allclose(R.prox(Z), Z, atol=1e-15)
        assert not R.value(Z).any()
        assert np.isinf(R.value(Z + 0.5)).all()


def test_moreau_joins_the_norms_and_the_balls():
    U = points()
    for t in (0.3, 2.0):
        np.testing.assert_allclose(LInf().prox(U, t), U - L1Ball(t).prox(U), atol=1e-12)
        np.testing.assert_allclose(L1().prox(U, t), U - LInfBall(t).prox(U), atol=1e-12)


def test_extremes_of_the_sorted_norms():
    U = points()
    np.testing.assert_allclose(SumOfKLargest(1).prox(U, 0.7), LInf().prox(U, 0.7), atol=1e-12)
    np.testing.assert_allclose(SortedL1(np.ones(P)).prox(U, 0.7), L1().prox(U, 0.7), atol=1e-12)


def test_extremes_of_the_k_support_norm():
    U = np.concatenate([points(30), np.random.default_rng(3).integers(-2, 3, size=(40, P)).astype(float)])
    for t in (1e-6, 0.3, 1.0, 2.5):
        np.testing.assert_allclose(KSupportNorm(1).prox(U, t), L1().prox(U, t), atol=1e-14)
        for k in (P, P + 3):
            np.testing.assert_allclose(KSupportNorm(k).prox(U, t), GroupL2(P, [1.0]).prox(U, t), atol=1e-14)
    assert np.array_equal((0.0 * KSupportNorm(2)).prox(U), U)
    assert not KSupportNorm(2).prox(np.array([0.6, -0.8, 0.1]), 1.0).any()  # the dual norm of u is t


@pytest.mark.parametrize("k", [1, 2, 3, 17, 40])
def test_the_prox_of_the_k_support_norm_is_right_to_the_last_digits(k):
    """Optimality has two halves: the residual over t is in the dual ball, and pairs with p to the norm of p."""
    U = np.random.default_rng(k).normal(size=(60, 40)) * np.resize([0.1, 1.0, 30.0], 60)[:, None]
    U[:20] = np.round(U[:20])
    for t in (1e-6, 0.1, 1.0, 8.0):
        Z = KSupportNorm(k).prox(U, t)
        V = (U - Z) / t
        scale = 1e-13 * (1 + np.abs(U).sum(1))
        assert ((np.sqrt((np.sort(np.abs(V))[:, -k:] ** 2).sum(1)) - 1) * t <= scale).all()
        assert (np.abs((Z * V).sum(1) - KSupportNorm(k).value(Z)) * t <= scale * (1 + t)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "fraction", [1.0, 1 - 2e-16, 1 - 1e-15, 1 - 4e-15, 1 - 1e-14, 1 - 1e-12, 1 - 1e-6, 1e-12, 1e-60]
)
def test_the_k_support_norm_at_the_edge_of_its_dead_zone_and_near_no_penalty(fraction):
    rng = np.random.default_rng(5)
    U = np.concatenate([rng.normal(size=(20, P)), rng.integers(-3, 4, size=(30, P)).astype(float), np.ones((1, P))])
    U = U[U.any(axis=1)]
    for k in (1, 2, 4, 7):
        t = fraction * np.sqrt((np.sort(np.abs(U))[:, -k:] ** 2).sum(1))
        residual = U - KSupportNorm(k).prox(U, t[:, None])
        np.testing.assert_allclose(np.sqrt((np.sort(np.abs(residual))[:, -k:] ** 2).sum(1)), t, rtol=0, atol=1e-13)


def test_the_k_support_norm_and_half_its_square_agree():
    U = points(20)
    norm, square = KSupportNorm(2), KSupport(2)
    np.testing.assert_allclose(0.5 * norm.value(U) ** 2, square.value(U), rtol=1e-14)
    for row, z in zip(U, norm.prox(U, 0.7), strict=True):
        if z.any():  # t = s ||z||
            np.testing.assert_allclose(square.prox(row, 0.7 / norm.value(z)), z, atol=1e-13)


def test_the_fit_is_isotonic_regression():
    V = np.random.default_rng(2).normal(size=(20, 30)) - np.linspace(0, 2, 30)
    V[0] = 1.0
    for row, fit in zip(V, nonincreasing_fit(V), strict=True):
        expected = IsotonicRegression(increasing=False).fit_transform(np.arange(30), row)
        np.testing.assert_allclose(fit, expected, atol=1e-12)
    assert np.array_equal(pooled_means(V[:3], pool_ends(V[:3])), nonincreasing_fit(V[:3]))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Simplex(0), "radius must be a finite number > 0"),
        (lambda: L1Ball(np.ones(3)), "radius must be a finite number > 0"),
        (lambda: LInfBall(-1.0), "radius must be positive"),
        (lambda: SortedL1([1.0, 2.0]), "non-increasing"),
        (lambda: SortedL1([2.0, 1.0]).prox(np.zeros(3)), "weights has 2 entries and the codes have 3"),
        (lambda: SumOfKLargest(0), "k must be an integer >= 1"),
        (lambda: KSupport(1.5), "k must be an integer >= 1"),
        (lambda: KSupportNorm(0), "k must be an integer >= 1"),
        (lambda: Entmax(1.0), "exceed 1"),
        (lambda: Entmax(2.5), "at most 2"),
        (lambda: 0.0 * Entmax(1.5), "weight must be positive"),
        (lambda: Simplex().prox(np.zeros((2, 0))), "without components"),
        (lambda: Simplex() + L1(), "no calculus rule"),
        (lambda: LInf() + L1(), "no calculus rule"),
        (lambda: L1Ball() + Cardinality(2), "no calculus rule"),
        (lambda: np.ones(3) * SquaredL2() + LInf(), "no calculus rule"),
        (lambda: -1 * Simplex(), "scalar weights >= 0"),
    ],
)
def test_bad_input_is_refused_in_words(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.parametrize("size", [1e-300, 1e200])
def test_the_slope_of_the_k_support_prox_does_not_depend_on_units(size):
    slopes = []
    for scale in (1.0, size):
        U = torch.tensor([[1.0, -2.0, 1.5, 0.1]], dtype=torch.float64) * scale
        (0.3 * KSupport(2)).prox(U.requires_grad_()).sum().backward()
        slopes.append(U.grad)
    torch.testing.assert_close(*slopes)
