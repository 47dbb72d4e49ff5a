"""Selections from products in bfloat16 are those of the product in float32, near ties and odd rows included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.encoders import pre_activation
from proxsae.encoders.pre_activation import PreActivation
from proxsae.kernels import screening
from proxsae.kernels.screening import Rounded, Screen, screen_for
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import Largest, Outside


def numbers(n, p, d, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator) * scale
    weight = torch.nn.functional.normalize(torch.randn(p, d, generator=generator), dim=1)
    return x, weight, 0.1 * scale * torch.randn(p, generator=generator)


def assert_selects(rule, x, weight, bias):
    """The rule selects by a screen what it selects of exact entries, which integers keep exact."""
    pattern, entries = Screen(weight, bias, rule)(x)
    u = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()
    expected = Pattern(*rule(u), n_columns=len(weight))
    assert torch.equal(pattern.offsets, expected.offsets)
    assert torch.equal(pattern.indices, expected.indices)
    torch.testing.assert_close(entries, expected.gather(u), rtol=1e-5, atol=1e-5 * float(u.abs().max()))


def test_rounding_is_that_of_torch():
    x = torch.randn(50, 37) * torch.logspace(-8, 8, 50)[:, None]
    rounded = Rounded.of(x)
    assert torch.equal(rounded.bits, x.bfloat16())
    np.testing.assert_allclose(rounded.sizes, x.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(rounded.losses, (x - x.bfloat16().float()).norm(dim=1), rtol=1e-5)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("k", [1, 7, 60, 200, 300])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_largest(k, mirror, scale):
    assert_selects(Largest(k, mirror), *numbers(70, 300, 64, seed=k, scale=scale))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("is_signed", [True, False])
def test_the_outside(share, is_signed):
    x, weight, bias = numbers(70, 300, 64, seed=3)
    high = torch.quantile(x @ weight.T + bias, 1 - share) + 0.1 * torch.rand(300)
    low = -high - 0.1 * torch.rand(300) if is_signed else torch.full((300,), -torch.inf)
    assert_selects(Outside(low, high), x, weight, bias)
    assert_selects(Outside(low.numpy(), high.numpy()), x, weight, None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1.0, -1.0]), st.sampled_from([2, 300]))
def test_integers_tie_exactly(seed, k, mirror, largest):
    """Sums of integers are exact in float32, and those up to 300 are not in bfloat16: ties go to the lowest index."""
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randint(-largest, largest + 1, (n, 16), generator=generator).float() for n in (20, 130))
    bias = torch.randint(-3, 4, (130,), generator=generator).float()
    weight[50] = weight[20]
    assert_selects(Largest(k, mirror), x, weight, bias)
    bound = torch.randint(0, 40 * largest, (130,), generator=generator).float()
    assert_selects(Outside(-bound, bound), x, weight, bias)


@pytest.mark.parametrize("rule", [Largest(5, 1.0), Largest(5, -1.0), Outside(torch.full((90,), -2.0), torch.ones(90))])
def test_rows_beyond_what_bfloat16_can_hold(rule):
    x, weight, bias = numbers(12, 90, 32, seed=0)
    x[0] = 0
    x[1] *= 1e-30
    x[2] *= 1e30
    x[3] = x[3] * 1e-42
    x[4, 0] = 3.4e38  # rounds to infinity
    weight[7] = 0
    assert_selects(rule, x, weight, bias)


def test_where_almost_nothing_is_in_doubt():
    """Were the bounds not used, all entries would be computed again."""
    x, weight, bias = numbers(64, 2048, 128, seed=1)
    near = Screen(weight, bias, Largest(8, 1.0)).near(x)
    assert 8 * 64 <= len(near.indices) < 24 * 64


def test_a_near_miss_is_looked_at():
    """The second atom is larger by less than bfloat16 can tell."""
    x, weight = torch.ones(1, 64), torch.ones(90, 64)
    weight[:, 0] = 0.5
    weight[60, 0] = 0.5 + 2.0**-10
    pattern, entries = Screen(weight, None, Largest(1, 1.0))(x)
    assert pattern.indices.tolist() == [60]
    assert entries.item() == 63.5 + 2.0**-10


def test_an_order_that_rounding_turns_round():
    """All of the first atom is rounded down, most of the second up: it is the smaller, and its product the larger."""
    unit = 2.0**-8
    x, weight = torch.full((1, 64), 1 + 0.99 * unit), torch.zeros(90, 64)
    weight[10] = 1 + 0.99 * unit
    weight[20, :48], weight[20, 48:] = 1 + 1.01 * unit, 1 + 0.9 * unit
    products = (x.bfloat16() @ weight.bfloat16().T)[0]
    assert products[20] > products[10]
    assert Screen(weight, None, Largest(1, 1.0))(x)[0].indices.tolist() == [10]


def usable(monkeypatch):
    monkeypatch.setattr(screening, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(screening, "LARGE", 64)


@pytest.mark.parametrize("rule", [Largest(4, 1.0), Outside(torch.full((512,), -torch.inf), torch.full((512,), 2.7))])
def test_a_pre_activation_selects_by_a_screen(rule, monkeypatch):
    usable(monkeypatch)
    monkeypatch.setattr(pre_activation, "BLOCK_SIZE", 300 * 512)
    x, weight, bias = numbers(1000, 512, 64, seed=5)
    with_screen = PreActivation(x.clone().requires_grad_(), weight, bias).select(rule, by_rows=True)
    assert screen_for(x, weight, bias, rule) is not None
    monkeypatch.setattr(pre_activation, "screen_for", lambda *_: None)
    without = PreActivation(x, weight, bias).select(rule, by_rows=True)
    assert torch.equal(with_screen[0].keys, without[0].keys)
    torch.testing.assert_close(with_screen[1], without[1], rtol=1e-5, atol=1e-5)


def test_when_there_is_no_screen(monkeypatch):
    usable(monkeypatch)
    x, weight, bias = numbers(1000, 512, 64, seed=5)
    few, many = Largest(4, 1.0), Outside(torch.zeros(512), torch.zeros(512))
    assert screen_for(x, weight, bias, few) is not None
    assert screen_for(x, weight, bias, many) is None, "all is selected"
    assert screen_for(x, weight, bias, Largest(256, 1.0)) is None
    assert screen_for(x, weight, bias, Largest(0, 1.0)) is None, "nothing is selected"
    assert screen_for(x, weight, bias, lambda u: few(u)) is None, "a rule that it does not know"
    assert screen_for(x.double(), weight.double(), bias.double(), few) is None
    assert screen_for(x.to("meta"), weight.to("meta"), bias.to("meta"), few) is None, "not in main memory"
    assert screen_for(x[:8], weight, bias, few) is None, "too few rows"
    assert screen_for(x, 1e-20 * weight, bias, few) is None, "too small for bfloat16"
    assert screen_for(x, weight * torch.nan, bias, few) is None
    monkeypatch.setattr(screening, "_multiplies_bfloat16", lambda: False)
    assert screen_for(x, weight, bias, few) is None
