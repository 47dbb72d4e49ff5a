"""Dictionary learning by `ProxSAE(encoder="solved")`: for scikit-learn users, in streams, with bad data, to files."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF, MiniBatchDictionaryLearning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from proxsae import ProxSAE, solve
from proxsae.dictionary import KSVD, MOD, Online, matched_cosine, sparse_signals, sphere_atoms
from proxsae.encoders import Amortized, Solved
from proxsae.regularizers import L1, Cardinality, NonNegative

UPDATES = ["online", "mod", "ksvd"]


def learner(R=None, n_components=24, **options):
    settings = {"encoder": "solved", "n_steps": 80, "batch_size": 200, "random_state": 0}
    return ProxSAE(0.4 * L1() if R is None else R, n_components, **{**settings, **options})


@pytest.fixture(scope="module")
def truth():
    D = sphere_atoms(24, 16, random_state=0)
    return sparse_signals(2000, D, 2, exact=True, noise=0.01, random_state=1)


@parametrize_with_checks(
    [
        ProxSAE("0.1*L1 + NonNegative", 4, encoder="solved", n_steps=3, batch_size=32, random_state=0),
        ProxSAE("Cardinality(1)", 4, encoder="solved", update="ksvd", n_steps=3, batch_size=32, random_state=0),
    ],
    # as those of KMeans are; tests/training/test_sample_weights.py starts from given atoms
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "the first atoms are rows, drawn in the order of the data"
    },
)
def test_is_a_scikit_learn_transformer(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("update", "dtype"), [("online", np.float64), ("online", np.float32), ("mod", np.float64), ("ksvd", np.float64)]
)
def test_a_known_dictionary_is_found_in_any_units(update, dtype, truth):
    X = (100 * truth.X + 300).astype(dtype)
    sae = learner(40 * L1(), update=update).fit(X)
    assert matched_cosine(sae.components_, truth.dictionary) > 0.99
    assert sae.components_.dtype == dtype
    assert repr(sae.regularizer_) == "40.0*L1()"
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1, rtol=1e-5)
    Z = sae.transform(X)
    exact = solve(X, sae.components_, 40 * L1(), intercept=sae.intercept_, tol=1e-6)
    assert 0.5 * ((X - sae.inverse_transform(Z)) ** 2).sum() + 40 * abs(Z).sum() <= 1.001 * exact.objective.sum()
    assert sae.history_["dead"][-1] == 0
    assert sae.history_["loss"][-1] < 0.9 * sae.history_["loss"][0]


def test_codes_at_fit_are_codes_at_transform(truth):
    one, other = learner(n_steps=10).fit_transform(truth.X), learner(n_steps=10).fit(truth.X).transform(truth.X)
    assert (one != other).nnz == 0
    pipeline = make_pipeline(StandardScaler(), learner(n_steps=10, sparse_output=False))
    pipeline.set_output(transform="pandas")
    assert pipeline.fit_transform(truth.X).shape == (2000, 24)


def test_the_objective_of_scikit_learn_is_reached(truth):
    """Over centred data, since scikit-learn has no intercept."""
    X = truth.X - truth.X.mean(0)
    theirs = MiniBatchDictionaryLearning(
        24, alpha=0.4, batch_size=200, max_iter=8, fit_algorithm="cd", random_state=0, max_no_improvement=None, tol=0
    ).fit(X)
    ours = learner().fit(X)
    objectives = [
        solve(X, D, 0.4 * L1(), intercept=b, tol=1e-6).objective.mean()
        for D, b in ((theirs.components_, 0 * ours.intercept_), (ours.components_, ours.intercept_))
    ]
    assert objectives[1] < 1.005 * objectives[0]


def test_a_stream_is_learned_from(truth):
    sae = learner()
    for _ in range(3):
        for first in range(0, 2000, 500):
            sae.partial_fit(truth.X[first : first + 500])
    assert sae.n_iter_ == 3 * 4 * 3
    assert matched_cosine(sae.components_, truth.dictionary) > 0.9


@pytest.mark.parametrize("update", ["online", "mod"])
def test_a_fitted_dictionary_weighs_as_much_as_many_samples(update, truth):
    sae = learner(update=update, n_steps=30).fit(truth.X)
    before = sae.components_
    sae.partial_fit(truth.X[:50] + np.random.default_rng(0).normal(size=(50, 16)))
    assert matched_cosine(sae.components_, before) > 0.999
    assert not np.array_equal(sae.components_, before)


@pytest.mark.parametrize("update", ["online", "mod"])
def test_given_atoms_count_as_few_samples(update, truth):
    near = truth.dictionary + 0.25 * np.random.default_rng(0).normal(size=(24, 16))
    given, random = (learner(update=update, n_steps=15).fit(truth.X, init=init) for init in (near, None))
    assert given.history_["fvu"][-1] < random.history_["fvu"][-1]
    assert matched_cosine(given.components_, truth.dictionary) > 0.999
    right = learner(update=update, n_steps=15, batch_size=16).fit(truth.X, init=truth.dictionary)
    assert matched_cosine(right.components_, truth.dictionary) > 0.98


def test_given_rows_learn_like_rows_of_its_own():
    D = sphere_atoms(100, 32, random_state=0)
    X = sparse_signals(400, D, 3, exact=True, noise=0.01, random_state=1).X
    learned = learner("Cardinality(3)", 100, batch_size=64, n_steps=60)
    given, own = (learned.fit(X, init=init).history_["fvu"][-1] for init in (X[:100], None))
    assert given < 1.2 * own


@pytest.mark.parametrize("update", [Online(init="random", forgetting=3.0), KSVD()])
def test_a_stream_goes_on_from_a_file_as_if_never_stopped(update, truth, tmp_path):
    first = learner(update=update).partial_fit(truth.X[:900])
    first.save(tmp_path / "sae.safetensors", training_state=True)
    again = ProxSAE.load(tmp_path / "sae.safetensors")
    assert again.update == update
    for sae in (first, again):
        sae.partial_fit(truth.X[900:])
    np.testing.assert_array_equal(first.components_, again.components_)
    first.save(tmp_path / "small.safetensors")
    loaded = ProxSAE.load(tmp_path / "small.safetensors")
    assert (loaded.transform(truth.X) != first.transform(truth.X)).nnz == 0
    assert clone(loaded).update == update


def test_options_of_updates_reach_the_dictionary(truth):
    X = np.abs(truth.X)
    sae = learner(0.4 * L1() + NonNegative(), update=Online(nonnegative=True), n_steps=10).fit(X)
    assert (sae.components_ >= 0).all()
    ball = learner(update=MOD(atoms="ball"), n_steps=10).fit(X)
    norms = np.linalg.norm(ball.components_, axis=1)
    assert (norms < 1 + 1e-9).all()
    ball.partial_fit(X[:100])
    assert learner(encoder=Solved(tol=1e-2), n_steps=2).fit(X).encoder_.tol == 1e-2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("update", [Online(intercept=False), MOD(intercept=False), KSVD(intercept=False)])
def test_without_an_intercept_b_is_zero(update, dtype, truth, tmp_path):
    X = (truth.X[:400] + 3).astype(dtype)
    weighted = learner(update=update, n_steps=4).fit(X, sample_weight=np.arange(400) % 3)
    given = learner(update=update, n_steps=4).fit(X, init=weighted.components_)
    further = learner(update=update, n_steps=4).fit(X, init=given)
    stream = learner(update=update).partial_fit(X[:200]).partial_fit(X[200:] + 1)
    stream.save(tmp_path / "sae.safetensors", training_state=True)
    given.save(tmp_path / "small.safetensors")
    loaded, small = (ProxSAE.load(tmp_path / f"{name}.safetensors").partial_fit(X + 1) for name in ("sae", "small"))
    assert loaded.update == update
    for sae in (weighted, given, further, stream, loaded, small):
        np.testing.assert_array_equal(sae.intercept_, np.zeros(16, dtype))
        assert sae.score(X) > 0


def test_a_model_with_an_intercept_is_not_trained_further_without_one(truth, tmp_path):
    sae = learner(n_steps=4).fit(truth.X)
    sae.save(tmp_path / "sae.safetensors")
    without = {"update": Online(intercept=False)}
    with pytest.raises(ValueError, match="intercept = False needs a model without one, but init has one: give init="):
        learner(**without).fit(truth.X, init=sae)
    for fitted in (sae, ProxSAE.load(tmp_path / "sae.safetensors")):
        with pytest.raises(ValueError, match="but the fitted model has one: give init=components_ to a new fit"):
            fitted.set_params(**without).partial_fit(truth.X)


@pytest.mark.parametrize("update", [Online(nonnegative=True, intercept=False), KSVD(nonnegative=True, intercept=False)])
def test_nonnegative_atoms_without_an_intercept_are_those_of_nmf(update):
    X = load_digits().data[:600] / 16
    nmf = NMF(8, init="nndsvda", max_iter=400, random_state=0)
    theirs = ((X - nmf.fit_transform(X) @ nmf.components_) ** 2).sum()
    found = learner(NonNegative(), 8, update=update, n_steps=50, batch_size=600).fit(X).predict(X)
    assert found.min() >= 0
    assert ((X - found) ** 2).sum() < 1.02 * theirs


def test_rows_of_a_tensor_and_a_map_are_learned_from(truth, tmp_path):
    X = truth.X.astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    plain = learner(n_steps=10).fit(X)
    for source in (torch.from_numpy(X), np.load(tmp_path / "x.npy", mmap_mode="r")):
        np.testing.assert_allclose(learner(n_steps=10).fit(source).components_, plain.components_, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.* samples have not converged")
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("R", [0.1 * L1(), Cardinality(2)])
@pytest.mark.parametrize("kind", ["one row", "few rows", "constant", "double", "zero", "one feature"])
def test_poor_data_have_a_finite_answer(update, R, kind):
    rows = np.random.default_rng(0).normal(size=(6, 5))
    X = {
        "one row": rows[:1],
        "few rows": rows,
        "constant": np.repeat(rows[:1], 20, axis=0),
        "double": np.repeat(rows, 10, axis=0),
        "zero": np.zeros((20, 5)),
        "one feature": rows[:, :1],
    }[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("error", RuntimeWarning)
        sae = learner(R, 8, update=update, n_steps=8, batch_size=4).fit(X)
    Z = sae.transform(X)
    for part in (sae.components_, sae.intercept_, Z.data):
        assert np.isfinite(part).all()
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1)
    assert sae.score(X) >= 0
    unused = 8 - len(np.unique(Z.indices))
    assert any("atoms were used by none of the last" in str(warning.message) for warning in caught) or unused < 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"update": "newton"}, 'update must be "auto", "gradient", "frozen", "online", "mod", "ksvd" or an object'),
        ({"update": 3}, "or an object of proxsae.dictionary, got 3"),
        ({"update": "mod", "encoder": "amortized"}, 'update = "mod" needs solved codes, encoder="solved"'),
        ({"update": Online(), "encoder": Amortized()}, 'needs solved codes, .* those of "amortized" are learned'),
        ({"R": Cardinality(3, "batch")}, "codes each sample by itself"),
        ({"n_components": 10**7}, "n_components = 10000000 .* needs .* GB to train"),
    ],
)
def test_bad_parameters_are_one_sentence(options, sentence, truth):
    with pytest.raises(ValueError, match=sentence):
        learner(**options).fit(truth.X)


@pytest.mark.parametrize("R", ["Box(-0.2, 0.3)", "L1Ball(1.0)", "L2Ball(1.0)", "Simplex(1.0)"])
def test_codes_at_the_edge_of_a_domain_are_inside_of_it_in_float32(R):
    X = np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)
    sae = ProxSAE(R, 24, encoder="solved", n_steps=3, batch_size=128, random_state=0).fit(X)
    assert np.isfinite(sae.history_["loss"]).all()


def test_gradients_between_solved_updates_are_kept():
    """The sums of solved updates are of rows that the atoms have left behind when gradients have moved them."""
    X = np.random.default_rng(1).laplace(size=(1000, 12)) + 5
    sae = learner(0.3 * L1(), 20, update="online").partial_fit(np.random.default_rng(0).normal(size=(1000, 12)))
    sae.set_params(update="gradient", learning_rate=0.02)
    for _ in range(5):
        sae.partial_fit(X)
    atoms = sae.components_
    sae.set_params(update="online").partial_fit(X[:200])
    assert (sae.components_ * atoms).sum(axis=1).min() > 0.99
