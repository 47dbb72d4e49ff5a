"""What a prox does at its edges: ties, zeros of both signs, errors, empty, strange and half-precision input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import SEPARABLE, SUMS

from proxsae.regularizers import (
    L0,
    L1,
    Box,
    Cardinality,
    GroupCardinality,
    GroupL0,
    GroupL2,
    NonNegative,
    SortedL1,
    SquaredL2,
)

ALL = [*SEPARABLE, *SUMS, Cardinality(2), NonNegative() + Cardinality(2), 0.3 * L1() + Cardinality(2, "batch")]
KINDS = {"numpy": np.asarray, "torch": lambda U: torch.from_numpy(np.ascontiguousarray(U))}


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return KINDS[request.param]


# --- ties ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_hard_threshold_returns_zero_at_the_threshold(kind, sign):
    threshold = 2.0  # sqrt(2 t w) = sqrt(2 * 4 * 0.5), exactly
    U = sign * np.array([np.nextafter(threshold, 0), threshold, np.nextafter(threshold, 3)])
    np.testing.assert_array_equal(np.asarray((0.5 * L0()).prox(kind(U), 4.0)), [0.0, 0.0, U[2]])


def test_smaller_support_wins_where_a_count_is_just_not_worth_it(kind):
    R = 1.0 * L1() + 0.5 * L0()  # the gain of u is (|u| - 1)^2 / 2, which is 0.5 at |u| = 2, exactly
    np.testing.assert_array_equal(np.asarray(R.prox(kind(np.array([2.0, -2.0, 2.5, -2.5])))), [0.0, 0.0, 1.5, -1.5])


@pytest.mark.parametrize(
    ("R", "expected"),
    [
        (Cardinality(2), [0, -3, 0, 3, 0]),
        (NonNegative() + Cardinality(1), [0, 0, 0, 3, 0]),
        (0.5 * L1() + Cardinality(3), [1.5, -2.5, 0, 2.5, 0]),
        (Cardinality(4), [2, -3, -2, 3, 0]),
        (np.ones(5) * L0() + Cardinality(3), [2, -3, 0, 3, 0]),
        (Box(-1.0, 1.0) + Cardinality(3), [1, -1, 0, 1, 0]),
    ],
)
def test_lowest_index_wins_among_equal_gains(kind, R, expected):
    U = np.array([2.0, -3.0, -2.0, 3.0, 1.0])
    np.testing.assert_array_equal(np.asarray(R.prox(kind(U))), expected)


def test_batch_ties_go_to_the_lowest_row_then_column(kind):
    U = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 2.0]])
    Z = np.asarray(Cardinality(1, "batch").prox(kind(U)))
    np.testing.assert_array_equal(Z, [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_no_room_and_too_much_room(kind, scope):
    U = np.array([[1.0, -2.0], [0.0, 3.0]])
    np.testing.assert_array_equal(np.asarray(Cardinality(0, scope).prox(kind(U))), np.zeros((2, 2)))
    for k in (2, 3, 1000):
        np.testing.assert_array_equal(np.asarray(Cardinality(k, scope).prox(kind(U))), U)
        np.testing.assert_array_equal(
            np.asarray((NonNegative() + Cardinality(k, scope)).prox(kind(U))), np.maximum(U, 0)
        )


# --- zeros -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R", ALL, ids=repr)
def test_every_zero_is_positive(kind, R):
    for dtype in ("float16", "float32", "float64"):
        U = np.array([[-0.0, 0.0, -0.1, 0.1, -5.0], [-1e-5, 1e-5, -0.3, -2.0, 0.2]], dtype)
        for codes in (U, U[0]):
            Z = np.asarray(R.prox(kind(codes), 0.5))
            assert not np.signbit(Z[Z == 0]).any()


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R", [L1(), 0.3 * L1() + NonNegative(), Cardinality(1)], ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["prox", "value"])
def test_nan_and_infinity_are_errors(kind, R, bad, method):
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        getattr(R, method)(kind(np.array([[1.0, bad]])))


@pytest.mark.parametrize("U", [np.array([1 + 2j]), np.array(["a"]), np.array([True])])
def test_only_real_numbers_have_a_prox(U):
    with pytest.raises(TypeError, match="U must hold real floating-point numbers, got dtype"):
        L1().prox(U)


@pytest.mark.parametrize("step", [0.0, -1.0])
def test_step_must_be_positive(step):
    with pytest.raises(ValueError, match="step must be positive, got"):
        L1().prox(np.ones(3), step)


@pytest.mark.parametrize("step", [math.nan, math.inf])
def test_step_must_be_finite(step):
    with pytest.raises(ValueError, match="step must be finite"):
        L1().prox(np.ones(3), step)


def test_weights_that_do_not_fit_the_width():
    R = np.ones(3) * L1() + NonNegative()
    for U in (np.ones((2, 4)), np.ones(4), np.ones((2, 1))):
        with pytest.raises(ValueError, match="weight has 3 entries and the codes have"):
            R.prox(U)
        with pytest.raises(ValueError, match="weight has 3 entries and the codes have"):
            (R + Cardinality(1)).value(U)


def test_value_takes_one_code_or_a_matrix():
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 4\)"):
        L1().value(np.ones((2, 3, 4)))


@pytest.mark.parametrize("k", [-1, 1.5, True, "3", None])
def test_k_must_be_a_count(k):
    with pytest.raises(ValueError, match="k must be an integer >= 0, got"):
        Cardinality(k)


def test_unknown_scope():
    with pytest.raises(ValueError, match=r'scope must be "sample" or "batch", got .*row'):
        Cardinality(1, "row")


@pytest.mark.parametrize("weight", [-0.1, np.array([0.1, -0.1])])
def test_weights_must_not_be_negative(weight):
    with pytest.raises(ValueError, match="the weight must not be negative"):
        weight * L1()


@pytest.mark.parametrize("weight", [math.nan, math.inf, True, "a", np.ones((2, 2))])
def test_weights_must_be_numbers(weight):
    with pytest.raises((TypeError, ValueError)):
        L1(weight=weight)


@pytest.mark.parametrize("weight", [-1.0, np.ones(2), torch.tensor(-1.0)])
def test_indicators_take_scalar_weights_only(weight):
    with pytest.raises(ValueError, match="an indicator takes only scalar weights >= 0"):
        weight * NonNegative()


def test_a_tensor_of_one_number_is_a_weight_of_a_sum_with_an_indicator():
    R = torch.tensor(0.5) * (L1() + NonNegative())
    np.testing.assert_array_equal(R.prox(np.array([2.0, -2.0])), [1.5, 0.0])


@pytest.mark.parametrize(
    "R", [Cardinality(2), GroupL0(1), GroupCardinality(1, 1), GroupL2(1), 0.1 * L1() + GroupL2(1)], ids=repr
)
def test_a_single_number_is_no_code(R):
    for u in (3.0, torch.tensor(3.0)):
        with pytest.raises(ValueError, match="looks at a whole code, got a single number"):
            R.prox(u)


def test_box_with_its_bounds_exchanged():
    with pytest.raises(ValueError, match="lower must not exceed upper"):
        Box(1.0, 0.0)


# --- input of every kind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R", ALL, ids=repr)
def test_empty_input(kind, R):
    is_uniform = all(term.is_uniform for term in R.terms if term.is_separable)
    for shape in ((0, 5), (0, 0), (3, 0), (0,)) if is_uniform else ((0, 5),):
        U = kind(np.empty(shape))
        assert tuple(R.prox(U).shape) == shape
        np.testing.assert_array_equal(np.asarray(R.value(U)), np.zeros(shape[:-1]))


@pytest.mark.parametrize("R", ALL, ids=repr)
def test_layout_of_the_input_does_not_matter_and_is_never_written(R):
    rng = np.random.default_rng(1)
    U = rng.normal(size=(6, 5))
    original = U.copy()
    expected = R.prox(U, 0.5)
    read_only = U.copy()
    read_only.flags.writeable = False
    strided = np.repeat(np.repeat(U, 2, axis=0), 3, axis=1)[::2, ::3]
    for view in (read_only, strided, np.asfortranarray(U), U[::-1][::-1], U.tolist()):
        np.testing.assert_array_equal(R.prox(view, 0.5), expected)
    tensor = torch.from_numpy(U.copy())
    np.testing.assert_array_equal(R.prox(tensor.T.contiguous().T, 0.5).numpy(), expected)
    np.testing.assert_array_equal(U, original)
    np.testing.assert_array_equal(tensor.numpy(), original)
    result = R.prox(U, 0.5)
    result += 1.0  # what comes back is the caller's own
    np.testing.assert_array_equal(U, original)


@pytest.mark.parametrize("R", ALL, ids=repr)
def test_one_code_is_a_matrix_of_one_row(kind, R):
    u = np.array([0.4, -1.7, 2.0, -0.3, 0.9])
    np.testing.assert_array_equal(np.asarray(R.prox(kind(u))), np.asarray(R.prox(kind(u[None])))[0])
    z = kind(np.asarray(R.prox(kind(u))))
    value = R.value(z)
    assert isinstance(value, float)
    assert value == float(R.value(z[None])[0])


@pytest.mark.parametrize("R", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_half_precision_is_computed_in_single(R, dtype):
    U = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    Z = R.prox(U, 0.3)
    assert Z.dtype == dtype
    if dtype != torch.float64:
        assert torch.equal(Z, R.prox(U.float(), 0.3).to(dtype))
    if dtype == torch.float16:
        assert R.prox(U.numpy(), 0.3).dtype == np.float16
        np.testing.assert_array_equal(R.prox(U.numpy(), 0.3), Z.numpy())


def test_integers_and_lists_become_double():
    for U in ([[1, -2]], np.array([[1, -2]]), np.array([[1, -2]], np.int8)):
        Z = (0.5 * L1()).prox(U)
        assert Z.dtype == np.float64
        np.testing.assert_array_equal(Z, [[0.5, -1.5]])


@pytest.mark.parametrize("R", [R for R in ALL if "batch" not in repr(R)], ids=repr)
def test_steps_of_one_value_a_sample(kind, R):
    rng = np.random.default_rng(2)
    U, steps = rng.normal(size=(4, 5)), np.array([[0.1], [0.5], [1.0], [4.0]])
    expected = np.stack([R.prox(u, float(step[0])) for u, step in zip(U, steps, strict=True)])
    np.testing.assert_array_equal(np.asarray(R.prox(kind(U), kind(steps))), expected)


@pytest.mark.parametrize("build", [lambda w: w * L1(), lambda w: w * L0(), lambda w: w * SquaredL2() + NonNegative()])
def test_weights_of_one_value_a_coordinate(kind, build):
    U = np.random.default_rng(3).normal(size=(7, 4))
    weights = np.array([0.0, 0.1, 0.5, 2.0])
    each = np.stack([build(w).prox(U[:, j]) for j, w in enumerate(weights.tolist())], axis=1)
    np.testing.assert_array_equal(np.asarray(build(kind(weights)).prox(kind(U))), each)
    values = [np.stack([build(w).value(z[j : j + 1]) for j, w in enumerate(weights.tolist())]).sum() for z in each]
    np.testing.assert_allclose(np.asarray(build(kind(weights)).value(kind(each))), values, rtol=1e-14)


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5), st.floats(1e-6, 1e6))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_prox_is_finite_and_in_the_domain(u, t):
    for R in ALL:
        Z = R.prox(np.array(u), t)
        assert np.isfinite(Z).all(), R
        assert np.isfinite(R.value(Z)), R


def test_arrays_are_copied():
    """What was checked stays what it is, whatever becomes of the array of the caller."""
    high, weights, costs = np.ones(3), np.array([2.0, 1.0, 0.5]), np.ones(2)
    made = Box(np.zeros(3), high), SortedL1(weights), GroupL2([0, 0, 1], costs), weights * L1()
    before = [R.prox(2 * np.ones(3)) for R in made]
    high[0] = weights[0] = costs[0] = -5.0
    for R, z in zip(made, before, strict=True):
        np.testing.assert_array_equal(R.prox(2 * np.ones(3)), z)
