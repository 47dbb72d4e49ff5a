"""The unrolled encoder: an unrolled solver before training, an autoencoder like every other after it."""

import numpy as np
import pytest
import torch
from zoo import JOINT, SEPARABLE, SUMS

from proxsae import ProxSAE, solve
from proxsae.encoders import Amortized, Unrolled
from proxsae.encoders.kinds import KINDS
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, parse
from proxsae.training.autoencoder import Autoencoder

rng = np.random.default_rng(0)
D = rng.normal(size=(5, 4))
X = 2 * rng.normal(size=(30, 4))
b = 0.3 * rng.normal(size=4)
TEXTS = ["0.3*L1", "0.3*L0 + NonNegative", "0.2*L1 + 0.5*SquaredL2", "Cardinality(2)", "0.2*L1 + Cardinality(3)"]


def encoder_of(R, learn_thresholds=False, D=D, b=b, **options):
    """An encoder before training, tied to D and b."""
    encoder = Unrolled(**options).initial(R, torch.from_numpy(D), learn_thresholds=learn_thresholds)
    return Autoencoder(encoder, torch.from_numpy(D), torch.from_numpy(b)).encoder


@pytest.mark.parametrize("R", [*SEPARABLE, *SUMS, *JOINT, Cardinality(2), 0.2 * L1() + Cardinality(2)], ids=repr)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_before_training_ista_is_ista(R):
    for n_layers in (1, 4):
        codes = encoder_of(R, n_layers=n_layers)(torch.from_numpy(X)).detach().numpy()
        wanted = solve(X, D, R, intercept=b, method="ista", max_iter=n_layers, tol=0).codes
        np.testing.assert_allclose(codes, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_every_kind_starts_as_ista_and_one_layer_is_the_amortized_encoder(kind, text):
    R, t = parse(text), 0.05
    one = encoder_of(R, n_layers=1, kind=kind, step=t)(torch.from_numpy(X))
    W = torch.from_numpy(t * D)
    amortized = Amortized.of(R * t, W, -W @ torch.from_numpy(b))(torch.from_numpy(X))
    torch.testing.assert_close(one, amortized, rtol=0, atol=1e-14)


@pytest.mark.parametrize("text", TEXTS)
def test_momentum_starts_as_that_of_fista(text):
    R = parse(text)
    t = encoder_of(R).layers["step"][0].item()
    codes = point = np.zeros((30, 5))
    theta = 1.0
    for _ in range(5):
        before, codes = codes, R.prox(point + t * (X - b - point @ D) @ D.T, t)
        theta, last = 0.5 * (1 + np.sqrt(1 + 4 * theta**2)), theta
        point = codes + (last - 1) / theta * (codes - before)
    got = encoder_of(R, momentum=True)(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(got, codes, rtol=0, atol=1e-12)


def dense_unrolled(encoder, x):
    """The same layers as dense products, with the graph that Torch makes of them."""
    z, before, codes = torch.zeros(len(x), len(encoder.atoms), dtype=x.dtype), 0.0, 0.0
    for layer in range(encoder.n_layers):
        t = encoder.layers["step"][min(layer, len(encoder.layers["step"]) - 1)]
        u = z + t * (x - encoder.bias - z @ encoder.atoms) @ encoder.atoms.T
        before, codes = codes, encoder.regularizer.prox_unchecked(u, t)
        z = codes
        if encoder.momentum and layer + 1 < encoder.n_layers:
            z = codes + encoder.layers["momentum"][layer + 1] * (codes - before)
    return codes


@pytest.mark.parametrize("options", [{}, {"momentum": True}, {"shared": "all"}], ids=repr)
@pytest.mark.parametrize("text", TEXTS)
def test_gradients_are_those_of_the_dense_layers(text, options):
    encoder = encoder_of(parse(text), n_layers=3, **options)
    x = torch.from_numpy(X)
    target = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = list(encoder.parameters())
    assert len(parameters) == 3 + ("momentum" in options)
    both = encoder.encode(x).codes.to_dense(), dense_unrolled(encoder, x)
    losses = [(Z * target).sum() + (Z**3).sum() for Z in both]
    assert losses[0].item() == pytest.approx(losses[1].item())
    for got, wanted in zip(*(torch.autograd.grad(loss, parameters) for loss in losses), strict=True):
        assert wanted.norm() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_learned_thresholds_cut_every_layer_where_the_regularizer_does():
    for R in (0.4 * L0(), 0.4 * L0() + NonNegative()):
        encoder = encoder_of(R, learn_thresholds=True)
        with torch.no_grad():
            encoder.threshold.mul_(torch.linspace(0.5, 1.5, 5, dtype=torch.float64))
        wanted = encoder_of(encoder.current_regularizer)(torch.from_numpy(X))
        for mode in (True, False):
            torch.testing.assert_close(encoder.train(mode)(torch.from_numpy(X)), wanted, rtol=0, atol=1e-13)
        encoder.train().encode(torch.from_numpy(X)).codes.values.sum().backward()
        assert encoder.threshold.grad.norm() > 0


# --- in the estimator -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    atoms = rng.normal(size=(24, 12))
    codes = rng.normal(size=(400, 24)) * (rng.random((400, 24)) < 0.1)
    return (codes @ atoms + 1).astype(np.float32)


def small(R, **options):
    encoder = options.pop("encoder", Unrolled(n_layers=3))
    return ProxSAE(R, 24, **{"encoder": encoder, "n_steps": 40, "batch_size": 100, "random_state": 0, **options})


@pytest.mark.parametrize(
    ("R", "options"),
    [
        (Cardinality(3), {}),
        (0.3 * L1() + NonNegative(), {"encoder": "unrolled"}),
        (L1(), {"target_l0": 3}),
        (L0() + NonNegative(), {"target_l0": 3}),
        ("0.5*GroupL2(4)", {}),
    ],
    ids=repr,
)
def test_it_is_trained_saved_loaded_and_trained_further(R, options, data, tmp_path):
    sae = small(R, **options).fit(data)
    assert sae.score(data) > small(R, **{**options, "n_steps": 1}).fit(data).score(data)
    sae.save(tmp_path / "sae.safetensors")
    loaded = ProxSAE.load(tmp_path / "sae.safetensors")
    assert (loaded.transform(data) != sae.transform(data)).nnz == 0
    assert repr(loaded.encoder) == repr(sae.encoder)
    if "target_l0" in options:
        assert sae.transform(data).nnz / len(data) == pytest.approx(3, rel=0.05)
    before = loaded.score(data)
    assert loaded.partial_fit(data).score(data) > before - 0.1
    through = small(R, **options).partial_fit(data).partial_fit(data)
    first = small(R, **options).partial_fit(data)
    first.save(tmp_path / "sae.safetensors", training_state=True)
    resumed = ProxSAE.load(tmp_path / "sae.safetensors").partial_fit(data)
    np.testing.assert_array_equal(resumed.components_, through.components_)
    assert (resumed.transform(data) != through.transform(data)).nnz == 0


def test_the_layers_learn(data):
    short, long = (small(Cardinality(3), n_steps=n).fit(data) for n in (1, 100))
    assert (long.encoder_.layers["step"] > short.encoder_.layers["step"] + 0.05).all()
    amortized = small(Cardinality(3), n_steps=100, encoder="amortized").fit(data)
    assert long.score(data) > amortized.score(data)


def test_units_do_not_matter(data):
    one, ten = small(0.3 * L1()).fit(data), small(3.0 * L1()).fit(10 * data)
    np.testing.assert_allclose(ten.transform(10 * data).toarray(), 10 * one.transform(data).toarray(), atol=2e-3)


def test_the_codes_are_those_of_the_layers_over_the_fitted_dictionary(data):
    sae = small(0.3 * L1()).fit(data)
    D, Z = sae.components_, np.zeros((400, 24), np.float32)
    for t in sae.encoder_.layers["step"].tolist():
        Z = sae.regularizer_.prox(Z + t * (data - sae.intercept_ - Z @ D) @ D.T, t)
    np.testing.assert_allclose(sae.transform(data).toarray(), Z, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_layers": 0}, "n_layers must be an integer >= 1, got 0"),
        ({"n_layers": 2.0}, "n_layers must be an integer >= 1, got 2.0"),
        ({"kind": "magic"}, "kind must be one of 'ista'.*, got 'magic'"),
        ({"shared": "some"}, "shared must be one of 'matrices', 'all', 'nothing', got 'some'"),
        ({"step": -1.0}, "step must be positive, or None for 1/L, got -1.0"),
        ({"bandwidth": 0.0}, "bandwidth must be positive, got 0.0"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Unrolled(**options)


def test_bad_use_is_one_sentence(data):
    sae = small(Cardinality(3)).fit(data)
    with pytest.raises(ValueError, match="is fitted: it is of another model"):
        small(Cardinality(3), encoder=sae.encoder_).fit(data)
    with pytest.raises(ValueError, match="needs a new fit"):
        sae.set_params(encoder=Unrolled(n_layers=4)).partial_fit(data)
    with pytest.raises(ValueError, match="inputs and targets must have one scale"):
        sae.encoder_.in_units(torch.zeros(12), 1.0, 2.0)
    encoder = Unrolled.from_tensors(Cardinality(3), {"step": torch.ones(2)}, n_layers=3)
    with pytest.raises(ValueError, match=r"the tensor 'step' has shape \(2,\), needed is \(3,\)"):
        ProxSAE.from_parts(np.eye(3), np.zeros(3), encoder)
