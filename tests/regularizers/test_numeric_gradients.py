"""The gradients of Numeric for Torch tensors: those of the same functions in formulas."""

import numpy as np
import pytest
import torch

from proxsae import ProxSAE
from proxsae.regularizers import L1, CappedL1, Cardinality, LogSum, NonNegative, Numeric, OfNorms


def log_sum(z):
    return np.log1p(np.abs(z) / 0.3)


def capped(z):
    return np.where(z < 0, np.inf, np.minimum(z, 0.7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("mine", "known"),
    [
        (0.5 * Numeric(np.abs), 0.5 * L1()),
        (Numeric(log_sum), LogSum(0.3)),
        (Numeric(capped), CappedL1(0.7) + NonNegative()),
        (0.3 * Numeric(np.abs) + Cardinality(4), 0.3 * L1() + Cardinality(4)),
        (0.3 * OfNorms(Numeric(np.abs), 2), 0.3 * OfNorms(L1(), 2)),
    ],
    ids=str,
)
def test_the_value_has_the_gradient_of_the_formula(mine, known, dtype):
    Z = torch.from_numpy(np.random.default_rng(4).normal(size=(40, 4))).to(dtype)
    Z[::5] = 0
    gradients = []
    for R in (mine.rescaled(2.0), known.rescaled(2.0)):
        z = (Z.abs() if R.is_nonnegative else Z.clone()).requires_grad_()
        gradients += torch.autograd.grad(R.value(z).sum(), z)
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-5)


def test_jumps_and_ends_of_the_domain_leave_the_slope_of_the_other_side():
    def sloped(z):  # on [-1, 1], least at -1, with a jump at 0.5
        return np.where(abs(z) <= 1, 2.0 * z + (z > 0.5), np.inf)

    z = torch.tensor([[-1.0, 0.5, 0.9, 1.0, 1.5]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Numeric(sloped, limit=5.0).value(z).sum(), z)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 2.0, 2.0, 2.0, 0.0]], dtype=torch.float64))


def test_an_amortized_encoder_trains_with_the_slope_of_the_value():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(200, 8)) * (rng.random((200, 8)) < 0.3)) @ rng.normal(size=(8, 6))
    ends = []
    for R in (0.5 * Numeric(np.abs, limit=100.0), 0.5 * L1()):
        sae = ProxSAE(R, 8, encoder="amortized", n_steps=40, learning_rate=2e-2, random_state=0).fit(X)
        Z = sae.transform(X).toarray()
        ends.append(0.5 * ((X - sae.inverse_transform(Z)) ** 2).sum(1).mean() + 0.5 * abs(Z).sum(1).mean())
    assert ends[0] == pytest.approx(ends[1], rel=0.02)


def test_the_prox_of_an_even_function_has_its_slope_at_zero():
    R, t = 0.3 * Numeric(lambda z: np.log1p(z * z), limit=20.0), 0.1
    u = torch.tensor([-0.0, 0.0, 1e-3, -1e-3], dtype=torch.float64, requires_grad=True)
    z = R.prox(u, t)
    (gradient,) = torch.autograd.grad(z.sum(), u)
    torch.testing.assert_close(gradient, torch.full_like(u, 1 / (1 + 2 * 0.3 * t)), rtol=1e-3, atol=0)
    assert not z[:2].any()
    assert z[2] == -z[3]
    np.testing.assert_array_equal(z.detach(), R.prox(u.detach().numpy(), t))


def test_values_are_computed_once_where_no_gradient_is_asked_for():
    calls = []

    def counted(z):
        calls.append(np.shape(z))
        return np.abs(z)

    R, z = Numeric(counted, limit=5.0), torch.ones(2, 3, requires_grad=True)
    calls.clear()
    with torch.no_grad():
        R.value(z)
    assert calls == [(2, 3)]
    R.value(z)  # here, and on both sides
    assert calls == [(2, 3)] * 4
