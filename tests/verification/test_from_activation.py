"""From activations back to regularizers: known pairs, and the pairs of points that say no."""

import copy
import pickle

import numpy as np
import pytest
import sympy
import torch
from scipy.special import erf

from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    SCAD,
    Cardinality,
    Entmax,
    GroupL2,
    Huber,
    NonNegative,
    Simplex,
    SquaredL2,
)
from proxsae.verification import check_map, regularizer_of

U = np.linspace(-4, 4, 161)[:, None]


def elu_regularizer(z):
    return np.where(z > 0, 0, (1 + z) * np.log1p(np.minimum(z, 0)) - z - z * z / 2)


PROXES = {
    "relu": (lambda u: np.maximum(u, 0), lambda z: 0 * z, True),
    "soft threshold": (lambda u: np.sign(u) * np.maximum(abs(u) - 1, 0), abs, True),
    "shrinkage": (lambda u: u / 3, lambda z: z * z, True),
    "leaky relu": (lambda u: np.where(u > 0, u, 0.1 * u), lambda z: np.where(z > 0, 0, 4.5 * z * z), True),
    "elu": (lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))), elu_regularizer, True),
    "tanh": (np.tanh, lambda z: z * np.arctanh(z) + 0.5 * np.log(1 - z * z) - z * z / 2, True),
    "logistic": (lambda u: 1 / (1 + np.exp(-u)), lambda z: z * np.log(z) + (1 - z) * np.log(1 - z) - z * z / 2, True),
    "softplus": (lambda u: np.log1p(np.exp(u)), None, True),
    "clip": (lambda u: np.clip(u, -1, 1), lambda z: 0 * z, True),
    "twice": (lambda u: 2 * u, lambda z: -z * z / 4, False),
    "firm": (lambda u: MCP(3.0).prox(u[:, None])[:, 0], lambda z: MCP(3.0).value(z[:, None]), False),
    "scad": (lambda u: SCAD().prox(u[:, None])[:, 0], lambda z: SCAD().value(z[:, None]), False),
}  # fmt: skip


@pytest.mark.parametrize("name", PROXES)
def test_the_regularizer_comes_back(name):
    activation, R, is_convex = PROXES[name]
    inverse = regularizer_of(activation)
    assert inverse.is_prox
    assert inverse.is_convex == is_convex
    assert "not a prox" not in str(inverse)
    if R is not None:
        inner = (inverse.z > inverse.z[0] + 1e-3) & (inverse.z < inverse.z[-1] - 1e-3)
        expected, found = R(inverse.z[inner]), inverse.values[inner]
        np.testing.assert_allclose(found - found[len(found) // 2], expected - expected[len(found) // 2], atol=1e-5)
    np.testing.assert_allclose(inverse.regularizer.prox(U)[:, 0], activation(U[:, 0]), atol=1e-5)


def test_a_jump_gives_the_least_of_the_regularizers():
    """The hard threshold is the prox of L0, and of CEL0, which lies below it and meets it where z can be."""
    inverse = regularizer_of(lambda u: np.where(abs(u) > 1.2, u, 0.0))
    assert inverse.is_convex is False
    (u, f_u), (v, f_v) = inverse.witness
    assert f_v - f_u > v - u
    z = inverse.z
    cel0 = 0.72 - 0.5 * np.maximum(1.2 - abs(z), 0) ** 2
    np.testing.assert_allclose(inverse.values, cel0, atol=1e-6)
    assert (inverse.values <= (0.72 * L0()).value(z[:, None]) + 1e-6).all()
    away = abs(abs(U) - 1.2) > 1e-3
    np.testing.assert_allclose(inverse.regularizer.prox(U)[away], (0.72 * L0()).prox(U)[away], atol=1e-5)


def gelu(u):
    return 0.5 * u * (1 + erf(u / np.sqrt(2)))


def silu(u):
    return u / (1 + np.exp(-u))


@pytest.mark.parametrize(
    "activation", [gelu, silu, np.sin, lambda u: -u, lambda u: abs(u)], ids=["gelu", "silu", "sine", "minus", "modulus"]
)
def test_what_falls_is_no_prox_and_two_points_show_it(activation):
    inverse = regularizer_of(activation)
    assert not inverse.is_prox
    (u, f_u), (v, f_v) = inverse.witness
    assert u < v
    assert f_u > f_v
    assert f_u == pytest.approx(float(activation(np.array([u]))[0]))
    assert f_v == pytest.approx(float(activation(np.array([v]))[0]))
    assert "not a prox of any R" in str(inverse)
    assert inverse.regularizer is None


def test_closed_forms():
    u, z = sympy.symbols("u z", real=True)
    shrunk = regularizer_of(u / 3)
    assert sympy.simplify(shrunk.expression - z**2) == 0
    tanh = regularizer_of(sympy.tanh(u))
    numeric = sympy.lambdify(z, tanh.expression, "numpy")
    inner = abs(tanh.z) < 0.99
    np.testing.assert_allclose(numeric(tanh.z[inner]) - numeric(0.0), tanh.values[inner], atol=1e-5)
    assert regularizer_of(sympy.Max(u, 0)).expression is None


def test_closed_forms_are_real_on_the_range():
    u, z = sympy.symbols("u z", real=True)
    logistic = regularizer_of(1 / (1 + sympy.exp(-u)))
    expected = z * sympy.log(z) + (1 - z) * sympy.log(1 - z) - z**2 / 2
    for point in (0.1, 0.5, 0.8):
        assert float((logistic.expression - expected).subs(z, point)) == pytest.approx(0.0, abs=1e-12)
    cubic = regularizer_of(u**3)
    assert float(cubic.expression.subs(z, -8.0)) == pytest.approx(0.75 * 16 - 32)


MODULES = {
    torch.nn.ReLU(): True,
    torch.nn.ELU(): True,
    torch.nn.Hardtanh(): True,
    torch.nn.PReLU(): True,
    torch.nn.Tanhshrink(): True,
    torch.nn.functional.softsign: True,
    torch.nn.SELU(): True,
    torch.nn.GELU(): False,
    torch.nn.Mish(): False,
    torch.nn.functional.silu: False,
}


@pytest.mark.parametrize(("module", "is_prox"), MODULES.items(), ids=[str(m).split(" at ")[0] for m in MODULES])
def test_torch_modules_are_activations(module, is_prox):
    inverse = regularizer_of(module)
    assert inverse.is_prox == is_prox
    assert check_map(module, 3).is_prox == is_prox
    if is_prox:
        expected = module(torch.from_numpy(U).to(torch.float32)).detach().numpy()
        np.testing.assert_allclose(inverse.regularizer.prox(U), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("relu", "must be a function or a sympy expression, got 'relu'"),
        (np.log, "NaN or infinite at u = -10"),
        (lambda u: u[:-1], "must return a real number for each input"),
        (lambda u: None, "must return a real number for each input"),
        (lambda u: 1 / 0, "the activation raises ZeroDivisionError"),
    ],
)
def test_what_is_no_activation_is_named(activation, message):
    with pytest.raises((TypeError, ValueError), match=message):
        regularizer_of(activation)


def test_weights_of_a_module_are_not_changed():
    module = torch.nn.LayerNorm(4)
    assert check_map(module, 4).is_prox
    assert module.weight.dtype == torch.float32
    with pytest.raises(TypeError, match="the map must be a function, got 'softmax'"):
        check_map("softmax", 4)
    with pytest.raises(ValueError, match="n_components must be an integer >= 1, got 0"):
        check_map(np.abs, 0)


def test_bad_input():
    with pytest.raises(ValueError, match="low < high"):
        regularizer_of(np.tanh, 1.0, 1.0)
    with pytest.raises(ValueError, match="one symbol"):
        regularizer_of(sympy.Symbol("a") * sympy.Symbol("b"))


def signed_top_1(u):
    """The largest signed entry alone, negative ones too: TopK without ReLU."""
    return np.where(np.arange(len(u)) == u.argmax(), u, 0.0)


def layer_norm(u):
    return (u - u.mean()) / np.sqrt(u.var() + 1e-5)


A = np.array([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
MAPS = [
    (signed_top_1, "monotone"),
    (lambda u: -u, "monotone"),
    (lambda u: np.array([np.sin(3 * u[0]), u[1], u[2]]), "monotone"),
    (lambda u: A @ u, "symmetric"),
    (lambda u: np.maximum(u, 0) * np.array([1.0, 2.0, 1.0]) + 0.3 * np.tanh(np.roll(u, 1)) + u, "symmetric"),
]


@pytest.mark.parametrize(("function", "violation"), MAPS, ids=range(len(MAPS)))
def test_maps_that_are_no_prox(function, violation):
    found = check_map(function, 3)
    assert not found.is_prox
    assert found.violation == violation
    if violation == "monotone":
        u, v = found.points
        assert (function(u) - function(v)) @ (u - v) < 0
    else:
        (u,) = found.points
        J = np.stack([(function(u + h) - function(u - h)) / 2e-6 for h in 1e-6 * np.eye(3)], axis=1)
        assert np.abs(J - J.T).max() > 1e-3
    assert "not a prox of any R" in str(found)


GOOD = [
    Cardinality(2),
    NonNegative() + Cardinality(1),
    0.5 * GroupL2(2),
    Simplex(),
    Entmax(1.5),
    L1() + SquaredL2(),
    MCP(0.5),
    Huber(0.2),
]


@pytest.mark.parametrize("R", GOOD, ids=repr)
def test_every_prox_passes(R):
    found = check_map(lambda u: R.prox(u), 4)
    assert found.is_prox
    assert "no violation" in str(found)


def test_softmax_passes_and_layer_norm_is_symmetric():
    assert check_map(lambda u: np.exp(u - u.max()) / np.exp(u - u.max()).sum(), 4).is_prox
    assert check_map(layer_norm, 4).is_prox
    with pytest.raises(ValueError, match="must return 3 finite numbers"):
        check_map(lambda u: u[:2], 3)


def test_the_regularizer_of_an_activation_equals_its_copies():
    R = regularizer_of(np.tanh, -3, 3).regularizer
    S = pickle.loads(pickle.dumps(R))
    assert S == R == copy.deepcopy(R)
    assert hash(S.function) == hash(R.function)
    assert R + S == 2 * R
    assert R not in (regularizer_of(np.tanh, -2, 2).regularizer, regularizer_of(np.sin, -1.5, 1.5).regularizer)
