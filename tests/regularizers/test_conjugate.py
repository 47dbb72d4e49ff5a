"""R*: a dense grid, Fenchel-Young with the prox, and the dual scaling."""

import numpy as np
import pytest
import torch
from definitions import conjugate
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.regularizers import L0, L1, Box, Cardinality, NonNegative, SquaredL2, Zero
from proxsae.regularizers.conjugate import conjugates, dual_scaling

weights = st.integers(0, 300).map(lambda hundredths: hundredths / 100)
bounds = st.tuples(st.floats(-2, 2), st.floats(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def convex_regularizers(draw):
    """Any sum of the convex terms, zero weights and degenerate boxes included."""
    R = draw(weights) * L1() + draw(weights) * SquaredL2()
    kind = draw(st.sampled_from(["free", "nonnegative", "box"]))
    if kind == "nonnegative":
        return R + NonNegative()
    return R + Box(*draw(bounds)) if kind == "box" else R


def largest_on_grid(R, v, reach):
    """The largest v z - R(z) over a dense grid of [-reach, reach] that holds 0 and the ends of a box."""
    grid = np.linspace(-reach, reach, 40 * reach + 1)
    for term in R.terms:
        if isinstance(term, Box):
            lower, upper = float(term.lower), float(term.upper)
            grid = np.concatenate([np.linspace(lower, upper, 2001), np.clip([0.0], lower, upper)])
    return (grid * v - R.value(grid[:, None])).max()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(convex_regularizers(), st.integers(-500, 500))
def test_is_the_supremum_over_a_dense_grid(R, hundredths):
    v = hundredths / 100
    exact = conjugate(R, np.array([v]))
    on_grid = largest_on_grid(R, v, reach=600)  # |v| / ridge <= 500: the maximiser lies inside
    if np.isinf(exact):  # without a ridge v z - R(z) is homogeneous: positive means unbounded
        assert on_grid > 0
        assert largest_on_grid(R, v, reach=1200) == pytest.approx(2 * on_grid)
    else:
        assert on_grid - 1e-9 <= exact <= on_grid + 2e-3  # (ridge / 2) (half a grid step)^2


@settings(derandomize=True, deadline=None, max_examples=300)
@given(convex_regularizers(), st.floats(-4, 4), st.floats(-8, 8))
def test_fenchel_young_inequality(R, z, v):
    assert R.value(np.array([z])) + conjugate(R, np.array([v])) >= z * v - 1e-9


@settings(derandomize=True, deadline=None, max_examples=300)
@given(convex_regularizers(), st.floats(-8, 8), st.floats(0.05, 5))
def test_fenchel_young_is_an_equality_at_the_prox(R, u, t):
    p = R.prox(np.array([u]), t)
    v = (np.array([u]) - p) / t
    v *= dual_scaling(R, v[None])[0]  # rounding may leave the domain by an ulp
    assert np.abs(v - (u - p) / t).max() <= 1e-12
    assert R.value(p) + conjugate(R, v) == pytest.approx(float((p * v)[0]), abs=1e-9)


def test_closed_forms_of_the_field():
    v = np.array([-3.0, -1.0, 0.5, 2.0])
    soft = np.maximum(abs(v) - 0.5, 0)
    np.testing.assert_allclose(conjugates(0.5 * L1() + 4.0 * SquaredL2(), v), soft**2 / 8)
    np.testing.assert_allclose(conjugates(2.0 * SquaredL2(), v), v**2 / 4)
    np.testing.assert_array_equal(conjugates(L1(), v), [np.inf, 0, 0, np.inf])
    np.testing.assert_array_equal(conjugates(L1() + NonNegative(), v), [0, 0, 0, np.inf])
    np.testing.assert_array_equal(conjugates(NonNegative(), v), [0, 0, np.inf, np.inf])
    np.testing.assert_array_equal(conjugates(Zero(), np.array([0.0, 1.0])), [0, np.inf])
    np.testing.assert_array_equal(conjugates(Box(-1.0, 2.0), v), np.maximum(-v, 2 * v))
    np.testing.assert_allclose(conjugates(L1() + Box(-1.0, 2.0), v), [2, 0, 0, 2])


def test_each_coordinate_has_its_own_weight():
    R = np.array([1.0, 0.0, 2.0]) * L1() + np.array([0.0, 1.0, 3.0]) * SquaredL2()
    V = np.array([[1.0, 2.0, 5.0], [1.5, 0.0, 0.0]])
    np.testing.assert_allclose(conjugate(R, V), [0 + 2 + 9 / 6, np.inf])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    convex_regularizers(),
    st.lists(st.integers(-50, 50).map(lambda tenths: tenths / 10), min_size=3, max_size=3),
    st.sampled_from(["f4", "f8"]),
)
def test_dual_scaling_is_the_largest(R, v, dtype):
    V = np.array([v], dtype)
    s = dual_scaling(R, V)
    assert 0 <= s[0] <= 1
    assert np.isfinite(conjugate(R, s[:, None] * V)[0])
    if s[0] < 1:
        assert np.isinf(conjugate(R, V)[0])
        larger = min(1, 1.0001 * float(s[0]) + 1e-30)
        assert np.isinf(conjugate(R, V.dtype.type(larger) * V)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dual_scaling_stays_inside_in_floating_point(dtype):
    V = np.random.default_rng(0).standard_normal((20_000, 3)).astype(dtype)
    R = 0.1 * L1()
    s = dual_scaling(R, V)
    assert not conjugate(R, s[:, None] * V).any()
    np.testing.assert_allclose(s, np.minimum(1, 0.1 / abs(V).max(1)), rtol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(convex_regularizers(), st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4))
def test_torch_is_numpy(R, v):
    for dtype in (np.float32, np.float64):
        V = np.array([v], dtype)
        for function in (conjugates, dual_scaling):
            on_torch = function(R, torch.from_numpy(V))
            assert on_torch.dtype == torch.from_numpy(V).dtype
            np.testing.assert_array_equal(on_torch.numpy(), function(R, V))


@pytest.mark.parametrize("R", [0.1 * L0(), Cardinality(2), L0() + NonNegative()])
def test_what_has_none(R):
    assert not R.has_conjugate


def test_a_subclass_may_be_another_function():
    class Twice(L1):
        def value_of(self, xp, z):
            return 2 * xp.abs(z)

    assert not Twice().has_conjugate
