"""One formula, many readers: NumPy, Torch and the compiled loops give the same bits, and autograd its derivative."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.formulas.numba import compiled
from proxsae.regularizers import L0, L1, Box, NonNegative, Separable, SquaredL2

ALL = [*SEPARABLE, *SUMS]
DTYPES = ["float32", "float64"]


def points(dtype: str) -> np.ndarray:
    """Return rows of 5: random, huge and tiny numbers, zeros of both signs, and where the branches meet at t = 0.5."""
    rng = np.random.default_rng(0)
    near = np.array([0.15, 0.35, 0.45, 0.5, math.sqrt(0.4), 1.2, math.sqrt(2 * 0.5 * 0.4 * 1.35), 0.0, 1e-30, 1e6])
    near = near.astype(dtype)
    both = np.concatenate([near, -near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    everywhere = np.repeat(both, 5).reshape(-1, 5)
    return np.concatenate([everywhere, rng.normal(size=(60, 5)).astype(dtype)])


def bits(x: np.ndarray) -> np.ndarray:
    return x.view({4: np.int32, 8: np.int64}[x.itemsize])


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(bits(one), bits(other))


@pytest.mark.parametrize("R", TRANSCENDENTAL, ids=repr)
def test_transcendental_formulas_agree_to_rounding(R):
    """Each library rounds powers, logarithms and the like in its own way."""
    U = points("float64")
    for step in (0.5, 3.0):
        Z = R.prox(U, step)
        np.testing.assert_allclose(R.prox(torch.from_numpy(U), step).numpy(), Z, rtol=1e-9, atol=1e-12)
        scalar = compiled(R)
        parameters = tuple(value for _, value in R.parameters())
        loop = [[scalar(u, step, parameters) for u in row] for row in U]
        np.testing.assert_allclose(loop, Z, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", ALL, ids=repr)
def test_numpy_and_torch_agree_bitwise(R, dtype):
    U = points(dtype)
    for step in (0.5, 3.0):
        assert_same(R.prox(U, step), R.prox(torch.from_numpy(U), step).numpy())
    Z = R.prox(U, 0.5)
    np.testing.assert_array_equal(R.penalties(Z), R.penalties(torch.from_numpy(Z)).numpy())
    rounding = 8 * np.finfo(dtype).eps * np.abs(R.penalties(Z)).sum(-1)  # rows may be added in another order
    assert (np.abs(R.value(Z) - R.value(torch.from_numpy(Z)).numpy()) <= rounding).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", ALL, ids=repr)
def test_compiled_loop_agrees_bitwise(R, dtype):
    number = np.dtype(dtype).type
    scalar, value = compiled(R, "prox", dtype), compiled(R, "value", dtype)
    U, step = points(dtype), number(0.5)
    parameters = [np.broadcast_to(np.asarray(p, dtype), 5) for _, p in R.parameters()]
    columns = [tuple(p[j] for p in parameters) for j in range(5)]
    Z = np.array([[scalar(u, step, columns[j]) for j, u in enumerate(row)] for row in U], dtype)
    assert_same(R.prox(U, 0.5), Z)
    values = np.array([[value(z, columns[j]) for j, z in enumerate(row)] for row in Z], dtype)
    assert_same(R.penalties(Z) + 0.0, values)


@pytest.mark.parametrize("R", ALL, ids=repr)
@given(u=st.floats(-10, 10), t=st.floats(1e-3, 1e3))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_gain_is_what_a_free_coordinate_saves(R, u, t):
    if R.value(np.zeros(5)) != 0:
        return  # the gain is defined against z = 0, which this box excludes
    U = np.full((1, 5), u)
    gains, p = R.gains(U, t), R.prox(U, t)
    at_p = 0.5 * (p - U) ** 2 + t * R.penalties(p)
    np.testing.assert_allclose(gains, 0.5 * U * U - at_p, atol=1e-12 * (1 + u * u + t * t), rtol=0)
    assert (gains >= -1e-12 * (1 + u * u + t * t)).all()


SMOOTH_POINT = torch.tensor([[2.7134, -3.1372, 1.9117, 0.1123, -0.0719]], dtype=torch.float64)


@pytest.mark.parametrize(
    "build",
    [
        lambda w: w * L1(),
        lambda w: w * SquaredL2(),
        lambda w: w * L1() + NonNegative(),
        lambda w: 0.3 * L1() + w * SquaredL2(),
        lambda w: w * L1() + 0.4 * L0(),
        lambda w: Box(-w, w + 0.5),
    ],
)
@pytest.mark.parametrize("weight", [torch.tensor(0.6), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])], ids=["scalar", "each"])
def test_autograd_reaches_the_weights(build, weight):
    w = weight.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: build(w).prox(SMOOTH_POINT, 0.5), (w,))


def test_autograd_reaches_the_step():
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: (0.3 * L1() + 0.7 * SquaredL2()).prox(SMOOTH_POINT, t), (step,))


def test_regularizers_of_one_form_share_a_compiled_function():
    assert compiled(0.1 * L1()) is compiled(0.2 * L1())


class Clipped(Separable, named=False):
    """Formulas with a number first, conditions joined and negated, and powers."""

    def value_of(self, xp, z):
        outside = (z < -1.0) | ~(z <= 1.0)
        return xp.where(outside & (z != 0), xp.abs(z), z**2)

    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(0.0, xp.abs(u) - t) ** 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_loop_takes_the_operators_of_arrays(dtype):
    u = points(dtype)[:20].ravel()
    R, number = Clipped(), np.dtype(dtype).type
    value, prox = compiled(R, "value", dtype), compiled(R, "prox", dtype)
    assert_same(R.penalties(u), np.array([value(z, (number(1.0),)) for z in u], dtype))
    Z = np.array([prox(x, number(0.5), (number(1.0),)) for x in u], dtype)
    np.testing.assert_allclose(Z, R.prox(u, 0.5), rtol=8 * np.finfo(dtype).eps)


def test_formula_that_branches_in_python_is_refused():
    class Branching(L1):
        def prox_of(self, xp, u, t):
            return u if u > t else 0.0 * u

    with pytest.raises(TypeError, match="use xp\\.where"):
        compiled(Branching())


def test_a_function_of_numbers_alone_is_refused():
    class Rooted(L1):
        def prox_of(self, xp, u, t):
            return xp.sqrt(2.0) * u

    with pytest.raises(TypeError, match="a function of numbers alone"):
        compiled(Rooted())
