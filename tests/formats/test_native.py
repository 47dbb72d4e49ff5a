"""Our own files: whatever becomes of a byte or a field, what is loaded is what was saved, or a sentence refuses it."""

import copy
import json

import numpy as np
import pandas
import pytest
from hostile import answered, damaged_bytes, edit
from hypothesis import given
from hypothesis import strategies as st

from proxsae import ProxSAE
from proxsae.encoders import Unrolled
from proxsae.formats.files import read_file, write_file
from proxsae.regularizers import L0, L1, Cardinality, NonNegative

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
MODELS = {
    "weight": (0.1 * L1(), {}),
    "count": (NonNegative() + Cardinality(2), {}),
    "thresholds": (L0(), {"target_l0": 2}),
    "layers": (Cardinality(2, "batch"), {"encoder": Unrolled(2, "lista", momentum=True)}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the files of some models, one with the state of its training."""
    folder = tmp_path_factory.mktemp("saved")
    for name, (R, options) in MODELS.items():
        sae = ProxSAE(R, 6, n_steps=2, batch_size=8, random_state=0, **options).partial_fit(X)
        sae.save(folder / f"{name}.safetensors", training_state=name in ("weight", "layers"))
    return sorted(folder.iterdir())


def test_a_model_has_one_file(files, tmp_path):
    sae, out = ProxSAE.load(files[0]), tmp_path / "again"
    written = set()
    for _ in range(8):
        sae.save(out)
        written.add(out.read_bytes())
    assert len(written) == 1
    assert read_file(out)[1]["parameters"] == read_file(files[0])[1]["parameters"]


def same(one, two):
    """Whether two models are the same in all that a file holds."""
    states = []
    for sae in (one, two):
        training = sae._training.state_dict() if sae._training else {}
        states.append(
            {
                **{f"encoder.{name}": value for name, value in sae.encoder_.tensors().items()},
                **{f"history.{name}": value for name, value in sae.history_.items()},
                **{f"training.{name}": value for name, value in training.items()},
                "arrays": [sae.components_, sae.intercept_],
                "text": repr([sae.get_params(), sae.encoder_, sae.regularizer_, sae._asked, sae.provenance_]),
            }
        )
    a, b = states
    return a.keys() == b.keys() and all(str(a[name]) == str(b[name]) for name in a)


@pytest.mark.fuzz
@given(st.data())
def test_a_damaged_file_is_refused_or_unharmed(files, tmp_path_factory, data):
    """One flipped bit of 0.1*L1 does not make 0.3*L1."""
    whole = data.draw(st.sampled_from(files))
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(data.draw(damaged_bytes(whole.read_bytes())))
    sae, refusal = answered(lambda: ProxSAE.load(path), ValueError)
    assert "fuzzed.safetensors" in refusal if refusal else same(sae, ProxSAE.load(whole))


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_a_file_that_says_something_else_is_refused_or_used(files, tmp_path_factory, data):
    """A file that is whole, its checksum included: one schema decides, and what it lets through can be used."""
    tensors, metadata = copy.deepcopy(read_file(data.draw(st.sampled_from(files))))
    if data.draw(st.booleans()):
        edit(data, metadata)
    else:
        name = data.draw(st.sampled_from(sorted(tensors)))
        changes = {
            "remove": lambda a: None,
            "flat": np.ravel,
            "deep": lambda a: a[None],
            "empty": lambda a: a[..., :0] if a.ndim else a,
            "short": lambda a: a[..., :-1] if a.ndim else a,
            "wide": lambda a: a.astype(np.float64),
            "integers": lambda a: a.astype(np.int64),
            "nan": lambda a: a * np.nan,
            "negative": lambda a: -1 - abs(a),
            "huge": lambda a: (a * 1e37).astype(a.dtype),
        }
        changed = data.draw(st.sampled_from(sorted(changes)))
        with np.errstate(all="ignore"):
            tensors[name] = changes[changed](tensors[name])
        tensors = {name: array for name, array in tensors.items() if array is not None}
    path = tmp_path_factory.getbasetemp() / "edited.safetensors"
    write_file(path, tensors, metadata)
    sae, refusal = answered(lambda: ProxSAE.load(path), ValueError)
    if refusal:
        assert "edited.safetensors: the field '" in refusal
        return
    may_fail = (ValueError, FloatingPointError)  # an unknown device, another number of atoms, a huge step
    answered(lambda: sae.transform(X), *may_fail)
    sae.inverse_transform(np.ones((1, len(sae.components_))))
    sae.save(path, training_state=sae._training is not None)
    answered(lambda: sae.set_params(batch_size=8).partial_fit(X), *may_fail)


def test_the_schema_has_bounds(files, tmp_path):
    tensors, metadata = read_file(files[0])
    write_file(tmp_path / "a", tensors, {**metadata, "provenance": json.loads("[" * 900 + "]" * 900)})
    with pytest.raises(ValueError, match="the field 'provenance': it is a list"):
        ProxSAE.load(tmp_path / "a")


def test_an_old_checkpoint_that_holds_the_gain_of_the_control_is_read(files, tmp_path):
    (path,) = (file for file in files if file.stem == "weight")
    tensors, metadata = read_file(path)
    write_file(tmp_path / "a", tensors, {**metadata, "training": {**metadata["training"], "gain": 0.1}})
    assert same(ProxSAE.load(tmp_path / "a"), ProxSAE.load(path))


@pytest.mark.parametrize(("part", "key"), [("encoder", "kind"), ("update", "name"), ("loss", "name")])
def test_a_part_of_an_unknown_name_is_refused_by_its_field(part, key, files, tmp_path):
    tensors, metadata = read_file(files[0])
    parameters = {**metadata["parameters"], part: {key: "strange", "options": {}}}
    write_file(tmp_path / "a", tensors, {**metadata, "parameters": parameters})
    with pytest.raises(ValueError, match=f"the field 'parameters.{part}': unknown {key} 'strange'; known are "):
        ProxSAE.load(tmp_path / "a")


def test_the_names_of_the_features_are_kept(tmp_path):
    frame = pandas.DataFrame(X, columns=list("abcd"))
    sae = ProxSAE(Cardinality(2), 6, n_steps=2, random_state=0, checkpoint_dir=tmp_path / "steps").fit(frame)
    sae.save(tmp_path / "a")
    for path in (tmp_path / "a", *(tmp_path / "steps").iterdir()):
        loaded = ProxSAE.load(path)
        assert loaded.feature_names_in_.tolist() == list("abcd")
        assert (loaded.transform(frame) != sae.transform(frame)).nnz == 0
        with pytest.raises(ValueError, match="same order"):
            loaded.transform(frame[list("dcba")])
    tensors, metadata = read_file(tmp_path / "a")
    for wrong in (["a"], [1, 2, 3, 4], "abcd"):
        write_file(tmp_path / "b", tensors, {**metadata, "feature_names": wrong})
        with pytest.raises(ValueError, match="the field 'feature_names': it "):
            ProxSAE.load(tmp_path / "b")
    del metadata["feature_names"]  # which a model of an array does not have
    write_file(tmp_path / "b", tensors, metadata)
    assert not hasattr(ProxSAE.load(tmp_path / "b"), "feature_names_in_")
    np.save(tmp_path / "X.npy", X)
    assert not hasattr(sae.fit(np.load(tmp_path / "X.npy", mmap_mode="r"), resume=True), "feature_names_in_")


def test_names_that_could_not_be_read_again_are_not_written(tmp_path, monkeypatch):
    frame = pandas.DataFrame(X, columns=[f"{column}{2000 * 'x'}" for column in range(4)])
    sae = ProxSAE("Cardinality(2)", 6, n_steps=1, random_state=0).fit(frame)
    sae.save(tmp_path / "a")
    monkeypatch.setattr("proxsae.formats.files.MAX_METADATA", 5000)
    with pytest.raises(ValueError, match=r"the field 'metadata' has \d+ characters, at most 5000"):
        ProxSAE.load(tmp_path / "a")
    with pytest.raises(ValueError, match=r"b: names and settings have \d+ characters, at most 5000 can be saved"):
        sae.save(tmp_path / "b")
    assert not (tmp_path / "b").exists()
