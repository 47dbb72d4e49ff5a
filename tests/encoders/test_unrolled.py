"""The unrolled encoder: an unrolled solver before training, an autoencoder like every other after it."""

import pickle

import numpy as np
import pytest
import torch
from small_saes import assert_saved_and_resumed
from zoo import JOINT, SEPARABLE, SUMS

from proxsae import ProxSAE, solve
from proxsae.encoders import Amortized, Solved, Unrolled
from proxsae.encoders.isometry import isometry_defect
from proxsae.encoders.kinds import KINDS
from proxsae.encoders.kinds.alista import least_coherent
from proxsae.kernels.sparse import Pattern
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, parse
from proxsae.solvers.bounded import falls_without_end
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


BOUNDED = [R for R in (*SEPARABLE, *SUMS) if not falls_without_end(R, D)]  # the others are refused


@pytest.mark.parametrize("R", [*BOUNDED, *JOINT, Cardinality(2), 0.2 * L1() + Cardinality(2)], ids=repr)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_before_training_ista_is_ista(R):
    for n_layers in (1, 4):
        codes = encoder_of(R, n_layers=n_layers)(torch.from_numpy(X)).detach().numpy()
        wanted = solve(X, D, R, intercept=b, method="ista", max_iter=n_layers, tol=0).codes
        np.testing.assert_allclose(codes, wanted, rtol=0, atol=1e-12)


def matrix_of(kind):
    return least_coherent(torch.from_numpy(D)) if kind == "alista" else torch.from_numpy(D)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_one_layer_of_every_kind_is_the_amortized_encoder(kind, text):
    R, t = parse(text), 0.05
    one = encoder_of(R, n_layers=1, kind=kind, step=t)
    W = t * matrix_of(kind)
    amortized = Amortized.of(R * (1.0 if kind == "lca" else t), W, -W @ torch.from_numpy(b))
    x = torch.from_numpy(X)
    torch.testing.assert_close(one(x), amortized(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["lista", "lista-cp"])
@pytest.mark.parametrize("text", TEXTS)
def test_free_matrices_start_as_ista(kind, text):
    options = {"n_layers": 4, "momentum": True}
    wanted, got = (encoder_of(parse(text), kind=kind, **options)(torch.from_numpy(X)) for kind in ("ista", kind))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


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
    D, kind, target = encoder.atoms, encoder.kind, x - encoder.bias
    z, u = torch.zeros(len(x), len(D), dtype=x.dtype), torch.zeros(len(x), len(D), dtype=x.dtype)
    before, codes = 0.0, 0.0
    for layer in range(encoder.n_layers):
        own = {name: value[min(layer, len(value) - 1)] for name, value in encoder.layers.items()}
        residual = target - z @ D
        if kind == "ista":
            u = z + own["step"] * residual @ D.T
        elif kind == "lista":
            u = z @ own["lateral"] + target @ own["weight"].T
        elif kind == "lista-cp":
            u = z + residual @ own["weight"].T
        elif kind == "alista":
            u = z + own["step"] * residual @ least_coherent(D).T
        else:
            u = (1 - own["leak"]) * u + own["leak"] * z + own["step"] * residual @ D.T
        t = own["prox_step"] if "prox_step" in own else own["step"]
        before, codes = codes, encoder.regularizer.prox_unchecked(u, t)
        z = codes
        if encoder.momentum and layer + 1 < encoder.n_layers:
            z = codes + encoder.layers["momentum"][layer + 1] * (codes - before)
    return codes


@pytest.mark.parametrize("options", [{}, {"momentum": True}, {"shared": "all"}, {"shared": "nothing"}], ids=repr)
@pytest.mark.parametrize("text", ["0.05*L1", "Cardinality(2)", "0.02*L1 + Cardinality(3)"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_layers(kind, text, options):
    encoder = encoder_of(parse(text), n_layers=3, kind=kind, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in encoder.layers.values():
            value.mul_(1 + 0.1 * torch.rand(value.shape, generator=generator, dtype=torch.float64)).add_(0.02)
    x, target = torch.from_numpy(X), torch.randn(30, 5, generator=generator, dtype=torch.float64)
    unused = {"atoms"} if kind == "lista" else set()
    unused |= set() if "L1" in text else {"layers.prox_step"}
    parameters = [p for name, p in encoder.named_parameters() if name not in unused]
    both = encoder.encode(x).codes.to_dense(), dense_unrolled(encoder, x)
    losses = [(Z * target).sum() + (Z**3).sum() for Z in both]
    assert losses[0].item() == pytest.approx(losses[1].item())
    for got, wanted in zip(*(torch.autograd.grad(loss, parameters) for loss in losses), strict=True):
        assert wanted.norm() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)


def test_the_matrix_of_least_coherence_is_the_least():
    D = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = least_coherent(D)
    torch.testing.assert_close((W * D).sum(1), torch.ones(7, dtype=torch.float64))
    coherence = ((W @ D.T) ** 2).sum(1)
    for seed in range(200):  # the problem is convex: no feasible step in any direction lowers it
        move = torch.randn(7, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        move -= (move * D).sum(1, keepdim=True) / D.square().sum(1, keepdim=True) * D
        assert (((W + 1e-3 * move) @ D.T).square().sum(1) >= coherence - 1e-8).all()
    assert (coherence < ((D / D.square().sum(1, keepdim=True)) @ D.T).square().sum(1)).all()


@torch.no_grad()
def test_lca_comes_to_the_minimum_and_bregman_steps_fit_what_can_be_fitted():
    R, few = 0.3 * L1(), D[:3]
    codes = encoder_of(R, D=few, n_layers=120, kind="lca")(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(codes, solve(X, few, R, intercept=b, tol=1e-12).codes, atol=0.02)
    codes = encoder_of(R, n_layers=100, kind="bregman")(torch.from_numpy(X)).numpy()
    left, least = (np.square(X - b - Z @ D).sum() for Z in (codes, solve(X, D, R, intercept=b).codes))
    assert left < 0.1 * least  # what is cut off is added again


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


def test_the_isometry_defect_is_that_of_the_atoms_about_to_be_used():
    encoder = encoder_of(Cardinality(1), isometry=0.7, n_layers=2)
    encoding = encoder.encode(torch.from_numpy(X))
    u = encoding.pre_activation.without_graph.numpy()
    defects = []
    for row in u:
        G = D[np.argsort(-abs(row))[:2]] @ D[np.argsort(-abs(row))[:2]].T
        defects.append(np.trace(G @ G) / 2 - 1)
    assert encoding.penalty.mean().item() == pytest.approx(0.7 * np.mean(defects))
    encoding.penalty.sum().backward()
    assert encoder.atoms.grad.norm() > 0
    orthonormal = Pattern(torch.tensor([0, 2, 2]), torch.tensor([0, 2]), 3)
    assert isometry_defect(torch.eye(3), orthonormal).tolist() == [0.0, 0.0]


# --- in the estimator -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
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
        (NonNegative() + Cardinality(3, "batch"), {}),
        *((Cardinality(3), {"encoder": Unrolled(2, kind, momentum=True)}) for kind in KINDS),
    ],
    ids=repr,
)
def test_it_is_trained_saved_loaded_and_trained_further(R, options, data, tmp_path):
    sae = small(R, **options).fit(data)
    assert sae.score(data) > small(R, **{**options, "n_steps": 1}).fit(data).score(data)
    if "target_l0" in options:
        assert sae.transform(data).nnz / len(data) == pytest.approx(3, rel=0.05)
    assert_saved_and_resumed(lambda: small(R, **options), sae, data, tmp_path / "sae.safetensors")


def test_the_layers_learn(data):
    short, long = (small(Cardinality(3), n_steps=n).fit(data) for n in (1, 200))
    assert (long.encoder_.layers["step"] > short.encoder_.layers["step"] + 0.05).all()
    amortized = small(Cardinality(3), n_steps=200, encoder="amortized").fit(data)
    assert long.score(data) > amortized.score(data)


@pytest.mark.parametrize("R", [Cardinality(3, "batch"), 0.2 * L0() + Cardinality(3, "batch")], ids=repr)
def test_at_batch_scope_every_layer_keeps_the_price_of_the_batches(R, data):
    sae = small(R, n_steps=60, batch_size=400, learning_rate=1e-4).fit(data)
    Z = sae.transform(data)
    assert Z.nnz / len(data) == pytest.approx(3, rel=0.02)
    np.testing.assert_allclose(sae.transform(data[:7]).toarray(), Z[:7].toarray(), rtol=1e-6)
    prices, R = sae.encoder_.layers["price"].tolist(), sae.regularizer_
    assert len(prices) == 3
    assert prices[-1] == 1.0
    D, codes = sae.components_, np.zeros((400, 24), np.float32)
    for t, price in zip(sae.encoder_.layers["step"].tolist(), prices, strict=True):
        codes = (price * R).prox(codes + t * (data - sae.intercept_ - codes @ D) @ D.T, t)
        assert (codes != 0).sum() / 400 == pytest.approx(3, rel=0.05)  # as many as the batches kept
    np.testing.assert_allclose(Z.toarray(), codes, atol=1e-4)


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
        ({"momentum": "a"}, "momentum must be True or False, got 'a'"),
        ({"n_layers": 2.0}, "n_layers must be an integer >= 1, got 2.0"),
        ({"kind": "magic"}, "kind must be one of .*'ista'.*, got 'magic'"),
        ({"shared": "some"}, "shared must be one of 'matrices', 'all', 'nothing', got 'some'"),
        ({"kind": ["ista"]}, r"kind must be one of .*'ista'.*, got \['ista'\]"),
        ({"step": -1.0}, "step must be a finite number > 0, got -1.0"),
        ({"step": "1/L"}, "step must be a finite number > 0, got '1/L'"),
        ({"step": np.inf}, "step must be a finite number > 0, got inf"),
        ({"isometry": "some"}, "isometry must be a finite number >= 0, got 'some'"),
        ({"isometry": -1.0}, "isometry must be a finite number >= 0, got -1.0"),
        ({"bandwidth": 0.0}, "bandwidth must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Unrolled(**options)


def test_an_encoder_of_options_alone_says_so():
    for encoder in (Amortized(), Unrolled(), Solved()):
        for use in (encoder.codes, encoder.encode, encoder):
            with pytest.raises(AttributeError, match=r"holds options alone: .* is there once a ProxSAE has fitted it"):
                use(torch.zeros(2, 3))
        assert not encoder.is_fitted
        assert repr(pickle.loads(pickle.dumps(encoder))) == repr(encoder)


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
