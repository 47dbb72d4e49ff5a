"""The amortized encoder: sparse equals dense, and equals a proximal-gradient step."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from proxsae import ProxSAE
from proxsae.encoders import Amortized, amortized, pre_activation
from proxsae.encoders.pre_activation import PreActivation
from proxsae.encoders.thresholds import Count, Jump, initial_thresholds, takes_thresholds, with_thresholds
from proxsae.regularizers import L0, L1, AsymmetricL0, Box, Cardinality, NonNegative, SquaredL2, parse

REGULARIZERS = [
    "0.3*L1",
    "0.3*L1 + NonNegative",
    "0.3*L0",
    "0.3*L0 + NonNegative",
    "0.2*L1 + 0.5*SquaredL2",
    "Cardinality(3)",
    "NonNegative + Cardinality(3)",
    "0.2*L1 + Cardinality(3)",
    "w*L1 + Cardinality(3)",
    'Cardinality(3, "batch")',
    'NonNegative + Cardinality(3, "batch")',
    "Box(-0.5, 1.0) + 0.1*L0",
]


def make_encoder(regularizer, dtype=torch.float64, threshold=None):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(12, 5, generator=generator, dtype=dtype)
    return Amortized.of(regularizer, W, 0.1 * torch.randn(12, generator=generator, dtype=dtype), threshold)


@pytest.mark.parametrize("text", REGULARIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_codes_and_gradients_equal_dense_ones(text, dtype):
    R = parse(text, w=np.linspace(0.1, 0.6, 12))
    encoder = make_encoder(R, dtype)
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    D = torch.randn(12, 5, generator=torch.Generator().manual_seed(2), dtype=dtype).requires_grad_()
    dense = encoder(x)
    encoding = encoder.encode(x)
    codes, penalty = encoding.codes, encoding.penalty
    assert torch.equal(torch.from_numpy(codes.to_csr().toarray()), dense.detach())
    assert torch.equal(codes.l0, (dense != 0).sum(1).int())
    assert torch.equal(codes.active_atoms, (dense != 0).any(0))
    if "batch" not in text:
        assert penalty.mean().item() == pytest.approx(float(R.value(dense.detach()).mean()), rel=1e-5)
    parameters = [encoder.weight, encoder.bias, D]
    sparse_gradients = torch.autograd.grad((x - codes.decode(D)).square().sum(), parameters, retain_graph=True)
    for got, wanted in zip(
        sparse_gradients, torch.autograd.grad((x - dense @ D).square().sum(), parameters), strict=True
    ):
        assert (got - wanted).norm() <= 50 * torch.finfo(dtype).eps * wanted.norm()


@pytest.mark.parametrize("text", ["0.3*L1 + NonNegative", "0.3*L0", "Cardinality(3)"])
def test_one_proximal_gradient_step_from_zero_is_the_encoder(text):
    R, t = parse(text), 0.37
    rng = np.random.default_rng(0)
    X, D, b = rng.normal(size=(20, 5)), rng.normal(size=(12, 5)), rng.normal(size=5)
    step = R.prox(t * (X - b) @ D.T, step=t)
    W, b_e = torch.from_numpy(t * D), torch.from_numpy(-t * D @ b)
    codes = Amortized.of(R * t, W, b_e)(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(codes, step, rtol=0, atol=1e-14)
    assert ((codes != 0) == (step != 0)).all()


def test_takes_thresholds():
    assert takes_thresholds(L0())
    assert takes_thresholds(0.2 * L0() + NonNegative())
    assert takes_thresholds(0.3 * AsymmetricL0(0.5, 1.0))
    for other in (
        L1(),
        AsymmetricL0(0.5, 1.0) + NonNegative(),
        L0() + L1(),
        Cardinality(2),
        Box(-1, 1) + L0(),
        L0() + SquaredL2(),
        NonNegative(),
    ):
        assert not takes_thresholds(other)


@pytest.mark.parametrize("R", [L0(), L0() + NonNegative()])
def test_learned_thresholds_cut_where_the_regularizer_does(R):
    threshold = torch.linspace(0.2, 2.0, 12, dtype=torch.float64)
    encoder = make_encoder(R, threshold=threshold)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = encoder.pre_activation(x)
    m = u if R.is_nonnegative else u.abs()
    expected = torch.where(m > threshold, u, 0.0).detach()
    assert torch.allclose(encoder(x), expected)
    for mode in (True, False):  # in training the support has near misses too, whose codes are 0
        codes = encoder.train(mode).codes(x)
        np.testing.assert_allclose(codes.to_csr().toarray(), expected.numpy())
        assert torch.equal(codes.l0, (expected != 0).sum(1).int())
    assert with_thresholds(R, threshold).is_nonnegative == R.is_nonnegative


def test_two_thresholds_an_atom_cut_and_learn_by_sign():
    R = 2.0 * AsymmetricL0(0.25, 1.0)
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoder = make_encoder(R, threshold=initial_thresholds(R, torch.zeros(12, 5, dtype=torch.float64)))
    np.testing.assert_allclose(encoder.threshold.detach(), [[1.0] * 12, [2.0] * 12])
    with torch.no_grad():
        encoder.threshold += torch.linspace(0, 1, 12) * torch.tensor([[1.0], [-1.0]])
    u = encoder.pre_activation(x)
    expected = torch.where((u > encoder.threshold[0]) | (u < -encoder.threshold[1]), u, 0.0).detach()
    for mode in (True, False):
        codes = encoder.train(mode).codes(x)
        np.testing.assert_allclose(codes.to_csr().toarray(), expected.numpy())
    costs = torch.where(u > 0, encoder.threshold[0], encoder.threshold[1]).detach() ** 2 / 2
    np.testing.assert_allclose(encoder.current_regularizer.value(expected), (costs * (expected != 0)).sum(1))
    # in training a code of one sign costs what those of all atoms do on average
    costs = torch.where(u > 0, *(encoder.threshold.detach() ** 2 / 2).mean(1))
    torch.testing.assert_close(encoder.encode(x).penalty.detach(), (costs * (expected != 0)).sum(1))
    # the surrogate of each sign is that of one threshold on the entries of that sign
    encoder.train().encode(x).penalty.sum().backward()
    for side, sign in enumerate((1, -1)):
        near = ((sign * u - encoder.threshold[side]).abs() < 0.5 * encoder.bandwidth).double()
        wanted = -(costs * near / encoder.bandwidth).sum(0)
        np.testing.assert_allclose(encoder.threshold.grad[side], wanted.detach(), atol=1e-9)
    again = Amortized.from_tensors(R, encoder.tensors())
    assert torch.equal(again.eval().codes(x).values, encoder.eval().codes(x).values)
    with pytest.raises(ValueError, match=r"'threshold' has shape \(12,\), needed is \(2, 12\)"):
        Amortized.from_tensors(R, encoder.tensors() | {"threshold": torch.ones(12)})


@pytest.mark.parametrize("signed", [False, True])
def test_surrogate_derivatives_estimate_the_derivative_of_the_expectation(signed):
    # u uniform on [-4, 4]: d/dtheta of P(m > theta) and of E|z| are known exactly.
    u = torch.linspace(-4, 4, 400_001, dtype=torch.float64)
    theta = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    thetas = theta.expand(len(u))
    z = torch.where((u.abs() if signed else u) > theta.detach(), u, 0.0)
    density = 1 / 8 * (2 if signed else 1)
    (slope,) = torch.autograd.grad(Count.apply(u, thetas, z, signed, 0.5).mean(), theta)
    assert slope.item() == pytest.approx(-density, rel=1e-3)
    (slope,) = torch.autograd.grad(Jump.apply(u, thetas, z, signed, 0.5).abs().mean(), theta)
    near_misses_have_no_sign = 0.5  # d|z|/dz is 0 at z = 0: half of the window does not count for this loss
    assert slope.item() == pytest.approx(-density * 1.5 * near_misses_have_no_sign, rel=1e-3)


@pytest.mark.parametrize("misled", [False, True], ids=["typical rows sampled", "large ones"])
@pytest.mark.parametrize("text", ["Cardinality(3, 'batch')", "w*L1 + NonNegative + Cardinality(3, 'batch')"])
def test_the_largest_of_a_batch_are_the_same_where_it_is_encoded_block_by_block(text, misled, monkeypatch):
    R = parse(text.replace("'", '"'), w=np.linspace(0.1, 0.4, 40))
    generator = torch.Generator().manual_seed(0)
    x, W = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (700, 40))
    x, W = x.round(decimals=1), W.round(decimals=1)  # so that some u are equal
    x[:: 700 // 32] *= 100.0 if misled else 1.0
    encoder = Amortized.of(R, W, torch.linspace(-1, 1, 40, dtype=torch.float64))
    whole = encoder.encode(x)
    monkeypatch.setattr(pre_activation, "BLOCK_SIZE", 1)  # 256 rows at a time
    looks = []
    monkeypatch.setattr(PreActivation, "select", recording(PreActivation.select, looks))
    blockwise = encoder.encode(x)
    assert looks == ([True, False] if misled else [True])
    assert len(whole.codes.pattern.indices) == 3 * 700
    torch.testing.assert_close(blockwise.codes.to_dense(), whole.codes.to_dense())
    torch.testing.assert_close(blockwise.prices, whole.prices)


def recording(select, looks):
    def by_rows_noted(pre, rule, *, by_rows):
        looks.append(by_rows)
        return select(pre, rule, by_rows=by_rows)

    return by_rows_noted


def test_no_dense_matrix_is_kept_for_the_backward_pass():
    encoder = make_encoder(Cardinality(3), torch.float32)
    D = torch.randn(12, 5, requires_grad=True)
    x = torch.randn(400, 5)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        (x - encoder.codes(x).decode(D)).square().sum().backward()
    assert kept
    assert all(np.prod(shape) < 400 * 12 for shape in kept)


@pytest.mark.parametrize(
    ("R", "threshold"),
    [(Cardinality(3), None), (NonNegative() + Cardinality(3, "batch"), None), (L0(), torch.ones(1100).double())],
)
def test_what_w_reads_beside_the_atoms_decays_where_non_zeros_keep_their_size(R, threshold):
    torch.manual_seed(0)
    D = torch.nn.functional.normalize(torch.randn(1100, 8, dtype=torch.float64))  # more rows than are taken at a time
    W = torch.randn(1100, 8, dtype=torch.float64)
    encoder = Amortized.of(R, W.clone(), torch.zeros(1100, dtype=torch.float64), threshold)
    encoder.draw_to(D, 0.25)
    along = (W * D).sum(1, keepdim=True) * D
    torch.testing.assert_close(encoder.weight.detach(), along + 0.75 * (W - along), rtol=1e-13, atol=1e-15)


def test_all_of_w_is_drawn_at_once_on_a_device(monkeypatch):
    encoder = Amortized().initial(Cardinality(2), torch.eye(1100, 8), learn_thresholds=False)
    sizes, split = [], torch.split
    monkeypatch.setattr(torch, "split", lambda a, size: sizes.append(size) or split(a, size))
    encoder.draw_to(torch.eye(1100, 8), 0.5)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    encoder.draw_to(torch.eye(1100, 8), 0.5)
    assert sizes == [512, 512, 1100, 1100]


@pytest.mark.parametrize(("capability", "does"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_factors_are_rounded_where_a_device_computes_with_them_itself(capability, does, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # by emulation at least
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    encoder = Amortized().initial(Cardinality(2), torch.eye(3), learn_thresholds=False).train()
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda", 0))
    amortized._computes_in_bfloat16.cache_clear()
    assert encoder._argument(x).in_bfloat16 == does
    assert not encoder.eval()._argument(x).in_bfloat16
    amortized._computes_in_bfloat16.cache_clear()


@pytest.mark.parametrize("R", [0.1 * L1(), L0() + NonNegative(), 0.1 * L1() + Cardinality(3)])
def test_elsewhere_it_does_not(R):
    W = torch.randn(6, 4)
    encoder = Amortized.of(R, W.clone(), torch.zeros(6))
    encoder.draw_to(torch.eye(6, 4), 0.25)
    assert torch.equal(encoder.weight, W)


def test_a_training_draws_every_eighth_step(monkeypatch):
    shares = []
    monkeypatch.setattr(Amortized, "draw_to", lambda self, atoms, share: shares.append(share))
    X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    history = ProxSAE(Cardinality(2), 12, n_steps=20, batch_size=16, learning_rate=1e-3, random_state=0).fit(X).history_
    np.testing.assert_allclose(shares, 4 * 8 * history["learning_rate"][[7, 15]])
    ProxSAE(Cardinality(2), 12, n_steps=20, batch_size=16, random_state=0).fit(X, X @ np.eye(8, 5, dtype=np.float32))
    assert len(shares) == 2  # the atoms of a transcoder are no directions of its inputs
