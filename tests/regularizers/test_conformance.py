"""What every regularizer owes: one prox in every reader, slopes, a text, other units, a weight, and rows of any width.

A class has all of it checked by being in the zoo.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from definitions import SPECIAL
from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae import regularizers
from proxsae.formulas.numba import compiled
from proxsae.regularizers import KSupport, KSupportNorm, L1MinusL2, TreeGroups, parse

ZOO = [*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT]
EVERY = list(dict.fromkeys([*ZOO, *SPECIAL]))


def parts(R):
    """Yield R and all that it is made of."""
    yield R
    for part in R.made_of():
        yield from parts(part)


def has(R, *classes):
    return any(isinstance(part, classes) for part in parts(R))


def is_exact(R):
    """Whether every library gives the same bits: not where it adds up a code, in an order of its own."""
    return R.is_algebraic and not has(R, KSupport, KSupportNorm, L1MinusL2)


def points(R, n=40):
    """Rows of random codes, then zero, ties, one spike, both signs, and small numbers."""
    p = R.width or (7 if has(R, TreeGroups) else 5)
    rng = np.random.default_rng(0)
    special = [np.zeros(p), np.full(p, 0.9), -3.0 * np.eye(p)[1], np.resize([1.4, -1.4], p), np.full(p, 0.01)]
    return np.concatenate([rng.normal(size=(n, p)) * 2, special])


@pytest.mark.parametrize("R", EVERY, ids=repr)
def test_torch_is_numpy_in_both_precisions(R):
    wide = {}
    for dtype in ("float64", "float32"):
        U = points(R).astype(dtype)
        steps = [0.7] if R.scope == "batch" else [0.7, np.linspace(0.2, 3, len(U), dtype=dtype)[:, None]]
        for i, t in enumerate(steps):
            Z = R.prox(U, t)
            found = R.prox(torch.from_numpy(U), t if isinstance(t, float) else torch.from_numpy(t)).numpy()
            assert found.dtype == Z.dtype == dtype
            assert np.array_equal(found == 0, Z == 0)
            if is_exact(R):
                np.testing.assert_array_equal(found, Z)
            rtol, atol = (1e-12, 1e-14) if dtype == "float64" else (1e-6, 1e-6)
            np.testing.assert_allclose(found, Z, rtol=rtol, atol=atol)
            np.testing.assert_allclose(Z, wide.setdefault(i, Z), atol=3e-6)
            values = R.value(Z)
            assert np.isfinite(values).all()
            found = R.value(torch.from_numpy(Z)).numpy()
            np.testing.assert_allclose(found, values, rtol=rtol, atol=1e-14 if is_exact(R) else atol)
        if R.scope != "batch":
            np.testing.assert_allclose(R.prox(U[3], t[3]), Z[3], rtol=0, atol=0 if is_exact(R) else 1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("R", [R for R in EVERY if R.is_separable and R.has_formula and R not in ZOO], ids=repr)
def test_the_compiled_loop_is_numpy(R, dtype):
    """Of those of the zoo the test of the readers says more."""
    number = np.dtype(dtype).type
    U, t = (np.random.default_rng(0).normal(size=(40, R.width or 5)) * 3).astype(dtype), number(0.8)
    Z = R.prox(U, 0.8)
    scalar = compiled(R, dtype=dtype)
    parameters = [np.broadcast_to(np.asarray(p, dtype), U.shape[1]) for _, p in R.parameters()]
    columns = [tuple(p[j] for p in parameters) for j in range(U.shape[1])]
    found = np.array([[scalar(u, t, columns[j]) for j, u in enumerate(row)] for row in U])
    assert np.array_equal(found == 0, Z == 0)
    if R.is_algebraic:
        assert np.array_equal(found, Z)
    tolerance = 2e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(found, Z, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("R", EVERY, ids=repr)
@pytest.mark.parametrize("t", [0.4, 0.7])
def test_gradients_are_slopes(R, t):
    """Where no kink is near; at zeros, ties and spikes they are finite."""
    special = points(R, 5)
    p = special.shape[1]
    scattered = [np.resize(row, p) for row in ([-7.3, -1.93, -0.41, 0.27, 1.37], [2.83, 9.1, 0.1123, -0.0719, -3.1372])]
    generic = np.concatenate([special[:5] + 0.003, scattered])
    U = torch.from_numpy(np.concatenate([generic, special[5:]])).requires_grad_()
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=U.shape))
    (gradient,) = torch.autograd.grad((R.prox(U, t) * direction).sum(), U)
    assert torch.isfinite(gradient).all()
    n, h = len(generic), 1e-6
    for shift in h * torch.eye(p, dtype=torch.float64):
        with torch.no_grad():
            differences = R.prox(U + shift, t) - R.prox(U - shift, t)
        slopes = (differences * direction).sum(-1) / (2 * h)
        torch.testing.assert_close((gradient @ shift)[:n] / h, slopes[:n], rtol=1e-5, atol=1e-5)


def one_of_each_form(some):
    return list({tuple(type(part) for part in parts(R)): R for R in some}.values())


@pytest.mark.parametrize("R", EVERY, ids=repr)
def test_the_text_reads_back(R):
    arrays = {}
    text = R.spelled(arrays)
    again = parse(text, **arrays)
    assert again == R
    assert hash(again) == hash(R)
    assert arrays or text == repr(R)
    typed = eval(repr(R), {**vars(regularizers), "np": np})
    assert repr(typed) == repr(R)
    if all(np.array_equal(np.round(array, 8), array) for array in arrays.values()):  # what is shown of an array
        assert typed == R


@pytest.mark.parametrize("R", [*ZOO, *one_of_each_form(R for R in SPECIAL if R not in ZOO)], ids=repr)
def test_the_formulas_are_printed(R):
    for of, start in (("value", "R(z) = "), ("prox", r"\mathrm{prox}")):
        text = R.latex(of)
        assert text.startswith(start)
        assert text.count("{") == text.count("}")
        assert text.count(r"\left") == text.count(r"\right")
        assert text.count(r"\begin{cases}") == text.count(r"\end{cases}")
        assert "np." not in text


@pytest.mark.parametrize("R", EVERY, ids=repr)
def test_rescaled_is_r_in_other_units(R):
    U = points(R)
    Z = R.prox(U)
    for scale in (0.25, 1.0, 1.7, 8.0):
        scaled = R.rescaled(scale)
        rtol, atol = (1e-9, 1e-9) if scale == 1.7 else (1e-13, 1e-15)  # powers of two scale without rounding
        np.testing.assert_allclose(scaled.prox(scale * U), scale * Z, rtol=rtol, atol=atol)
        np.testing.assert_allclose(scaled.value(scale * Z), scale**2 * R.value(Z), rtol=rtol, atol=atol)


@pytest.mark.parametrize("R", EVERY, ids=repr)
def test_a_weight_is_a_step(R):
    U = points(R)
    np.testing.assert_allclose((2.5 * R).prox(U, 0.4), R.prox(U, 1.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("R", EVERY, ids=repr)
def test_rows_may_be_wide_or_missing(R):
    p = points(R).shape[1]
    assert R.prox(np.zeros((0, p))).shape == (0, p)
    if R.width is not None or has(R, TreeGroups):
        return
    wide = np.random.default_rng(0).normal(size=(3, 3000)).astype(np.float32) * 1000
    found = R.prox(wide)
    np.testing.assert_allclose(found, R.prox(wide.astype(np.float64)), atol=2e-3)
    assert np.isfinite(R.value(found)).all()
