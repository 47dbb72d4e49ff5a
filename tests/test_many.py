"""Several autoencoders over one pass of the rows: each as if it had been alone."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from proxsae import ProxSAE, fit_many
from proxsae.data.rows import Rows
from proxsae.encoders import Unrolled
from proxsae.many import FitManyError
from proxsae.regularizers import L0, L1, Cardinality, NonNegative
from proxsae.training import fitting
from proxsae.training.trainer import Trainer

X = (np.random.default_rng(0).normal(size=(300, 12)) + 1).astype(np.float32)


def saes_of(**options):
    usual = {"n_components": 24, "n_steps": 9, "batch_size": 64, "random_state": 0} | options
    different = [
        {"regularizer": Cardinality(3)},
        {"regularizer": Cardinality(5), "n_components": 40, "random_state": 1},
        {"regularizer": L1() + NonNegative(), "target_l0": 4, "n_steps": 5},
        {"regularizer": L0(), "target_l0": 4, "batch_size": 50, "max_norm_ratio": 1.3},
        {"regularizer": Cardinality(3, "batch"), "encoder": Unrolled(2), "dead_after": 100},
        {"regularizer": 0.3 * L1(), "encoder": "solved", "n_steps": 3},
    ]
    return [ProxSAE(**{**usual, **one}) for one in different]


def assert_same(sae, alone):
    assert (sae.n_iter_, sae.n_features_in_, sae.regularizer_) == (alone.n_iter_, 12, alone.regularizer_)
    np.testing.assert_array_equal(sae.components_, alone.components_)
    np.testing.assert_array_equal(sae.intercept_, alone.intercept_)
    for name, tensor in sae.encoder_.tensors().items():
        np.testing.assert_array_equal(tensor, alone.encoder_.tensors()[name])
    for name, column in sae.history_.items():
        np.testing.assert_array_equal(column, alone.history_[name])


@pytest.mark.parametrize("kind", [np.asarray, list], ids=["array", "list"])
def test_each_is_what_fit_alone_gives(kind):
    data = kind(X)
    fitted = fit_many(saes_of(), data)
    for sae, alone in zip(fitted, saes_of(), strict=True):
        assert_same(sae, alone.fit(data))


def test_what_several_draw_is_read_once(monkeypatch):
    read, seen = Rows.read, []

    def counted(self, rows, *options):
        seen.append(len(X[rows]))
        return read(self, rows, *options)

    monkeypatch.setattr(Rows, "read", counted)
    saes = [ProxSAE(Cardinality(k), 24, n_steps=9, batch_size=64, random_state=0) for k in (2, 3, 4)]
    fit_many(saes, X)
    assert seen.count(64) == 9
    fit_many([sae.set_params(random_state=seed) for seed, sae in enumerate(saes)], X)
    assert seen.count(64) == 9 + 27


def test_one_that_fails_leaves_the_others_fitted(monkeypatch):
    step = Trainer.step

    def spoiled(self, x, *rest):
        record = step(self, x, *rest)
        if self.state.given == Cardinality(5):
            self.state.model.atoms.data[3, 1] = np.nan
        return record

    monkeypatch.setattr(Trainer, "step", spoiled)
    saes = saes_of()
    saes[2].set_params(regularizer="Huber(1.0)")
    sentence = "2 of 6 autoencoders could not be trained, .*number 1: the loss is nan.*number 2: no"
    with pytest.warns(UserWarning, match="half the step"), pytest.raises(FitManyError, match=sentence) as raised:
        fit_many(saes, X)
    assert list(raised.value.errors) == [1, 2]
    assert [hasattr(sae, "components_") for sae in saes] == [True, False, False, True, True, True]
    assert_same(saes[0], saes_of()[0].fit(X))


def test_a_full_disk_of_one_leaves_the_others_fitted(tmp_path, monkeypatch):
    from proxsae.formats import checkpoints

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    saes = saes_of(checkpoint_every=3)
    saes[1].set_params(checkpoint_dir=tmp_path)
    monkeypatch.setattr(checkpoints.Checkpoints, "write", full)
    with pytest.raises(FitManyError, match=r"1 of 6 .*number 1: .*No space left"):
        fit_many(saes, X)
    assert [hasattr(sae, "components_") for sae in saes] == [True, False, True, True, True, True]


def test_a_divergence_of_one_is_caught_up(monkeypatch):
    step, left = Trainer.step, [2]

    def longer(self, x, *rest):
        record = step(self, x, *rest)
        if self.state.given == Cardinality(3) and self.state.n_done == 5 and left[0]:
            left[0] -= 1
            self.state.model.encoder.weight.data *= 100
        return record

    monkeypatch.setattr("proxsae.training.fitting.LASTS", 1)
    monkeypatch.setattr(Trainer, "step", longer)
    with pytest.warns(UserWarning, match="half the step size, 0.001"):
        first, second, *_ = fit_many(saes_of()[:2], X)
    left[0] = 2
    with pytest.warns(UserWarning, match="half the step size, 0.001"):
        assert_same(first, saes_of()[0].fit(X))
    assert_same(second, saes_of()[1].fit(X))


def test_a_signal_ends_all_and_resumed_they_are_as_never_stopped(tmp_path, monkeypatch):
    step = Trainer.step

    def stopped(self, x, *rest):
        if self.state.n_done == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, x, *rest)

    def of_folders():
        return [
            sae.set_params(checkpoint_dir=tmp_path / str(number), checkpoint_every=3)
            for number, sae in enumerate(saes_of()[:2])
        ]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.warns(
            UserWarning, match="Ctrl-C ended the training early: the model and the last checkpoint are those of step"
        ):
            assert all(sae.n_iter_ in (4, 5) for sae in fit_many(of_folders(), X))
    for sae, alone in zip(fit_many(of_folders(), X, resume=True), saes_of(), strict=False):
        assert_same(sae, alone.fit(X))


def test_what_is_no_list_of_different_estimators_is_refused():
    sae = ProxSAE()
    spelled = ("a", "./a/", Path("a").resolve())
    same = [[ProxSAE(checkpoint_dir="a"), ProxSAE(checkpoint_dir=other)] for other in spelled]
    for saes in ([], [sae, sae]):
        with pytest.raises(ValueError, match="saes must be at least one ProxSAE, and each there once, got"):
            fit_many(saes, X)
    for saes in same:
        with pytest.raises(ValueError, match=r"needs a checkpoint_dir of its own, and 2 have .*/a$"):
            fit_many(saes, X)
    with pytest.raises(TypeError, match="got a str in it"):
        fit_many("ab", X)
    with pytest.raises(ValueError, match="k must not exceed"):
        fit_many([ProxSAE(Cardinality(50), 24)], X)


def test_moments_are_freed_before_models_are_made_in_the_units_of_the_data(monkeypatch):
    finished, held = fitting.finished_model, []
    monkeypatch.setattr(
        fitting, "finished_model", lambda state: held.append(len(state.optimizer.state)) or finished(state)
    )
    X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    sae = ProxSAE(Cardinality(2), 8, n_steps=2, batch_size=20, random_state=0)
    sae.fit(X)
    fit_many([sae], X)
    assert held == [0, 0]
    sae.partial_fit(X)
    assert held[2] > 0
