"""The calculus of sums, translation, blocks, envelope and conjugate: against cvxpy, differences and closed forms."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from definitions import CENTER, TRANSLATED_DEFINITIONS

from proxsae.formulas.arrays import ArrayNamespace
from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    Blocks,
    Box,
    Cardinality,
    Huber,
    L1Ball,
    LInf,
    LInfBall,
    NonNegative,
    Simplex,
    SquaredL2,
    Tilt,
    Translated,
    conjugate_prox,
    moreau_envelope,
)


def points(n=8, p=4):
    return np.random.default_rng(0).normal(size=(n, p)) * 2


@pytest.mark.parametrize("case", range(len(TRANSLATED_DEFINITIONS)), ids=lambda i: repr(TRANSLATED_DEFINITIONS[i][0]))
def test_the_prox_solves_its_problem(case):
    R, value, domain = TRANSLATED_DEFINITIONS[case]
    for t in (0.4, 3.0):
        for u, claimed in zip(points(), R.prox(points(), t), strict=True):
            z = cp.Variable(4)
            problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * value(z)), domain(z))
            problem.solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(claimed, z.value, atol=2e-4)
            assert 0.5 * np.sum((claimed - u) ** 2) + t * R.value(claimed) <= problem.value + 1e-7
            assert np.array_equal(R.prox(torch.from_numpy(u), t).numpy(), claimed)


def test_blocks_are_each_their_own():
    R = Blocks([(L0(), 1), (Cardinality(1), 2), (0.5 * L1(), 1)])
    U = points()
    parts = [L0().prox(U[:, :1], 0.7), Cardinality(1).prox(U[:, 1:3], 0.7), (0.5 * L1()).prox(U[:, 3:], 0.7)]
    assert np.array_equal(R.prox(U, 0.7), np.concatenate(parts, axis=1))
    assert not R.is_convex
    assert np.array_equal((2 * R).prox(U, 0.35), R.prox(U, 0.7))


def test_a_tilt_under_a_selection_moves_the_gains():
    """TopK with a bias: a negative u can have a gain, so that the ranks are not those of max(u, 0)."""
    R = Tilt(np.array([-2.0, 0.0, 0.0])) + NonNegative() + Cardinality(1)
    assert np.array_equal(R.prox(np.array([-0.5, 1.0, 0.5])), [1.5, 0, 0])
    R = Tilt(-2.0) + NonNegative() + Cardinality(1)
    assert np.array_equal(R.prox(np.array([-3.0, -1.0, -0.5])), [0, 0, 1.5])


@pytest.mark.parametrize("R", [0.7 * L1(), Huber(0.3), LInf(), MCP(3.0), Simplex(), Box(-1.0, 0.5)], ids=repr)
def test_the_envelope_is_a_minimum_and_its_gradient_a_slope(R):
    for u in points():
        value, gradient = moreau_envelope(R, u, 0.6)
        competitors = R.prox(u + np.random.default_rng(1).normal(size=(200, 4)), 0.6)
        assert value <= np.min(R.value(competitors) + np.sum((competitors - u) ** 2, axis=1) / 1.2) + 1e-12
        for j in range(4):
            h = 1e-5 * np.eye(4)[j]
            slope = (moreau_envelope(R, u + h, 0.6).value - moreau_envelope(R, u - h, 0.6).value) / 2e-5
            assert gradient[j] == pytest.approx(slope, abs=1e-5)
    together = moreau_envelope(R, points(), 0.6)
    assert together.value[3] == pytest.approx(moreau_envelope(R, points()[3], 0.6).value)


def test_the_envelope_of_l1_is_huber():
    U = points()
    np.testing.assert_allclose(moreau_envelope(L1(), U, 0.6).value, Huber(0.6).value(U), atol=1e-12)


def test_conjugates_of_norms_are_balls_and_of_balls_norms():
    U = points()
    for t in (0.3, 2.0):
        np.testing.assert_allclose(conjugate_prox(L1(), U, t), np.clip(U, -1, 1), atol=1e-12)
        np.testing.assert_allclose(conjugate_prox(LInf(), U, t), L1Ball().prox(U), atol=1e-12)
        np.testing.assert_allclose(conjugate_prox(SquaredL2(), U, t), U / (1 + t), atol=1e-12)
    with pytest.raises(ValueError, match="is not convex"):
        conjugate_prox(MCP(), U)


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: Translated(Cardinality(2), 1.0), TypeError, "separable regularizer or a single term of whole codes"),
        (lambda: Translated(LInf(), CENTER).prox(np.zeros(3)), ValueError, "center has 4 entries"),
        (lambda: Translated(LInf(), CENTER) + NonNegative(), ValueError, "no calculus rule"),
        (lambda: Blocks([(L1(), 0)]), ValueError, "and the width of its block"),
        (lambda: Blocks([(L1(), 2.5)]), ValueError, "and the width of its block"),
        (lambda: Blocks([L1(), 0.5 * L0()]), ValueError, r"Blocks takes pairs .* got L1\(\)"),
        (lambda: Blocks(L1()), ValueError, r"Blocks takes pairs .* got L1\(\)"),
        (lambda: Blocks([(Cardinality(1, "batch"), 3)]), ValueError, "not at batch scope"),
        (lambda: Blocks([(L1(), 2)]).prox(np.zeros(3)), ValueError, "add up to 2 and the codes have 3"),
        (lambda: Blocks([(np.ones(3) * L1(), 2)]), ValueError, "3 entries"),
    ],
)
def test_bad_input_is_refused_in_words(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()


def test_torch_takes_square_roots_as_numpy_does():
    """Torch's own vectorised roots are off in the last place on some CPUs: a threshold would sit one float aside."""
    x = np.random.default_rng(7).uniform(0, 50, size=20_000)
    for dtype in ("float32", "float64"):
        a = torch.from_numpy(np.concatenate([x, [0.0, 1e-30, 1e30]]).astype(dtype))
        assert np.array_equal(ArrayNamespace(a).sqrt(a).numpy(), np.sqrt(a.numpy()))


def test_a_tie_of_a_translated_penalty_goes_to_zero():
    R = Translated(MCP(2.0), 1.0)  # at weight 1 and t = 2 every z between 1 and 3, or -1 and 1, is as good as another
    z = R.prox(np.array([-1.0]), 2.0)[0]
    assert 0.5 * (z + 1) ** 2 + 2.0 * R.value(np.array([z])) == 0.5 + 2.0 * R.value(np.zeros(1))
    assert z == 0


def test_a_small_code_is_kept_where_its_square_is_less_than_a_rounding_of_the_penalty():
    R = Translated(0.3 * L0(), 0.5)
    np.testing.assert_allclose(R.prox(np.array([1e-5, -1e-9]), 0.1), [1e-5, -1e-9], rtol=1e-6)


BOUNDED = {
    "box": (Box(-0.4, 0.8), Box(-0.4 + 0.477, 0.8 + 0.477)),
    "ball": (LInfBall(0.8), Box(-0.8 + 0.477, 0.8 + 0.477)),
    "with a sum": (0.3 * L1() + Box(-0.4, 0.8) + SquaredL2(), None),
    "with a count": (0.1 * L1() + Box(-0.4, 0.8) + 0.01 * L0(), None),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_the_ends_of_a_moved_interval_are_inside(name):
    """Since (0.477 + 0.8) - 0.477 > 0.8, an end was outside of its own interval, and a code there gained nothing."""
    R, same = BOUNDED[name]
    u = np.array([5.0])
    moved = Translated(R, 0.477)
    np.testing.assert_allclose(moved.prox(u), 0.477 + R.prox(u - 0.477), rtol=1e-15)
    if R.is_convex:
        np.testing.assert_allclose(moved.value(moved.prox(u)), R.value(R.prox(u - 0.477)), rtol=1e-12)
    assert same is None or moved == same


class WithPenalty(Box, named=False):
    """A box of one's own, with another value inside."""

    def value_of(self, xp, z):
        return super().value_of(xp, z) + xp.abs(z)

    def prox_of(self, xp, u, t):
        return super().prox_of(xp, xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0), t)


def test_only_bounds_are_moved():
    own = Translated(WithPenalty(-1.0, 1.0), 0.5)
    assert own.value(np.array([0.9])) == pytest.approx(0.4)
    far = Translated(Box(-1e308, 1e308), 1e308)
    assert far.prox(np.array([1e308])) == 1e308
    torch_center = Translated(Box(-np.ones(2), np.ones(2)), torch.tensor([0.25, 0.5]))
    np.testing.assert_array_equal(torch_center.prox(np.array([5.0, -5.0])), [1.25, -0.5])
