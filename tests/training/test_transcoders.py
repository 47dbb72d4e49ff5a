"""Transcoders: codes of X that decode to targets Y."""

import pickle

import numpy as np
import pandas
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV

from proxsae import ProxSAE
from proxsae.metrics import reconstruction_metrics
from proxsae.regularizers import L1, Cardinality, NonNegative
from proxsae.training import Refined


def small(R=None, **options):
    options = {"n_steps": 40, "batch_size": 64, "random_state": 0, **options}
    return ProxSAE(R if R is not None else NonNegative() + Cardinality(3), 24, **options)


@pytest.fixture(scope="module")
def X():
    return (np.random.default_rng(0).normal(size=(300, 8)) + 1).astype(np.float32)


@pytest.fixture(scope="module")
def Y(X):
    """What a layer of six neurons with five outputs makes of X."""
    random = np.random.default_rng(1)
    hidden = np.maximum(X @ random.normal(size=(8, 6)) - 1, 0)
    return (7 * hidden @ random.normal(size=(6, 5)) + 3).astype(np.float32)


@pytest.mark.parametrize("skip", [False, True])
def test_codes_of_x_decode_to_y(X, Y, skip):
    sae = small(skip_connection=skip).fit(X, Y)
    Z = sae.transform(X)
    assert (sae.n_features_in_, sae.components_.shape, sae.intercept_.shape) == (8, (24, 5), (5,))
    assert sae.is_transcoder_
    W, b = sae.encoder_.weight.numpy(), sae.encoder_.bias.numpy()
    np.testing.assert_allclose(Z.toarray(), sae.regularizer_.prox(X @ W.T + b), atol=1e-4)
    np.testing.assert_allclose(sae.inverse_transform(Z), Z @ sae.components_ + sae.intercept_, atol=1e-4)
    beside = X @ sae.skip_ if skip else 0
    assert (sae.skip_ is not None) == skip
    np.testing.assert_allclose(sae.predict(X), sae.inverse_transform(Z) + beside, rtol=1e-4, atol=1e-3)
    residual = Y - sae.predict(X)
    assert sae.score(X, Y) == pytest.approx(1 - (residual**2).sum() / ((Y - Y.mean(0)) ** 2).sum(), rel=1e-4)
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1, atol=1e-5)


def test_a_weight_that_leaves_the_dtype_is_said_of_the_targets(X, Y):
    with pytest.raises(ValueError, match=r"^Y has entries of the order of .* leaves float32: multiply Y by a constant"):
        small(Cardinality(3, "batch")).fit(X, np.float32(1e20) * Y)
    sae = small(n_steps=1).partial_fit(X, Y).set_params(regularizer=1e-44 * L1())
    with pytest.raises(ValueError, match=r"^Y has entries"):
        sae.partial_fit(X, Y)


def test_it_learns_what_no_linear_map_can():
    random = np.random.default_rng(0)
    X = random.normal(size=(4000, 8)).astype(np.float32)
    Y = (np.maximum(X @ random.normal(size=(8, 6)) - 1, 0) @ random.normal(size=(6, 5))).astype(np.float32)
    seen, unseen = slice(0, 3000), slice(3000, None)
    options = {"n_steps": 400, "batch_size": 128, "learning_rate": 1e-2}
    sae = small(0.01 * L1() + NonNegative(), **options).fit(X[seen], Y[seen])
    linear = LinearRegression().fit(X[seen], Y[seen])
    assert linear.score(X[unseen], Y[unseen]) < 0.7
    assert sae.score(X[unseen], Y[unseen]) > 0.97


def test_a_linear_map_is_what_the_skip_connection_starts_from(X):
    Y = (X @ np.random.default_rng(2).normal(size=(8, 5)) - 4).astype(np.float32)
    sae = small(skip_connection=True, n_steps=1, learning_rate=1e-12).fit(X, Y)
    beside = X @ sae.skip_
    np.testing.assert_allclose(beside - beside.mean(0), Y - Y.mean(0), atol=1e-3)


def test_units_of_inputs_and_targets_are_their_own(X, Y):
    plain = small(0.5 * L1(), skip_connection=True).fit(X, Y)
    other = small(50 * L1(), skip_connection=True).fit(0.25 * X, 100 * Y)
    np.testing.assert_allclose(other.predict(0.25 * X), 100 * plain.predict(X), rtol=1e-2, atol=1)
    np.testing.assert_allclose(other.transform(0.25 * X).toarray(), 100 * plain.transform(X).toarray(), atol=1)


def test_without_targets_labels_are_ignored(X):
    labels = np.arange(300) % 3
    plain, labelled = small().fit(X), small().fit(X, labels)
    np.testing.assert_array_equal(plain.components_, labelled.components_)
    np.testing.assert_array_equal(small().fit(X, list(map(str, labels))).components_, plain.components_)
    assert not labelled.is_transcoder_
    assert labelled.score(X, labels) == plain.score(X) == plain.score(X, X + 1)
    assert reconstruction_metrics(plain, X, X + 1) == reconstruction_metrics(plain, X)
    np.testing.assert_allclose(plain.predict(X), plain.inverse_transform(plain.transform(X)), atol=1e-4)


@pytest.mark.parametrize("kind", ["list", "frame", "tensor", "map", "float64"])
def test_targets_of_any_kind(X, Y, kind, tmp_path):
    if kind == "map":
        np.save(tmp_path / "y.npy", Y)
    kinds = {
        "list": Y.tolist,
        "frame": lambda: pandas.DataFrame(Y),
        "tensor": lambda: torch.from_numpy(Y),
        "map": lambda: np.load(tmp_path / "y.npy", mmap_mode="r"),
        "float64": lambda: Y.astype(np.float64),
    }
    sae, plain = small().fit(X, kinds[kind]()), small().fit(X, Y)
    assert sae.transform(X).dtype == np.float32
    np.testing.assert_allclose(sae.components_, plain.components_, atol=1e-4)


def test_files_and_pickles_hold_it_all(X, Y, tmp_path):
    sae = small(skip_connection=True).fit(X, Y)
    sae.save(tmp_path / "sae.safetensors")
    for again in (ProxSAE.load(tmp_path / "sae.safetensors"), pickle.loads(pickle.dumps(sae))):
        np.testing.assert_array_equal(again.predict(X), sae.predict(X))
        assert again.is_transcoder_
        assert again.skip_connection
        assert again.score(X, Y) == sae.score(X, Y)
    again.partial_fit(X, Y)
    assert again.n_iter_ == 45


def test_going_on_from_a_file_equals_going_on(X, Y, tmp_path):
    sae = small(skip_connection=True).partial_fit(X, Y)
    sae.save(tmp_path / "sae.safetensors", training_state=True)
    again = ProxSAE.load(tmp_path / "sae.safetensors").partial_fit(X, Y)
    sae.partial_fit(X, Y)
    np.testing.assert_array_equal(again.skip_, sae.skip_)
    np.testing.assert_array_equal(again.components_, sae.components_)


def test_a_fit_goes_on_from_a_checkpoint(X, Y, tmp_path, monkeypatch):
    whole = small(skip_connection=True).fit(X, Y)
    stopped = small(skip_connection=True, checkpoint_dir=tmp_path, checkpoint_every=20)
    stopped.fit(X, Y)
    (tmp_path / "step-00000040.safetensors").unlink()
    resumed = stopped.fit(X, Y, resume=True)
    np.testing.assert_array_equal(resumed.skip_, whole.skip_)
    np.testing.assert_array_equal(resumed.encoder_.weight, whole.encoder_.weight)
    with pytest.raises(ValueError, match="checkpoint of another fit: its Y"):
        stopped.fit(X, Y + 1, resume=True)


def test_refined_codes_are_those_of_the_targets(X, Y):
    sae = small(3.0 * L1() + NonNegative(), skip_connection=True).fit(X, Y)
    refined = sae.refine(X[:50], Y[:50])
    assert (refined.after <= refined.before).all()
    Z = refined.codes.toarray()
    residual = Y[:50] - X[:50] @ sae.skip_ - sae.intercept_ - Z @ sae.components_
    np.testing.assert_allclose(refined.after, 0.5 * (residual**2).sum(1) + 3 * Z.sum(1), rtol=1e-3)
    assert sae.amortization_gap(X[:50], Y[:50]).min() >= 0


def test_rows_that_are_large_in_either_are_left_out(X, Y):
    large = Y.copy()
    large[5] *= 1000
    with pytest.warns(UserWarning, match="1 of 300 rows have a norm of more than 10 times the median"):
        small(n_steps=1).fit(X, large)
    kept = np.delete(np.arange(300), 5)
    without = small(max_norm_ratio=20).fit(X, large)
    np.testing.assert_allclose(without.components_, small().fit(X[kept], Y[kept]).components_, atol=1e-6)


def test_searches_score_the_targets(X):
    Y = X @ np.random.default_rng(2).normal(size=(8, 5))
    search = GridSearchCV(small(n_steps=60), {"regularizer__k": [1, 8]}, cv=2)
    assert search.fit(X, Y).best_params_ == {"regularizer__k": 8}


@pytest.mark.parametrize(
    ("options", "targets", "message"),
    [
        ({"encoder": "solved"}, None, "codes what it decodes, and cannot decode to targets Y"),
        ({"encoder": "unrolled"}, None, "codes what it decodes, and cannot decode to targets Y"),
        ({"skip_connection": True}, "none", "skip_connection is a matrix from X to targets, and none are given"),
        ({}, np.zeros((299, 5)), "Y has 299 rows, and X has 300"),
        ({}, np.full((300, 2), np.nan), "Input Y contains NaN"),
        ({}, torch.full((300, 2), torch.inf), "Input Y contains NaN or infinity: row 0"),
        ({}, torch.zeros(300, 2, 2), r"Y must have shape \(n_samples, n_features\)"),
        ({}, np.zeros((300, 2, 2)), "Found array with dim 3"),
    ],
)
def test_what_does_not_fit_is_refused(X, Y, options, targets, message):
    targets = Y if targets is None else None if isinstance(targets, str) else targets
    with pytest.raises(ValueError, match=message):
        small(**options).fit(X, targets)


def test_a_transcoder_needs_its_targets(X, Y):
    sae = small().fit(X, Y)
    for call in (sae.score, sae.refine, sae.amortization_gap):
        with pytest.raises(ValueError, match="was trained with targets Y, of shape"):
            call(X)
    with pytest.raises(ValueError, match="the transcoder decodes to targets Y, of shape"):
        reconstruction_metrics(sae, X)
    with pytest.raises(ValueError, match="was trained with targets Y: give Y"):
        sae.partial_fit(X)
    with pytest.raises(ValueError, match="init was trained with targets Y: give Y"):
        small().fit(X, init=sae)
    with pytest.raises(ValueError, match="Y has 4 features, but the fitted model is expecting 5"):
        sae.score(X, Y[:, :4])
    with pytest.raises(ValueError, match="Y has 4 features, but the fitted model is expecting 5"):
        sae.partial_fit(X, Y[:, :4])
    with pytest.raises(ValueError, match="was trained without targets Y: give none"):
        small().fit(X).partial_fit(X, X)


def test_a_model_to_go_on_from_has_the_same_widths_and_skip_connection(X, Y):
    plain, skipping = small(n_steps=1).fit(X, Y), small(n_steps=1, skip_connection=True).fit(X, Y)
    with pytest.raises(ValueError, match="X has 7 features, but init is expecting 8"):
        small().fit(X[:, :7], Y, init=plain)
    with pytest.raises(ValueError, match="X has 7 features, but init is expecting 8"):
        small().fit(X[:, :7], init=small(n_steps=1).fit(X))
    with pytest.raises(ValueError, match="skip_connection = True needs another init: that of init is False"):
        small(skip_connection=True).fit(X, Y, init=plain)
    with pytest.raises(ValueError, match="skip_connection = False needs another init: that of init is True"):
        small().fit(X, Y, init=skipping)
    for sae in (skipping, small(skip_connection=True).partial_fit(X, Y)):
        with pytest.raises(ValueError, match="skip_connection = False needs a new fit: that of the fitted model is Tr"):
            sae.set_params(skip_connection=False).partial_fit(X, Y)


def test_refined_codes_are_of_autoencoders_alone(X, Y):
    with pytest.raises(ValueError, match="of a transcoder are refined with its targets"):
        Refined(small().fit(X, Y))
    autoencoder = small().fit(X)
    refined = Refined(autoencoder, max_iter=50)
    assert (refined.transform(X) != autoencoder.refine(X, max_iter=50).codes).nnz == 0
    assert reconstruction_metrics(refined, X)["fvu"] < reconstruction_metrics(autoencoder, X)["fvu"]
