"""What `fit` and `partial_fit` do with parameters, scales, rows and signals."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_saes import sae_of

from proxsae import ProxSAE
from proxsae.data.rows import Rows
from proxsae.data.stream import ShuffledRows
from proxsae.dictionary import Online
from proxsae.encoders import Amortized
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, SquaredL2, parse
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.settings import settings_of, with_settings
from proxsae.training import Trainer
from proxsae.training.fitting import Fit


def small(R=None, **options):
    options = {"n_steps": 30, "batch_size": 64, "random_state": 0, **options}
    return ProxSAE(R if R is not None else Cardinality(3), 24, **options)


@pytest.fixture(scope="module")
def X():
    return (np.random.default_rng(0).normal(size=(300, 8)) + 1).astype(np.float32)


def loaded(sae, tmp_path, **options):
    sae.save(tmp_path / "sae.safetensors", **options)
    return ProxSAE.load(tmp_path / "sae.safetensors")


# --- parameters are read at every call ------------------------------------------------------------------------------


@pytest.fixture(params=["fitted", "loaded", "going on", "loaded, going on"])
def trained(request, X, tmp_path):
    """Return a function from a model to the same one trained, in each of the ways in which it may lie there."""

    def make(sae):
        sae = sae.partial_fit(X) if "going on" in request.param else sae.fit(X)
        if "loaded" not in request.param:
            return sae
        return loaded(sae, tmp_path, training_state="going on" in request.param)

    return make


def test_the_learning_rate_may_change(trained, X):
    sae = trained(small()).set_params(learning_rate=1e-30)
    before = sae.components_.copy()
    sae.partial_fit(X)
    np.testing.assert_allclose(sae.components_, before, atol=1e-6)
    assert sae.history_["learning_rate"][-1] <= 1e-30


def test_dead_after_may_change(trained, X):
    sae = trained(small()).set_params(dead_after=1).partial_fit(X)
    assert sae.history_["dead"][-1] >= 0
    assert sae.set_params(dead_after=10**9).partial_fit(X).history_["dead"][-1] == 0


def test_the_regularizer_may_change(trained, X):
    sae = trained(small()).set_params(regularizer="NonNegative + Cardinality(5)").partial_fit(X)
    Z = sae.transform(X)
    assert Z.min() == 0
    assert np.diff(Z.indptr).max() == 5


def test_a_target_may_come_go_and_change(trained, X):
    sae = trained(small(L1()))
    for target in (3, 6):
        sae.set_params(target_l0=target).partial_fit(X)
        assert sae.transform(X).nnz / len(X) == pytest.approx(target, rel=0.05)
    sae.set_params(target_l0=None).partial_fit(X)
    assert sae.regularizer_ == L1()


def test_learned_thresholds_go_on_learning(trained, X):
    sae = trained(small(L0() + NonNegative(), target_l0=3))
    before = np.asarray(sae.regularizer_.terms[0].weight).copy()
    for _ in range(3):
        sae.partial_fit(X)
    after = np.asarray(sae.regularizer_.terms[0].weight)
    factors = after / before
    assert np.ptp(factors) > 1e-3 * factors.mean()  # each atom its own, not all by one factor


def test_the_other_precision_is_taken(trained, X):
    sae = trained(small())
    assert sae.partial_fit(X.astype(np.float64)).components_.dtype == np.float32
    assert sae.transform(X.astype(np.float64)).dtype == np.float64


def test_what_needs_a_new_fit_says_so(trained, X):
    for parameters, sentence in (
        ({"n_components": 25}, "n_components = 25 needs a new fit: the fitted model has 24"),
        ({"encoder": Amortized(bandwidth=0.1)}, "needs a new fit: that of the fitted model is"),
    ):
        sae = trained(small())
        with pytest.raises(ValueError, match=sentence):
            sae.set_params(**parameters).partial_fit(X)
        sae.set_params(n_components=24, encoder="amortized").partial_fit(X)
    with pytest.raises(ValueError, match="n_components = 25 needs another init: init has 24"):
        sae.set_params(n_components=25).fit(X, init=sae)
    for init, given in (("data", "'data'"), (PCA(2).fit(X), "PCA"), (make_pipeline(PCA(2)), "Pipeline"), (X[0], "arr")):
        with pytest.raises(ValueError, match=f"init must be a matrix of atoms or a fitted ProxSAE, got {given}"):
            sae.fit(X, init=init)


def test_calibration_is_where_the_next_training_starts(trained, X):
    sae = trained(small(L1(), target_l0=3, n_steps=100))
    other = 3 * X
    assert (sae.transform(other).nnz / 300) > 4
    sae.calibrate(other)
    expected = sae.transform(X).nnz / 300
    sae.set_params(learning_rate=1e-30, batch_size=300).partial_fit(X)
    assert sae.history_["l0"][-1] == pytest.approx(expected, rel=0.05)
    assert expected < 2.5


def test_one_source_for_what_is_fitted(X, tmp_path):
    sae = small().fit(X)
    sae.components_ = sae.components_[:, ::-1].copy()
    Z = sae.transform(X)
    again = loaded(sae, tmp_path)
    np.testing.assert_array_equal(again.components_, sae.components_)
    np.testing.assert_array_equal(again.inverse_transform(Z), sae.inverse_transform(Z))
    assert again.score(X) == sae.score(X) < small().fit(X).score(X)


def test_a_failed_partial_fit_leaves_what_was_fitted(X):
    sae = small().partial_fit(X)
    before = sae.components_.copy()
    bad = X.copy()
    bad[7] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        sae.partial_fit(bad)
    with pytest.raises(ValueError, match="row 7 of 300"):
        sae.partial_fit(torch.from_numpy(bad))
    np.testing.assert_array_equal(sae.components_, before)
    sae.partial_fit(X)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_a_model_of_parts(X, tmp_path):
    D = np.random.default_rng(1).normal(size=(24, 8)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    encoder = Amortized.of(0.3 * L1(), torch.from_numpy(D), torch.zeros(24))
    sae = ProxSAE.from_parts(D, np.zeros(8, np.float32), encoder, random_state=0)
    np.testing.assert_allclose(sae.transform(X).toarray(), (0.3 * L1()).prox(X @ D.T), atol=1e-6)
    assert sae.get_params(deep=False)["regularizer"] == 0.3 * L1()
    assert (loaded(sae, tmp_path).transform(X) != sae.transform(X)).nnz == 0
    assert sae.partial_fit(X).n_iter_ == 1
    with pytest.raises(ValueError, match=r"atoms must have shape \(n_components, n_features\) and bias"):
        ProxSAE.from_parts(D, np.zeros(7), encoder)
    with pytest.raises(ValueError, match="gives codes of 24 components, and there are 23 atoms"):
        ProxSAE.from_parts(D[:23], np.zeros(8), encoder)
    with pytest.raises(ValueError, match="atoms and bias must be finite"):
        ProxSAE.from_parts(D * np.nan, np.zeros(8), encoder)
    with pytest.raises(TypeError, match="encoder must be fitted"):
        ProxSAE.from_parts(D, np.zeros(8), Amortized())
    with pytest.raises(TypeError, match="encoder and atoms must be float32 or float64, got bfloat16"):
        sae_of("Cardinality(2)", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="keeps atoms at unit norm, but those of this model have norms from 2 to 2"):
        ProxSAE.from_parts(2 * D, np.zeros(8), encoder).partial_fit(X)


# --- searches -------------------------------------------------------------------------------------------------------


def test_a_search_goes_over_the_weight_of_the_regularizer(X):
    for R in (L1(), "1.0*L1 + NonNegative"):
        search = GridSearchCV(small(R, n_steps=20), {"regularizer__weight": [0.5, 50.0]}, cv=2).fit(X)
        assert search.best_params_ == {"regularizer__weight": 0.5}
        assert search.best_estimator_.regularizer.terms[0] == 0.5 * L1()
    search = GridSearchCV(small(n_steps=20), {"regularizer__k": [0, 3], "encoder": [Amortized()]}, cv=2).fit(X)
    assert search.best_params_["regularizer__k"] == 3
    pipeline = make_pipeline(StandardScaler(), small(encoder=Amortized()))
    pipeline.set_params(proxsae__regularizer__k=2, proxsae__encoder__bandwidth=0.1)
    assert pipeline[-1].regularizer == Cardinality(2)
    assert pipeline[-1].encoder.bandwidth == 0.1
    assert small(encoder="amortized").set_params(encoder__bandwidth=0.1).encoder.bandwidth == 0.1


@pytest.mark.parametrize("update", ["online", Online(nonnegative=True)])
def test_a_search_goes_over_the_options_of_the_update(X, update):
    sae = small(0.5 * L1(), n_steps=3, encoder="solved", update=update)
    search = GridSearchCV(sae, {"update__forgetting": [2.0]}, cv=2).fit(X)
    assert search.best_estimator_.update == Online(forgetting=2.0, nonnegative=update != "online")
    assert search.best_estimator_.get_params()["update__forgetting"] == 2.0
    assert sae.update is update
    with pytest.raises(ValueError, match="online has no option 'forget'; it has init, forgetting, atoms, nonnegative"):
        sae.set_params(update__forget=1)
    with pytest.raises(ValueError, match="forgetting cannot be set inside update = 'auto'; give online, mod, ksvd"):
        sae.set_params(update="auto", update__forgetting=1)


def test_a_class_in_place_of_an_update_has_no_parameters():
    assert [name for name in small(update=Online).get_params() if name.startswith("update")] == ["update"]


def test_settings_have_names():
    R = 0.1 * L1() + 0.2 * SquaredL2() + NonNegative()
    assert settings_of(R) == {"L1_weight": 0.1, "SquaredL2_weight": 0.2}
    assert with_settings(R, SquaredL2_weight=0.5) == 0.1 * L1() + 0.5 * SquaredL2() + NonNegative()
    assert settings_of(0.1 * L1() + Cardinality(3)) == {"weight": 0.1, "k": 3}
    nested = parse("0.3*OfNorms(MCP(3.0), 4)")
    assert settings_of(nested) == {"weight": 0.3, "gamma": 3.0, "groups": 4}
    assert with_settings(nested, gamma=2.0, weight=0.5) == parse("0.5*OfNorms(MCP(2.0), 4)")
    assert with_settings(parse("Translated(0.2*L1, 0.5)"), weight=0.4) == parse("Translated(0.4*L1, 0.5)")
    with pytest.raises(ValueError, match="has no setting 'gamma'; it has weight"):
        with_settings(L1(), gamma=1)


# --- scales and rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-25, -20, 14, 20])
@pytest.mark.parametrize("kind", ["topk", "relu", "batchtopk", "hard threshold"])
def test_a_scale_of_the_data_is_a_scale_of_the_codes_or_a_sentence(power, kind, X):
    R, options = {
        "topk": (Cardinality(3), {}),
        "relu": (L1() + NonNegative(), {"target_l0": 3}),
        "batchtopk": (Cardinality(3, "batch"), {}),
        "hard threshold": (L0(), {"target_l0": 3}),
    }[kind]
    scaled = X * np.float32(10.0**power)
    if kind in ("batchtopk", "hard threshold") and abs(power) > 15:  # whose weights are squares
        with pytest.raises(ValueError, match="leaves float32: multiply X by a constant"):
            small(R, **options).fit(scaled)
        return
    one, two = small(R, **options).fit(X), small(R, **options).fit(scaled)
    assert two.score(scaled) == pytest.approx(one.score(X), abs=0.02)
    assert two.transform(scaled).nnz == pytest.approx(one.transform(X).nnz, rel=0.05)
    assert abs(two.inverse_transform(two.transform(scaled))).max() < 100 * 10.0**power


def test_equal_rows_are_scored_as_in_scikit_learn():
    X = np.full((50, 8), 0.1, np.float32)
    sae = small().fit(X)
    assert sae.score(X) in (0.0, 1.0)
    assert sae.score(3 * X) == 0.0
    assert sae.score(X.astype(np.float64)) in (0.0, 1.0)


def test_the_gap_of_many_samples_never_makes_their_codes_dense(X, monkeypatch):
    sae = small().fit(X)
    whole = sae.amortization_gap(X)
    seen, read = [], Rows.read

    def counted(self, rows, *options):
        seen.append(len(read(self, rows, *options)))
        return read(self, rows, *options)

    monkeypatch.setattr("proxsae.training.refinement.ENTRIES", 24 * 20)
    monkeypatch.setattr(Rows, "read", counted)
    np.testing.assert_allclose(sae.amortization_gap(X), whole, atol=1e-5)
    assert (sum(seen), max(seen)) == (300, 20)


def test_rows_of_huge_norm_are_announced_and_left_out_on_request():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 8)).astype(np.float32)
    massive = rng.choice(6000, 12, replace=False)
    X[massive] *= 1000
    with pytest.warns(UserWarning, match=r"12 of 6000 rows have a norm of more than 10 times the median"):
        small().fit(X)
    ordinary = np.delete(X, massive, axis=0)
    sae = small(max_norm_ratio=10, n_steps=60).fit(X)
    np.testing.assert_array_equal(sae.components_, small(n_steps=60).fit(ordinary).components_)
    assert sae.transform(X).shape == (6000, 24)
    tensor = small(max_norm_ratio=10, n_steps=60).fit(torch.from_numpy(X))
    np.testing.assert_array_equal(sae.components_, tensor.components_)


@pytest.mark.parametrize("unit", [2.0**660, 2.0**-660])
def test_rows_whose_squares_leave_float64_are_left_out_alike(unit):
    X = np.random.default_rng(0).normal(size=(600, 8))
    X[3] *= 100
    sae = small(max_norm_ratio=10, n_steps=30).fit(X)
    np.testing.assert_array_equal(small(max_norm_ratio=10, n_steps=30).fit(unit * X).components_, sae.components_)
    with pytest.warns(UserWarning, match="1 of 600 rows have a norm of more than 10 times the median"):
        small(n_steps=1).fit(unit * X)


def test_a_ratio_that_leaves_no_row_is_refused():
    X, Y = np.ones((2, 40, 8)) + np.random.default_rng(0).normal(size=(2, 40, 8)) / 100
    X[:20] *= 100
    Y[20:] *= 100
    with pytest.raises(ValueError, match=r"max_norm_ratio=1\.5 leaves no row: each, or its target"):
        small(max_norm_ratio=1.5).fit(X, Y)


# --- signals ----------------------------------------------------------------------------------------------------------


def test_a_second_signal_stops_at_once_and_changes_nothing(X, monkeypatch):
    sae = small().fit(X)
    before = sae.components_.copy()
    compute = Trainer._compute

    def twice(self, *step):
        if self.state.n_done == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return compute(self, *step)

    monkeypatch.setattr(Trainer, "_compute", twice)
    with pytest.raises(KeyboardInterrupt):
        sae.partial_fit(X)
    np.testing.assert_array_equal(sae.components_, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(Trainer, "_compute", compute)
    sae.partial_fit(X)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
@pytest.mark.parametrize("method", ["step", "finish"])
def test_a_signal_that_ends_nothing_early_is_told(number, name, method, X, monkeypatch):
    done = getattr(Fit, method)

    def signalled(self, *stop):
        if self.state.n_done >= 29:
            os.kill(os.getpid(), number)
        done(self, *stop)

    monkeypatch.setattr(Fit, method, signalled)
    sentence = rf"^{name} came after the last step: the model is whole \(a Python script goes on\)$"
    with pytest.warns(UserWarning, match=sentence) as seen:
        assert small().fit(X).n_iter_ == 30
    assert seen[0].filename == __file__


def test_a_handler_of_the_user_stays(X):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        sae = small()
        sae.fit(X)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]


@pytest.mark.parametrize(
    ("n_signals", "sentence", "steps"),
    [
        (1, "SIGTERM ended the training early: the model is that of step 1 (a Python script goes on)\n", 1),
        (2, "interrupted\n", None),
    ],
)
def test_a_terminated_command_writes_the_model_or_leaves_what_is_there(n_signals, sentence, steps, X, tmp_path):
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "sae.safetensors"
    out.write_bytes(b"good")
    script = f"""
import os, signal, sys
import proxsae.training.trainer as trainer
from proxsae.cli import main

step = trainer.Trainer.step

def terminated(self, x, *rest):
    for _ in range({n_signals} if self.state.n_done == 0 else 0):
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, x, *rest)

trainer.Trainer.step = terminated
sys.exit(main())
"""
    arguments = ["fit", tmp_path / "x.npy", "-R", "Cardinality(3)", "--components", "24", "--out", out]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (130, f"proxsae fit: {sentence}")
    assert out.read_bytes() == b"good" if steps is None else ProxSAE.load(out).n_iter_ == steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sae.safetensors", "x.npy"]


def test_a_target_missed_at_the_end_loses_nothing(X, monkeypatch):
    from proxsae.training.sparsity import WeightControl

    meet, calls = WeightControl.meet, []

    def failing_later(self, *given):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no weight gives that")
        return meet(self, *given)

    monkeypatch.setattr(WeightControl, "meet", failing_later)
    with pytest.warns(UserWarning, match="the weight of R is that of the last step: no weight gives that"):
        sae = small(L1(), target_l0=3).fit(X)
    assert sae.n_iter_ == 30
    assert np.isfinite(sae.score(X))


def test_prices_of_batches_end_with_their_regularizer(X, tmp_path):
    sae = small(Cardinality(2, "batch")).partial_fit(X)
    sae.set_params(regularizer="0.3*L1").partial_fit(X)
    restored = loaded(sae, tmp_path, training_state=True)
    np.testing.assert_array_equal(restored.transform(X).toarray(), sae.transform(X).toarray())
    once = small(Cardinality(6, "batch")).partial_fit(X)
    sae.set_params(regularizer=Cardinality(6, "batch")).partial_fit(X)
    counts = [model.transform(X).nnz / len(X) for model in (once, sae)]
    np.testing.assert_allclose(counts, 6.0, atol=0.6)


@pytest.mark.parametrize("rows", [np.asarray, ShuffledRows])
@pytest.mark.parametrize("encoder", ["amortized", "unrolled"])
def test_a_short_training_at_batch_scope_ends_with_the_threshold_of_its_model(encoder, rows):
    X = np.random.default_rng(0).normal(size=(3000, 10)).astype(np.float32)
    options = {"n_steps": 40, "batch_size": 500, "random_state": 0, "encoder": encoder}
    sae = ProxSAE(Cardinality(4, "batch"), 24, **options).fit(rows(X))
    assert sae.transform(X).nnz / len(X) == pytest.approx(4, abs=0.02)


def test_a_short_first_block_of_a_stream_does_not_decide_the_threshold_of_batch_scope():
    X = np.random.default_rng(0).normal(size=(4096, 10)).astype(np.float32)
    stream = ShuffledRows(X, buffer_rows=32)
    sae = ProxSAE(Cardinality(4, "batch"), 24, n_steps=100, batch_size=500, random_state=0).fit(stream)
    assert sae.transform(X).nnz / len(X) == pytest.approx(4, abs=0.1)


class OneBall(NonSeparable, named=False):
    """The codes of a whole batch in one ball."""

    scope = "batch"
    is_indicator = True

    def value_of(self, xp, Z):
        return xp.where((Z * Z).sum() <= 1, 0.0 * Z.sum(-1), xp.inf)

    def prox_of(self, xp, U, t):
        return U / xp.maximum((U * U).sum() ** 0.5, 1.0 + 0.0 * U)


@pytest.mark.parametrize("encoder", ["amortized", "unrolled"])
def test_own_classes_of_batch_scope_are_refused_before_the_first_step(X, encoder):
    with pytest.raises(ValueError, match=r'only Cardinality\(k, "batch"\) and its sums allow; got OneBall'):
        small(OneBall(), encoder=encoder).fit(X)
    for known in (Cardinality(3, "batch"), 0.1 * L1() + NonNegative() + Cardinality(3, "batch")):
        assert small(known, encoder=encoder, n_steps=1).fit(X).regularizer_.scope != "batch"


def test_passes_over_few_rows_do_not_decide_the_threshold_of_batch_scope(X):
    sae = small(Cardinality(4, "batch"))
    for start in range(0, 300, 60):
        sae.partial_fit(X[start : start + 60])
    settled = sae.transform(X).nnz / len(X)
    sae.partial_fit(1e-3 * X[:60])
    assert sae.transform(X).nnz / len(X) == pytest.approx(settled, rel=0.5)


def test_the_last_checkpoint_of_batch_scope_has_the_threshold_of_the_model(X, tmp_path):
    sae = small(Cardinality(3, "batch"), n_steps=8, checkpoint_every=4, checkpoint_dir=tmp_path).fit(X)
    last = ProxSAE.load(max(tmp_path.glob("step-*.safetensors")))
    assert last.regularizer_ == sae.regularizer_


@pytest.mark.parametrize(
    "text",
    [
        *("L1 + Box(-5.0, 5.0)", "0.2*L1 + Box(-0.3, 0.7)", "MCP(3.3)", "0.1*OfNorms(MCP(3.3), 4)"),
        *("0.1*GroupL2(4)", "0.1*L1 + 0.1*GroupL2(4)", "Blocks([[L1, 12], [0.3*L1, 12]])"),
    ],
)
@pytest.mark.parametrize("encoder", ["amortized", "solved"])
def test_a_steered_weight_leaves_the_other_numbers_of_R(X, text, encoder):
    R = parse(text)
    sae = small(R, target_l0=4, encoder=encoder, n_steps=3).fit(X)
    weight, given = dict(sae.regularizer_.parameters()), dict(R.parameters())
    assert {name: value for name, value in weight.items() if "weight" not in name} == {
        name: value for name, value in given.items() if "weight" not in name
    }
    assert sae.transform(X).nnz / len(X) == pytest.approx(4, abs=0.2)


def test_a_refused_regularizer_is_refused_again(X):
    sae = small("0.3*L1").partial_fit(X)
    sae.set_params(regularizer="1e-44*L1")
    for _ in range(2):
        with pytest.raises(ValueError, match="leaves float32"):
            sae.partial_fit(X)
