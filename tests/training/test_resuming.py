"""A fit that is killed, stopped, damaged or out of space goes on from its last checkpoint as if nothing had been."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.encoders import Unrolled
from proxsae.formats.files import read_file
from proxsae.regularizers import L0, L1, Cardinality, NonNegative
from proxsae.training.batches import NormalisedBatches
from proxsae.training.trainer import Trainer

N_STEPS, EVERY, BATCH = 13, 4, 64
X = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
FITS = {
    "count": (Cardinality(3), {"dead_after": 200}),
    "batch": (Cardinality(3, "batch"), {}),
    "thresholds": (L0() + NonNegative(), {"target_l0": 3}),
    "weight": (L1(), {"target_l0": 3}),
    "layers": (Cardinality(3), {"encoder": Unrolled(2, "lista")}),
    "online": (L1(), {"encoder": "solved", "target_l0": 3, "dead_after": 150}),
    "ksvd": (Cardinality(3), {"encoder": "solved", "update": "ksvd"}),
}
QUIET = pytest.mark.filterwarnings("ignore:.*atoms were used by none", "ignore:.*have not converged")


def fit_of(kind="count", folder=None, **options):
    R, given = FITS[kind]
    settings = {"n_steps": N_STEPS, "batch_size": BATCH, "random_state": 0, "learning_rate": 2e-3, **given, **options}
    return ProxSAE(R, 24, checkpoint_dir=folder, checkpoint_every=EVERY, **settings)


def content(path):
    """Return all that a model file holds, in its bytes."""
    tensors, metadata = read_file(path)
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in tensors.items()}, metadata


def same_model(one, other, tmp_path):
    for name, sae in (("one", one), ("other", other)):
        sae.save(tmp_path / f"{name}.safetensors")
    return content(tmp_path / "one.safetensors") == content(tmp_path / "other.safetensors")


def steps_of(folder):
    return sorted(int(path.name.removeprefix("step-").removesuffix(".safetensors")) for path in folder.iterdir())


def newest(folder):
    return max(folder.glob("step-*.safetensors"))


class KilledError(Exception):
    pass


def stop_after(monkeypatch, n_steps, act):
    """Do something between two steps."""
    after = NormalisedBatches.after

    def watched(self, n_drawn):
        if n_drawn == n_steps * BATCH:
            act()
        return after(self, n_drawn)

    monkeypatch.setattr(NormalisedBatches, "after", watched)


def killed_after(monkeypatch, n_steps, sae, *, resume=False, init=None):
    def kill():
        raise KilledError

    with monkeypatch.context() as patch:
        stop_after(patch, n_steps, kill)
        with pytest.raises(KilledError):
            sae.fit(X, resume=resume, init=init)


@QUIET
@pytest.mark.parametrize("kind", FITS)
def test_resumed_equals_never_stopped(kind, tmp_path, monkeypatch):
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    never_stopped = fit_of(kind, through).fit(X)
    killed_after(monkeypatch, 6, fit_of(kind, stopped))
    assert steps_of(stopped) == [4]
    killed_after(monkeypatch, 10, fit_of(kind, stopped), resume=True)
    assert steps_of(stopped) == [4, 8]
    resumed = fit_of(kind, stopped).fit(X, resume=True)
    at_its_end = fit_of(kind, stopped).fit(X, resume=True)
    assert steps_of(stopped) == steps_of(through)
    assert steps_of(stopped)[-2:] == [12, 13]  # and the best before, if another
    assert content(newest(stopped)) == content(newest(through))
    assert same_model(resumed, never_stopped, tmp_path)
    assert same_model(at_its_end, never_stopped, tmp_path)


def test_checkpoints_change_nothing(tmp_path):
    assert same_model(fit_of(folder=tmp_path / "c").fit(X), fit_of().fit(X), tmp_path)


def test_without_a_seed_it_goes_on_with_that_of_the_checkpoint(tmp_path, monkeypatch):
    killed_after(monkeypatch, 6, fit_of(folder=tmp_path / "c"))
    resumed = fit_of(folder=tmp_path / "c", random_state=None).fit(X, resume=True)
    np.testing.assert_array_equal(resumed.components_, fit_of().fit(X).components_)


def test_a_checkpoint_is_a_model(tmp_path, monkeypatch):
    killed_after(monkeypatch, 6, fit_of(folder=tmp_path / "c"))
    sae = ProxSAE.load(newest(tmp_path / "c"))
    assert (sae.n_iter_, sae.checkpoint_dir) == (4, None)
    assert sae.transform(X).shape == (300, 24)


# --- signals ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
import proxsae.data.files as files
import proxsae.training.trainer as trainer
from proxsae.cli import main

place, moment = sys.argv.pop(1), int(sys.argv.pop(1))
step, replace = trainer.Trainer.step, files.Path.replace

def killed_in_step(self, x, *rest):
    record = step(self, x, *rest)
    if (place, moment) == ("step", self.state.n_done):
        os.kill(os.getpid(), signal.SIGKILL)
    return record

def killed_in_write(self, target):
    if place == "write" and int(target.name[5:13]) >= moment:
        os.truncate(self, os.path.getsize(self) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

trainer.Trainer.step, files.Path.replace = killed_in_step, killed_in_write
sys.exit(main())
"""


def arguments(tmp_path, out, *more):
    np.save(tmp_path / "x.npy", X)
    options = {"-R": "Cardinality(3)", "--components": 24, "--steps": N_STEPS, "--batch-size": BATCH}
    options |= {"--checkpoint-every": EVERY, "--out": tmp_path / out}
    return ["fit", str(tmp_path / "x.npy"), *(str(part) for pair in options.items() for part in pair), *map(str, more)]


def killed_and_resumed(place, moment, tmp_path):
    """Kill the command for good at a moment, resume it, and compare with a fit that was never stopped."""
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    command = arguments(tmp_path, "resumed.safetensors", "--checkpoint", folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, place, str(moment), *command], capture_output=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "resumed.safetensors").exists()
    assert (place == "write") == any(path.suffix == ".partial" for path in folder.iterdir())
    last = min(moment, N_STEPS) - 1  # the last step after which a checkpoint can be there
    there = sorted(int(path.name[5:13]) for path in folder.glob("step-*"))
    assert there[-2:] == list(range(EVERY, last + 1, EVERY))[-2:]
    assert main([*command, "--resume"]) == 0
    assert main(arguments(tmp_path, "through.safetensors")) == 0
    assert content(tmp_path / "resumed.safetensors") == content(tmp_path / "through.safetensors")
    assert steps_of(folder)[-2:] == [12, 13]  # and nothing of the process that was killed
    (tmp_path / "resumed.safetensors").unlink()


def test_killed_while_it_writes(tmp_path):
    killed_and_resumed("write", 10, tmp_path)


@pytest.mark.soak
def test_killed_at_twenty_moments(tmp_path):
    random = np.random.default_rng(13)
    for _ in range(20):
        killed_and_resumed(random.choice(["step", "write"]), int(random.integers(1, N_STEPS + 1)), tmp_path)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(number, name, tmp_path, monkeypatch, capsys):
    command = arguments(tmp_path, "sae.safetensors", "--checkpoint", tmp_path / "c")
    with monkeypatch.context() as patch:
        stop_after(patch, 5, lambda: os.kill(os.getpid(), number))
        assert main(command) == 130
    sentence = f"proxsae fit: {name} ended the training early: the model and the last checkpoint are those of step 6"
    assert capsys.readouterr().err.endswith(f"{sentence} (a Python script goes on)\n")
    assert steps_of(tmp_path / "c") == [4, 6]
    assert main([*command, "--resume"]) == 0
    assert main(arguments(tmp_path, "through.safetensors")) == 0
    assert content(tmp_path / "sae.safetensors") == content(tmp_path / "through.safetensors")


def test_a_signal_leaves_the_threshold_of_the_model_and_resumes_from_that_of_the_batches(tmp_path, monkeypatch):
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    fit_of("batch", through).fit(X)
    stop_after(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.warns(UserWarning, match="those of step 6"):
        sae = fit_of("batch", stopped).fit(X)
    assert sae.transform(X).nnz / len(X) == pytest.approx(3, abs=0.02)
    fit_of("batch", stopped).fit(X, resume=True)
    for name in ("step-00000012.safetensors", "step-00000013.safetensors"):
        assert content(stopped / name) == content(through / name)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        stop_after(patch, 10, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1])))
        try:
            with pytest.raises(OSError, match=r"step-00000012\.safetensors' cannot be written: .*File too large"):
                fit_of(folder=folder).fit(X)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps_of(folder) == [4, 8]
    assert same_model(fit_of(folder=folder).fit(X, resume=True), fit_of().fit(X), tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "edited", "emptied", "foreign"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_stays(damage, tmp_path, monkeypatch):
    folder = tmp_path / "c"
    killed_after(monkeypatch, 10, fit_of(folder=folder))
    path = newest(folder)
    good = path.read_bytes()
    bad = {"truncated": good[:-9], "edited": good[:-1] + bytes([good[-1] ^ 1]), "emptied": b"", "foreign": b"x" * 900}
    path.write_bytes(bad[damage])
    sentence = r"\.safetensors.*; delete .*/step-00000008\.safetensors to go on from step-00000004\.safetensors$"
    with pytest.raises(ValueError, match=sentence) as refusal:
        fit_of(folder=folder).fit(X, resume=True)
    assert "\n" not in str(refusal.value)
    assert steps_of(folder) == [4, 8]
    path.unlink()
    assert same_model(fit_of(folder=folder).fit(X, resume=True), fit_of().fit(X), tmp_path)
    for path in folder.iterdir():
        path.write_bytes(b"")
    newest(folder).unlink()
    with pytest.raises(ValueError, match=r"delete .*/step-00000012\.safetensors to begin again, since there is no"):
        fit_of(folder=folder).fit(X, resume=True)


@pytest.mark.parametrize(
    ("options", "data", "sentence"),
    [
        ({"batch_size": 32}, X, "its batch_size = 64, that of this one is 32"),
        ({"learning_rate": 1e-2}, X, "its learning_rate = 0.002, that of this one is 0.01"),
        ({"n_steps": 30}, X, "its n_steps = 13, that of this one is 30: to train its model further, give it as init"),
        ({"regularizer": "0.1*L1"}, X, r"its regularizer = Cardinality\(3\), that of this one is 0.1\*L1\(\)"),
        ({"n_components": 25}, X, "its n_components = 24, that of this one is 25"),
        ({"target_l0": 2, "regularizer": L1()}, X, "its regularizer"),
        ({"encoder": Unrolled(2)}, X, r"its encoder = Amortized\(.*\), that of this one is Unrolled\("),
        ({"encoder": "solved"}, X, "its update = gradient, that of this one is Online"),
        ({"update": "frozen"}, X, "its update = gradient, that of this one is frozen"),
        ({"random_state": 1}, X, "its random_state = 0, that of this one is 1"),
        ({}, X[:-1], r"its X = 300 x 12 float32 .*, that of this one is 299 x 12 float32"),
        ({}, X[:, :-1], "300 x 11 float32"),
        ({}, X.astype(np.float64), "300 x 12 float64"),
        (
            {},
            X + np.float32(1),
            "300 x 12 float32 .*, that of this one is 300 x 12 float32",
        ),
        ({"max_norm_ratio": 100.0}, X, "its max_norm_ratio = None, that of this one is 100.0"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_and_stays(options, data, sentence, tmp_path, monkeypatch):
    folder = tmp_path / "c"
    killed_after(monkeypatch, 10, fit_of(folder=folder))
    before = content(newest(folder))
    with pytest.raises(ValueError, match=f"step-00000008.safetensors is the checkpoint of another fit: .*{sentence}"):
        fit_of(folder=folder).set_params(**options).fit(data, resume=True)
    assert content(newest(folder)) == before
    assert steps_of(folder) == [4, 8]


def test_what_is_missing_to_resume_is_named(tmp_path):
    Y, weights = X[:, :5] ** 2, np.arange(1.0, 301)
    fit_of(folder=tmp_path).fit(X, Y, weights)
    for given, sentence in (
        ((X,), r"its Y = 300 x 5 float32 with checksum \w{8}, that of this one is None$"),
        ((X, Y), r"its sample_weight = weights with checksum \w{8}, that of this one is None$"),
        ((X, Y, weights[::-1]), r"its sample_weight = weights with checksum \w{8}, that of this one is weights with"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fit_of(folder=tmp_path).fit(*given, resume=True)


def inits():
    rng = np.random.default_rng(0)
    fitted = [fit_of(n_steps=2, random_state=seed).fit(X) for seed in (0, 1)]
    return {"atoms": [rng.normal(size=(24, 12)) for _ in range(2)], "models": fitted, "none": [None, fitted[0]]}


@pytest.mark.parametrize("kind", ["atoms", "models", "none"])
def test_a_checkpoint_of_another_init_is_refused(kind, tmp_path, monkeypatch):
    one, other = inits()[kind]
    killed_after(monkeypatch, 10, fit_of(folder=tmp_path / "c"), init=one)
    with pytest.raises(ValueError, match=r"is the checkpoint of another fit: its init = .*, that of this one is a"):
        fit_of(folder=tmp_path / "c").fit(X, init=other, resume=True)
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    whole = fit_of().fit(X, init=one)
    for folder, init in (("c", one), ("d", None)):  # none in particular
        assert same_model(fit_of(folder=tmp_path / folder).fit(X, init=init, resume=True), whole, tmp_path)


def test_a_checkpoint_of_another_random_state_is_refused(tmp_path, monkeypatch):
    killed_after(monkeypatch, 10, fit_of(folder=tmp_path / "c", random_state=np.random.RandomState(3)))
    for other in (np.random.RandomState(4), 4):
        with pytest.raises(ValueError, match=r"its seed of random_state = .*, that of this one is"):
            fit_of(folder=tmp_path / "c", random_state=other).fit(X, resume=True)
    again, whole = (fit_of(folder=f, random_state=np.random.RandomState(3)) for f in (tmp_path / "c", None))
    assert same_model(again.fit(X, resume=True), whole.fit(X), tmp_path)


def test_a_model_without_its_training_is_no_checkpoint(tmp_path):
    fit_of().fit(X).save(tmp_path / "step-00000004.safetensors")
    with pytest.raises(ValueError, match=r"step-00000004\.safetensors is no checkpoint but a fitted model"):
        fit_of(folder=tmp_path).fit(X, resume=True)


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    fit_of(folder=tmp_path).fit(X)
    newest(tmp_path).rename(tmp_path / "step-00000500.safetensors")
    with pytest.raises(ValueError, match=r"step-00000500\.safetensors holds step 13, and not that of its name; delete"):
        fit_of(folder=tmp_path).fit(X, resume=True)


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_of_another_fit_in_the_same_folder_is_not_the_best(tmp_path, monkeypatch):
    others = [tmp_path / f"step-{step:08d}.safetensors" for step in (100, 200, 300)]
    stop_after(monkeypatch, 2, lambda: [path.touch() for path in others])
    fit_of(folder=tmp_path).fit(X)
    best, *last = steps_of(tmp_path)
    assert best <= N_STEPS
    assert last == [200, 300]


def test_what_is_there_is_never_overwritten(tmp_path):
    fit_of(folder=tmp_path).fit(X)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"step-00000013\.safetensors is there already: resume that fit, or give"):
        fit_of(folder=tmp_path).fit(X)
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt",
        "step-00000012.safetensors",
        "step-00000013.safetensors",
    }


def test_to_resume_needs_a_folder_and_says_when_it_begins(tmp_path):
    with pytest.raises(ValueError, match="resume goes on from a checkpoint: give checkpoint_dir"):
        fit_of().fit(X, resume=True)
    with pytest.warns(UserWarning, match="holds no checkpoint: the fit begins at its first step"):
        sae = fit_of(folder=tmp_path / "new").fit(X, resume=True)
    assert same_model(sae, fit_of().fit(X), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        fit_of(folder=tmp_path / "file").fit(X)


def test_a_regularizer_without_a_text_is_refused_before_the_first_step(tmp_path):
    from proxsae.regularizers import Numeric

    with pytest.raises(TypeError, match="holds a Python function"):
        fit_of(folder=tmp_path).set_params(regularizer=Numeric(abs)).fit(X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad_step", "sentence", "steps"), [(9, "the loss is nan at step 10", [4, 8]), (8, "after step 8", [4])]
)
def test_nan_names_the_step_and_leaves_the_last_good_checkpoint(bad_step, sentence, steps, tmp_path, monkeypatch):
    step = Trainer.step

    def spoiled(self, x, *rest):
        record = step(self, x, *rest)
        if self.state.n_done == bad_step:
            self.state.model.atoms.data[3, 1] = np.nan
        return record

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", spoiled)
        with (
            pytest.warns(UserWarning, match=f"{sentence}: the training goes back to step {steps[-1]} with half"),
            pytest.raises(FloatingPointError, match=f"{sentence} with the step size halved 3 times; try a smaller"),
        ):
            fit_of(folder=tmp_path / "c").fit(X)
    assert steps_of(tmp_path / "c") == steps
    assert same_model(fit_of(folder=tmp_path / "c").fit(X, resume=True), fit_of().fit(X), tmp_path)


def exploding(monkeypatch, at_step, n_times, factor=100.0):
    """Make a step too long, so many times, and one step enough of an explosion."""
    monkeypatch.setattr("proxsae.training.fitting.LASTS", 1)
    step, left = Trainer.step, [n_times]

    def longer(self, x, *rest):
        record = step(self, x, *rest)
        if self.state.n_done == at_step and left[0]:
            left[0] -= 1
            self.state.model.encoder.weight.data *= factor
        return record

    monkeypatch.setattr(Trainer, "step", longer)


def test_no_checkpoint_is_of_a_step_that_explodes(tmp_path):
    """Ten bad steps tell a divergence, and the checkpoints between them would be all that is kept."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 8)).astype(np.float32) @ random.normal(size=(8, 8)).astype(np.float32)
    options = {"n_components": 16, "learning_rate": 12.0, "n_steps": 60, "batch_size": 64, "random_state": 0}
    plain = ProxSAE(0.05 * L1(), **options)
    often = ProxSAE(0.05 * L1(), checkpoint_dir=tmp_path / "c", checkpoint_every=5, **options)
    for sae in (plain, often):
        with pytest.warns(UserWarning, match="goes back to step 0 with half the step size"):
            sae.fit(rows)
    np.testing.assert_array_equal(often.components_, plain.components_)


@pytest.mark.parametrize(
    ("factor", "sentence"), [(100.0, "explodes at step 11, to an FVU"), (1e30, "is inf at step 11")]
)
def test_a_divergence_goes_back_with_half_the_step_size(factor, sentence, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        exploding(patch, 10, 2, factor)
        with pytest.warns(UserWarning, match=rf"the loss {sentence}.*goes back to step 8 with half the step") as said:
            sae = fit_of(folder=tmp_path / "c").fit(X)
    assert [str(one.message).split()[-1] for one in said] == ["0.001", "0.0005"]
    plain = fit_of().fit(X)
    rates = sae.history_["learning_rate"] / plain.history_["learning_rate"]
    np.testing.assert_allclose(rates, [1.0] * 8 + [0.25] * 5)
    np.testing.assert_array_equal(sae.history_["step"], plain.history_["step"])
    np.testing.assert_array_equal(sae.history_["loss"][:9], plain.history_["loss"][:9])
    resumed = fit_of(folder=tmp_path / "c").fit(X, resume=True)
    assert same_model(resumed, sae, tmp_path)


def test_a_divergence_in_a_resumed_fit_counts_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        exploding(patch, 6, 1)
        with pytest.warns(UserWarning, match="goes back to step 4"):
            killed_after(patch, 10, fit_of(folder=tmp_path / "c"))
    with monkeypatch.context() as patch:
        exploding(patch, 10, 1)
        with pytest.warns(UserWarning, match=r"goes back to step 8 with half the step size, 0\.0005"):
            fit_of(folder=tmp_path / "c").fit(X, resume=True)


def test_a_divergence_without_checkpoints_begins_again_at_half_the_step_size(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        exploding(patch, 6, 1)
        with pytest.warns(UserWarning, match=r"goes back to step 0 with half the step size, 0\.001"):
            sae = fit_of().fit(X)
    half = fit_of(learning_rate=1e-3).fit(X)
    np.testing.assert_array_equal(sae.components_, half.components_)
    np.testing.assert_array_equal(sae.history_["loss"], half.history_["loss"])


def test_an_explosion_lasts():
    options = {"learning_rate": 50.0, "n_steps": 60}
    sentence = r"the loss explodes at step 1\d.*back to step 0 with half the step size, 25"
    with pytest.warns(UserWarning, match=sentence), suppress(FloatingPointError):
        fit_of(**options).set_params(regularizer=1e-4 * L1()).fit(X)


def test_batches_with_rows_of_huge_norm_are_no_divergence(recwarn):
    random = np.random.default_rng(0)
    atoms = random.normal(size=(200, 32))
    codes = random.normal(size=(6000, 200)) * (random.random((6000, 200)) < 0.04)
    heavy = (codes @ atoms / np.linalg.norm(atoms, axis=1).mean() + 5 * random.normal(size=32)).astype(np.float32)
    heavy[random.choice(6000, 10)] *= 300
    sae = ProxSAE(L0() + NonNegative(), 256, target_l0=8, n_steps=20, batch_size=256, random_state=0).fit(heavy)
    fvu = sae.history_["fvu"]
    assert fvu.max() > 10 * max(1.0, fvu[0])
    assert not any("half the step size" in str(one.message) for one in recwarn)


def test_nan_in_the_data_is_no_divergence(tmp_path):
    bad = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, X.shape)
    bad[:] = X
    bad[123, 4] = np.nan
    folder = tmp_path / "c"
    with pytest.raises(ValueError, match="row 123 of 300"):
        fit_of(folder=folder).fit(np.load(tmp_path / "x.npy", mmap_mode="r"))


def test_the_best_checkpoint_is_kept(tmp_path, monkeypatch):
    step = Trainer.step

    def worse_after_step_4(self, x, *rest):
        record = step(self, x, *rest)
        return record | {"loss": record["loss"] * (1 if self.state.n_done <= 4 else 2)}

    monkeypatch.setattr(Trainer, "step", worse_after_step_4)
    sae = fit_of(folder=tmp_path / "c").fit(X)
    assert steps_of(tmp_path / "c") == [4, 12, 13]
    assert sae.history_["loss"][:4].mean() < sae.history_["loss"][9:].mean()
    assert same_model(fit_of(folder=tmp_path / "c").fit(X, resume=True), sae, tmp_path)


@pytest.mark.parametrize("n_steps", [4, 9])
def test_a_short_explosion_does_not_end_as_a_model(n_steps):
    with (
        pytest.warns(UserWarning, match=f"the loss explodes at step {n_steps}"),
        pytest.raises(FloatingPointError, match="halved 3 times; try a smaller learning_rate"),
    ):
        fit_of(learning_rate=1e9, n_steps=n_steps).set_params(regularizer=0.3 * L1()).fit(X)


def test_an_explosion_that_is_too_short_to_be_told_is_warned_of(monkeypatch):
    for n_steps in (2, 3):
        with pytest.warns(UserWarning, match=r"the last step has an FVU of .*e\+.*try a smaller learning_rate"):
            fit_of(learning_rate=1e9, n_steps=n_steps).set_params(regularizer=0.3 * L1()).fit(X)
    with monkeypatch.context() as patch:
        exploding(patch, 10, 1)
        patch.setattr("proxsae.training.fitting.LASTS", 10)  # of which the last three are bad
        with pytest.warns(UserWarning, match="the last step has an FVU of"):
            fit_of().fit(X)
