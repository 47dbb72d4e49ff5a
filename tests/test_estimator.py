"""ProxSAE as a scikit-learn transformer, its inputs and its files."""

import json
import os
import pickle
import signal

import joblib
import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, Numeric, parse
from proxsae.training import Trainer


def small(R=None, **options):
    options = {"n_steps": 30, "batch_size": 64, "random_state": 0, **options}
    return ProxSAE(R if R is not None else Cardinality(3), 24, **options)


@pytest.fixture(scope="module")
def X():
    return (np.random.default_rng(0).normal(size=(300, 8)) + 1).astype(np.float32)


def excused(estimator):
    """Return the checks that R of a batch fails: it refuses weights that differ, since it shares non-zeros out."""
    checks = ("check_sample_weights_not_overwritten", "check_sample_weight_equivalence_on_dense_data")
    is_of_batches = parse(str(estimator.regularizer)).scope == "batch"
    return dict.fromkeys(checks, "weights have no meaning there") if is_of_batches else {}


# At transform a batch-scope regularizer uses its fitted threshold, so that even subset invariance holds. (The check of
# array-API input is skipped by scikit-learn unless SCIPY_ARRAY_API is set.)
@parametrize_with_checks(
    [
        ProxSAE(Cardinality(1), 4, n_steps=3, batch_size=32, random_state=0),
        ProxSAE(Cardinality(1, "batch"), 4, n_steps=3, batch_size=32, random_state=0),
        ProxSAE("0.1*L1 + NonNegative", 4, n_steps=3, batch_size=32, random_state=0),
        ProxSAE(Cardinality(1, "batch"), 4, encoder="unrolled", n_steps=3, batch_size=32, random_state=0),
    ],
    expected_failed_checks=excused,
)
def test_is_a_scikit_learn_transformer(estimator, check):
    check(estimator)


def test_works_in_pipelines_and_searches(X):
    pipeline = make_pipeline(StandardScaler(), small())
    assert pipeline.fit_transform(X).shape == (300, 24)
    search = GridSearchCV(
        small(n_steps=200, learning_rate=1e-2), {"regularizer": [Cardinality(1), "Cardinality(6)"]}, cv=2
    ).fit(X)
    assert search.best_params_ == {"regularizer": "Cardinality(6)"}
    assert list(small().fit(X).get_feature_names_out()[:2]) == ["proxsae0", "proxsae1"]
    dense = small(sparse_output=False).set_output(transform="pandas").fit_transform(X)
    assert dense.shape == (300, 24)


@pytest.mark.parametrize("unit", [1e-170, 1e150])
def test_a_score_of_rows_whose_squares_float64_does_not_hold(X, unit):
    rows = unit * X.astype(np.float64)
    sae = small(n_steps=3).fit(rows)
    left = X - sae.predict(rows) / unit
    assert sae.score(rows) == pytest.approx(1 - (left**2).sum() / ((X - X.mean(0)) ** 2).sum(), rel=1e-4)


def test_codes_are_sparse_signed_and_the_same_at_fit_and_transform(X):
    sae = small()
    Z = sae.fit_transform(X)
    assert scipy.sparse.isspmatrix_csr(Z)
    assert Z.dtype == np.float32
    assert (np.diff(Z.indptr) == 3).all()
    assert (Z.data < 0).any()
    assert (sae.transform(X) != Z).nnz == 0
    np.testing.assert_allclose(sae.inverse_transform(Z), Z.toarray() @ sae.components_ + sae.intercept_, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1, atol=1e-5)
    residual = X - sae.inverse_transform(Z)
    assert sae.score(X) == pytest.approx(1 - (residual**2).sum() / ((X - X.mean(0)) ** 2).sum(), rel=1e-4)
    assert set(sae.history_) == {"step", "loss", "fvu", "l0", "dead", "learning_rate"}
    assert len(sae.history_["loss"]) == sae.n_iter_ == 30


def test_the_same_seed_gives_the_same_result(X):
    one, two, other = small().fit(X), small().fit(X), small(random_state=1).fit(X)
    np.testing.assert_array_equal(one.components_, two.components_)
    assert (one.transform(X) != two.transform(X)).nnz == 0
    assert not np.array_equal(one.components_, other.components_)


def test_the_weight_is_in_the_units_of_the_data(X):
    # scaling the data by c and the weight by c gives the same autoencoder in other units
    X = X.astype(np.float64)
    one = small(0.7 * L1() + NonNegative()).fit(X)
    two = small(7.0 * L1() + NonNegative()).fit(10 * X)
    np.testing.assert_allclose(two.transform(10 * X).toarray(), 10 * one.transform(X).toarray(), rtol=1e-6)
    assert repr(two.regularizer_) == "7.0*L1() + NonNegative()"


def test_batchtopk_uses_its_fitted_threshold_at_transform(X):
    sae = small(Cardinality(3, "batch") + NonNegative(), n_steps=200, batch_size=300).fit(X)
    assert sae.regularizer_.terms[0] == L0() * sae.regularizer_.terms[0].weight
    Z = sae.transform(X)
    assert Z.nnz / 300 == pytest.approx(3, rel=0.15)
    np.testing.assert_allclose(sae.transform(X[:7]).toarray(), Z[:7].toarray(), rtol=1e-6)


@pytest.mark.parametrize("R", [L0() + NonNegative(), L1()])
def test_calibration_meets_the_target_on_other_data(R, X):
    sae = small(R, target_l0=3, n_steps=100).fit(X)
    other = 1.5 * np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    assert sae.transform(other).nnz / 500 != pytest.approx(3, rel=0.05)
    assert sae.calibrate(other).transform(other).nnz / 500 == pytest.approx(3, rel=0.01)
    assert (sae.regularizer_.prox(sae.encoder_.pre_activation(torch.from_numpy(other))) != 0).sum() / 500 == (
        pytest.approx(3, rel=0.01)
    )
    with pytest.raises(ValueError, match=r"no weight of .*, in the units of the encoder, gives a mean L0 of 25"):
        sae.set_params(target_l0=25).calibrate(other)
    with pytest.raises(ValueError, match="from rows that differ, and those given are equal"):
        sae.calibrate(0 * other)
    with pytest.raises(ValueError, match="calibrate needs a model with target_l0"):
        small().fit(X).calibrate(X)


def test_learned_thresholds_differ_between_atoms(X):
    sae = small(L0() + NonNegative(), target_l0=3, n_steps=100).fit(X)
    weights = sae.regularizer_.terms[0].weight
    assert weights.shape == (24,)
    assert np.ptp(np.asarray(weights)) > 0


@pytest.mark.parametrize(
    "kind",
    [
        "memmap",
        "float16 memmap",
        ">f4 memmap",
        ">f4",
        "float16",
        "frame",
        "float16 frame",
        "tensor",
        "bfloat16",
        "store",
        "list",
        "float64",
    ],
)
def test_rows_come_from_anything_indexable(X, kind, tmp_path):
    class Store:
        shape, dtype = X.shape, X.dtype

        def __getitem__(self, rows):
            return X[rows]

    sources = {
        "tensor": lambda: torch.from_numpy(X),
        "bfloat16": lambda: torch.from_numpy(X).bfloat16(),
        "float16": lambda: X.astype(np.float16),
        ">f4": lambda: X.astype(">f4"),
        "frame": lambda: pandas.DataFrame(X),
        "float16 frame": lambda: pandas.DataFrame(X.astype(np.float16)),
        "store": Store,
        "list": X.tolist,
        "float64": lambda: X.astype(float),
    }
    if "memmap" in kind:
        np.save(tmp_path / "x.npy", X.astype(kind.removesuffix("memmap").strip() or X.dtype))
        data = np.load(tmp_path / "x.npy", mmap_mode="r")
    else:
        data = sources[kind]()
    sae = small().fit(data)
    same = small().fit(X)
    tolerance = 0.1 if kind == "bfloat16" else 1e-2 if "16" in kind else 1e-4
    np.testing.assert_allclose(sae.components_, same.components_, atol=tolerance)
    Z = sae.transform(data)
    assert Z.shape == (300, 24)
    assert sae.score(data) == pytest.approx(same.score(X), abs=tolerance)
    assert sae.amortization_gap(data).shape == (300,)
    assert sae.components_.dtype == (np.float64 if kind in ("list", "float64") else np.float32)


def test_a_store_is_never_read_whole():
    class Counting:
        shape, dtype = (100_000, 8), np.dtype(np.float32)
        largest = 0

        def __getitem__(self, rows):
            n = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
            self.largest = max(self.largest, n)
            return np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32)

    store = Counting()
    small(batch_size=512).fit(store).score(store)
    assert store.largest < 20_000


def test_partial_fit_goes_on(X):
    sae = small(batch_size=100)
    for _ in range(40):
        sae.partial_fit(X)
    assert sae.n_iter_ == 120
    assert sae.history_["fvu"][-3:].mean() < 0.8 * sae.history_["fvu"][:3].mean()
    fitted = small(n_steps=200).fit(X)
    before = fitted.score(X)
    assert fitted.partial_fit(X).score(X) > before - 0.1


def interrupt_inside_step(monkeypatch, step, *numbers):
    """Send this process signals in the middle of a training step."""
    compute = Trainer._compute

    def interrupted(self, *measured):
        if self.state.n_done == step - 1:
            for number in numbers:
                os.kill(os.getpid(), number)
        return compute(self, *measured)

    monkeypatch.setattr(Trainer, "_compute", interrupted)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_finishes_the_step_and_leaves_a_fitted_model(X, monkeypatch, tmp_path, number, name):
    before = signal.getsignal(number)
    interrupt_inside_step(monkeypatch, 5, number)
    with pytest.warns(UserWarning, match=f"{name} ended the training early: the model is that of step 5"):
        sae = small().fit(X)
    assert sae.n_iter_ == 5
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1, atol=1e-5)
    assert signal.getsignal(number) == before
    sae.save(tmp_path / "sae.safetensors")
    assert sae.transform(X).shape == (300, 24)


@pytest.mark.parametrize(
    ("R", "options"),
    [
        (Cardinality(3), {}),
        (Cardinality(3, "batch"), {}),
        (np.linspace(0.1, 1, 24) * L1() + NonNegative(), {}),
        (L0() + NonNegative(), {"target_l0": 3}),
        ("0.1*L1", {}),
    ],
)
def test_save_and_load(R, options, X, tmp_path):
    sae = small(R, **options).fit(X)
    path = tmp_path / "folder" / "sae.safetensors"
    sae.save(path)
    loaded = ProxSAE.load(path)
    assert (loaded.transform(X) != sae.transform(X)).nnz == 0
    np.testing.assert_array_equal(loaded.inverse_transform(sae.transform(X)), sae.inverse_transform(sae.transform(X)))
    assert loaded.regularizer_ == sae.regularizer_
    given = {**sae.get_params(deep=False), "regularizer": parse(R) if isinstance(R, str) else R}
    assert loaded.get_params(deep=False) == given
    np.testing.assert_array_equal(loaded.history_["loss"], sae.history_["loss"])
    assert loaded.partial_fit(X).score(X) > sae.score(X) - 0.1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("R", "options"),
    [
        (Cardinality(3), {}),
        (Cardinality(3, "batch"), {}),
        (L0() + NonNegative(), {"target_l0": 3}),
        (L1(), {"target_l0": 3}),
    ],
)
def test_resuming_equals_never_having_stopped(R, options, X, tmp_path):
    through = small(R, **options).partial_fit(X).partial_fit(X)
    first = small(R, **options).partial_fit(X)
    first.save(tmp_path / "sae.safetensors", training_state=True)
    resumed = ProxSAE.load(tmp_path / "sae.safetensors").partial_fit(X)
    np.testing.assert_array_equal(resumed.components_, through.components_)
    assert (resumed.transform(X) != through.transform(X)).nnz == 0
    np.testing.assert_array_equal(resumed.history_["loss"], through.history_["loss"])
    assert resumed.n_iter_ == through.n_iter_ == 10
    first.save(tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="there is no training to go on with"):
        ProxSAE.load(tmp_path / "small.safetensors").save(tmp_path / "x.safetensors", training_state=True)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_pickle_has_the_size_of_the_model(method):
    X = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    sae = getattr(ProxSAE(Cardinality(3), 512, n_steps=3, random_state=0), method)(X)
    pickled = pickle.dumps(sae)
    again = pickle.loads(pickled)
    assert (again.transform(X) != sae.transform(X)).nnz == 0
    assert len(pickled) < 1.2 * 4 * 2 * 512 * 64
    assert again.partial_fit(X).score(X) > sae.score(X) - 0.1
    assert not hasattr(clone(sae), "components_")


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_a_mapped_pickle_is_used_without_a_warning(X, tmp_path):
    sae = small(n_steps=2).fit(X)
    joblib.dump(sae, tmp_path / "sae.joblib")
    mapped = joblib.load(tmp_path / "sae.joblib", mmap_mode="r")
    assert not mapped.components_.flags.writeable
    torch.set_warn_always(True)  # not only at the first such array of the process
    try:
        assert (mapped.transform(X) != sae.transform(X)).nnz == 0
        mapped.partial_fit(X)
    finally:
        torch.set_warn_always(False)


def test_damaged_and_foreign_files(X, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "sae.safetensors"
    small().fit(X).save(path)
    good = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="no file at"):
        ProxSAE.load(tmp_path / "missing")
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"sae\.safetensors is not a whole safetensors file"):
        ProxSAE.load(path)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match="'checksum' does not match"):
        ProxSAE.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="the field 'format' is None"):
        ProxSAE.load(path)
    path.write_text(json.dumps({"not": "safetensors"}))
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        ProxSAE.load(path)


def test_a_function_of_the_user_is_trained_with_but_not_saved(X, tmp_path):
    sae = small(0.3 * Numeric(abs) + NonNegative(), n_steps=5, learning_rate=2e-3).fit(X)
    same = small(0.3 * L1() + NonNegative(), n_steps=5, learning_rate=2e-3).fit(X)
    np.testing.assert_allclose(sae.components_, same.components_, atol=1e-3)
    with pytest.raises(TypeError, match="holds a Python function, which a file cannot"):
        sae.save(tmp_path / "sae.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(X, tmp_path, monkeypatch):
    path = tmp_path / "sae.safetensors"
    sae = small().fit(X)
    sae.save(path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        sae.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        ({"regularizer": Cardinality(25)}, ValueError, "k must not exceed n_components"),
        ({"regularizer": np.ones(5) * L1()}, ValueError, "weight has 5 entries and the codes have 24"),
        ({"regularizer": "0.1*L7"}, ValueError, "unknown regularizer 'L7'"),
        ({"regularizer": 3.0}, TypeError, "The 'regularizer' parameter of ProxSAE must be .* Got 3.0"),
        ({"encoder": "magic"}, ValueError, "encoder must be"),
        ({"target_l0": 3}, ValueError, "k already fixes the non-zeros"),
        ({"regularizer": L1(), "target_l0": 40}, ValueError, "target_l0 must lie between 0 and n_components = 24"),
        ({"n_components": 2.5}, ValueError, "The 'n_components' parameter of ProxSAE must be an int .* Got 2.5"),
        ({"n_components": "24"}, ValueError, "The 'n_components' parameter of ProxSAE must be an int .* Got '24'"),
        ({"n_components": 10**12}, ValueError, "n_components = 1000000000000 .* needs .* GB to train"),
        ({"device": "cuda:9"}, ValueError, 'device must be "auto" or a torch device that is there'),
        ({"device": "gpu"}, ValueError, 'device must be "auto" or a torch device that is there'),
        ({"encoder": Amortized.of(L1(), torch.ones(2, 2), torch.ones(2))}, ValueError, "is fitted: it is of another"),
        ({"max_norm_ratio": 0.5}, ValueError, "The 'max_norm_ratio' parameter of ProxSAE must be .* Got 0.5"),
        ({"n_steps": 0}, ValueError, "The 'n_steps' parameter of ProxSAE must be an int .* Got 0"),
        ({"learning_rate": -1.0}, ValueError, "The 'learning_rate' parameter of ProxSAE must be a float .* Got -1.0"),
    ],
)
def test_bad_parameters_are_one_sentence(X, parameters, error, sentence):
    with pytest.raises(error, match=sentence):
        small().set_params(**parameters).fit(X)


def test_the_regularizer_of_an_unfitted_model_is_one_sentence():
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        _ = ProxSAE().regularizer_
    assert not hasattr(ProxSAE(), "regularizer_")


@pytest.mark.filterwarnings("ignore:1 of 300 rows")
def test_float64_beyond_float32_is_one_sentence(X, tmp_path):
    sae = small().fit(X.astype(np.float32))
    large = X.astype(np.float64)
    large[7] *= 1e39
    np.save(tmp_path / "x.npy", large)
    sentence = "^row 7 of X exceeds the range of float32, in which the model computes$"
    for given in (large, torch.from_numpy(large), np.load(tmp_path / "x.npy", mmap_mode="r")):
        for call in (sae.transform, sae.score, sae.partial_fit):
            with pytest.raises(ValueError, match=sentence):
                call(given)


def test_bad_data_is_one_sentence(X):
    bad = X.copy()
    bad[7, 2] = np.inf
    with pytest.raises(ValueError, match="row 7 of 300"):
        small().fit(torch.from_numpy(bad))
    first = "contains NaN or infinity: row 7 of 300 is the first such row read$"
    for given in (
        bad,
        bad.tolist(),
        bad.astype(np.float32),
        pandas.DataFrame(bad),
        pandas.DataFrame(bad, dtype="Float64"),
    ):
        with pytest.raises(ValueError, match=f"^Input X {first}"):
            small().fit(given)
        with pytest.raises(ValueError, match=f"^Input Y {first}"):
            small().fit(X, given)
    with pytest.raises(ValueError, match="X has 5 features, but ProxSAE is expecting 8"):
        small().fit(X).transform(torch.zeros(3, 5))
    with pytest.raises(TypeError, match=r"real numbers, got torch\.complex64"):
        small().fit(torch.zeros(3, 5, dtype=torch.complex64))
    with pytest.raises(TypeError, match="a dense tensor with entries, got a sparse_coo tensor"):
        small().fit(torch.eye(5).to_sparse())
    with pytest.raises(TypeError, match="a dense tensor with entries, got a meta tensor"):
        small().fit(torch.zeros(3, 5, device="meta"))
    for empty in (torch.zeros(0, 5), torch.zeros(5, 0)):
        with pytest.raises(ValueError, match="at least one sample and one feature"):
            small().fit(empty)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        small().fit(scipy.sparse.csr_matrix(X))
    for nothing in (None, "abc", 5, {}, (row for row in X)):
        with pytest.raises(TypeError, match=r"X must be a matrix of shape \(n_samples, n_features\), got "):
            small().fit(nothing)
    with pytest.raises(TypeError, match=r"real numbers, got datetime64\[s\]"):
        small().fit(np.zeros((3, 5), "datetime64[s]"))
    with pytest.raises(TypeError, match=r"real numbers, got torch\.float8_e4m3fn"):
        small().fit(torch.zeros(3, 5, dtype=torch.float8_e4m3fn))
    sae = small().fit(X)
    for Z, shape in ((np.zeros((2, 3)), r"\(2, 3\)"), (None, "None"), (np.zeros(24), r"\(24,\)"), ("a", r"\(\)")):
        with pytest.raises(ValueError, match=rf"^Z must have shape \(n_samples, 24\), got {shape}$"):
            sae.inverse_transform(Z)
    Z = sae.transform(X)
    for kind in (torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.bfloat16, torch.Tensor.half):
        codes = kind(torch.from_numpy(Z.toarray()))
        np.testing.assert_allclose(sae.inverse_transform(codes), sae.inverse_transform(Z), atol=0.05)
