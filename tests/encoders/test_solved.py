"""The solved encoder: the codes of `solve`, and the gradient of the minimum."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from small_saes import assert_saved_and_resumed

from proxsae import ProxSAE, solve
from proxsae.encoders import Solved
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, SquaredL2, parse
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.losses import penalty, reconstruction

rng = np.random.default_rng(0)
X = 2 * rng.normal(size=(20, 4))
D = rng.normal(size=(6, 4))
b = 0.3 * rng.normal(size=4)


def autoencoder(R, D=D, b=b, **options):
    encoder = Solved(tol=1e-12, max_iter=200, **options).initial(R, torch.from_numpy(D), learn_thresholds=False)
    return Autoencoder(encoder, torch.from_numpy(D.copy()), torch.from_numpy(b.copy()))


CONVEX = ["0.3*L1 + NonNegative", "0.2*L1 + 0.5*SquaredL2", "0.3*Huber(0.5) + 0.1*SquaredL2"]


@pytest.mark.parametrize("text", [*CONVEX, "0.4*L0", "Cardinality(2)", "0.5*GroupL2(2)"])
@pytest.mark.parametrize("dtype", [np.float32])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_codes_are_those_of_solve(text, dtype):
    model = autoencoder(parse(text), D.astype(dtype), b.astype(dtype))
    wanted = solve(X.astype(dtype), D.astype(dtype), text, intercept=b.astype(dtype), tol=1e-12, max_iter=200).codes
    for codes in (model.encoder.codes(torch.from_numpy(X.astype(dtype))), model(torch.from_numpy(X.astype(dtype)))):
        Z = getattr(codes, "encoding", codes)
        np.testing.assert_array_equal(getattr(Z, "codes", Z).to_csr().toarray(), wanted)


def least(D, b, text):
    return solve(X, D, text, intercept=b, tol=1e-12, max_iter=200).objective.mean()


@pytest.mark.parametrize("text", CONVEX)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_gradient_is_that_of_the_minimum(text):
    model = autoencoder(parse(text))
    forward = model(torch.from_numpy(X))
    loss = reconstruction(forward) + penalty(forward)
    assert loss.item() == pytest.approx(least(D, b, text), rel=1e-9)
    loss.backward()
    h = 1e-5
    for matrix, gradient in ((D, model.atoms.grad), (b, model.bias.grad)):
        direction = rng.normal(size=matrix.shape)
        ends = [
            least(*(part + s * h * direction if part is matrix else part for part in (D, b)), text) for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * h)
        assert slope == pytest.approx((gradient.numpy() * direction).sum(), rel=1e-5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    atoms = rng.normal(size=(24, 12))
    codes = rng.normal(size=(400, 24)) * (rng.random((400, 24)) < 0.1)
    return (codes @ atoms + 1).astype(np.float32)


def small(R, **options):
    encoder = options.pop("encoder", "solved")
    return ProxSAE(R, 24, **{"encoder": encoder, "n_steps": 10, "batch_size": 100, "random_state": 0, **options})


@pytest.mark.parametrize(
    ("R", "options"),
    [
        (0.3 * L1() + NonNegative(), {}),
        (Cardinality(3), {"encoder": Solved(max_iter=30)}),
        (L1() + SquaredL2(), {"target_l0": 3, "n_steps": 5, "encoder": Solved("fista")}),
        (L0() + NonNegative(), {"target_l0": 3, "n_steps": 5, "encoder": Solved(max_iter=30)}),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_is_trained_saved_loaded_and_trained_further(R, options, data, tmp_path):
    sae = small(R, **options).fit(data)
    if not options:
        assert sae.score(data) > small(R, n_steps=1).fit(data).score(data)
    if "target_l0" in options:
        assert sae.transform(data).nnz / len(data) == pytest.approx(3, rel=0.05)
    assert_saved_and_resumed(lambda: small(R, **options), sae, data, tmp_path / "sae.safetensors")


def test_there_is_no_amortization_gap(data):
    sae = small(0.3 * L1(), encoder=Solved(tol=1e-6)).fit(data)
    objective = 0.5 * ((data - sae.intercept_) ** 2).sum(1)
    assert abs(sae.amortization_gap(data)).max() < 1e-5 * objective.max()


def test_units_do_not_matter(data):
    one, ten = small(0.3 * L1()).fit(data), small(3.0 * L1()).fit(10 * data)
    np.testing.assert_allclose(ten.transform(10 * data).toarray(), 10 * one.transform(data).toarray(), atol=0.05)


def test_samples_that_have_not_converged_are_announced(data):
    with pytest.warns(ConvergenceWarning, match="samples have not converged to tol=0.0001 after 2 steps"):
        small(0.3 * L1(), encoder=Solved("fista", max_iter=2)).fit(data).transform(data)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Solved("magic"), "method must be \"auto\", .*, got 'magic'"),
        (lambda: Solved(["cd"]), r"method must be \"auto\", .*, got \['cd'\]"),
        (lambda: Solved(tol=-1), "tol must be a finite number >= 0, got -1"),
        (lambda: Solved(max_iter=0), "max_iter must be at least 1: codes that start at zero would stay there, got 0"),
        (lambda: Solved(max_iter=2.5), "max_iter must be an integer >= 0, got 2.5"),
        (lambda: small(L0(), encoder=Solved("fista")).fit(X), "'fista' needs a convex regularizer, and L0.* is not"),
        (lambda: small(Cardinality(3, "batch")).fit(X), "codes each sample by itself, and Cardinality.* a batch"),
    ],
)
def test_bad_use_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_without_a_dictionary_it_computes_nowhere():
    encoder = Solved().initial(L1(), torch.eye(3), learn_thresholds=False)
    for read in (lambda: encoder.dtype, lambda: encoder.device):
        with pytest.raises(ValueError, match="no parameters of its own, and no dictionary to compute with yet"):
            read()
