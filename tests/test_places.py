"""The commands that take an autoencoder and a store: whose rows are shown, and where and how texts are read."""

import re
from contextlib import nullcontext
from shutil import copytree

import numpy as np
import pytest
from llm_models import one_thread, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401
from pages import data_of, unpacked
from small_saes import sae_of

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.llm import ActivationStore, harvest, load_model, opposites
from proxsae.llm.provenance import at_place_of
from proxsae.report import read_text
from proxsae.report.server import PageServer

COMMANDS = ("report", "serve", "axes", "probe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with stores of one place and of two, and models that name block.2 and no place."""
    folder = tmp_path_factory.mktemp("places")
    tiny_transformer().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    model = load_model(folder / "model", device="cpu")
    options = {"n_tokens": 400, "context_length": 16, "bos": False, "verbose": False}
    for name, hook in (("one", "block.1"), ("two", ["block.1", "block.2"])):
        harvest(model, tiny_texts(80), hook=hook, out=folder / name, **options)
    for name, d, provenance in (
        ("silent", 16, {}),
        ("named", 16, {"model": model.name, "site": "block.2"}),
        ("theirs", 16, {"model": "owner/TheirName", "site": "block.1"}),
        ("changed", 16, {"model": model.name, "weights": "float32:0", "site": "block.1"}),
        ("hooked", 16, {"model": model.name, "hook": "blocks.0.ln2.hook_normalized"}),
        ("third", 16, {"model": model.name, "site": "block.3"}),
        ("wide", 32, {}),
        ("both", 32, {"model": model.name, "site": "block.1 block.2"}),
        ("others", 32, {"model": model.name, "site": "block.1 block.3"}),
    ):
        sae = sae_of("Cardinality(8)", d=d, p=64)
        sae.provenance_ = provenance
        sae.save(folder / f"{name}.safetensors")
    copytree(folder / "model", folder / "TheirName")
    tiny_transformer("qwen2").save_pretrained(folder / "qwen")
    tiny_tokenizer().save_pretrained(folder / "qwen")
    (folder / "pairs.csv").write_text("w1,w2\nw3,w4\n")
    return folder


def _command(command, folder, sae, store):
    store = ["--activations", str(folder / store)] if command == "probe" else [str(folder / store)]
    more = {
        "serve": ["--port", "0"],
        "probe": ["--k", "1", "--out", str(folder / "probe.csv")],
        "axes": ["--least", "5", "--pairs", str(folder / "pairs.csv"), "--out", str(folder / "axes.html")],
        "report": ["--out", str(folder / "report.html")],
    }
    return [command, str(folder / f"{sae}.safetensors"), *store, *more[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_of_another_place_are_refused(folder, command, capsys):
    assert main(_command(command, folder, "named", "one")) == 1
    sentence = "was fitted on 'block.2' of .*model, but is to be used on 'block.1' of .*model; --any-place allows it"
    assert re.search(sentence, capsys.readouterr().err)
    for sae in ("named", "silent"):
        assert main([*_command(command, folder, sae, "one"), "--block", "2"]) == 1
        assert "one' has no site 'block.2'; it has 'block.1'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_of_several_places_one_is_to_be_named(folder, command, capsys):
    assert main(_command(command, folder, "silent", "two")) == 1
    assert "does not say where its activations come from; give --block, one of 'block.1', 'block.2'" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_is_the_same_under_two_names(folder, command, monkeypatch, capsys):
    monkeypatch.setattr(PageServer, "serve_forever", lambda _: None)
    arguments = _command(command, folder, "theirs", "one")
    more = ["--least", "5000"] if command == "axes" else []  # then the next sentence ends it, and no page is drawn
    assert main([*arguments, *more, "--model", str(folder / "TheirName")]) == bool(more)
    assert ("two atoms that fire on 5000 samples are needed" in capsys.readouterr().err) == bool(more)
    assert main(arguments) == 1
    sentence = "was fitted on 'block.1' of owner/TheirName, but is to be used on 'block.1' of .*model; --any-place"
    assert re.search(sentence, capsys.readouterr().err)
    assert main(_command(command, folder, "changed", "one")) == 1
    assert re.search("was fitted on 'block.1' of .*model with other weights, but", capsys.readouterr().err)


def test_weights_of_one_precision_decide_before_names(folder, monkeypatch):
    store, model = ActivationStore(folder / "one"), load_model(folder / "model", device="cpu")
    store.info["weights"] = "bfloat16:1"
    sae = sae_of("Cardinality(8)", d=16, p=64)
    for weights, is_same in (("bfloat16:1", True), (model.fingerprint(), True), ("bfloat16:2", False), (None, True)):
        sae.provenance_ = {"model": model.name, "weights": weights}
        with nullcontext() if is_same else pytest.raises(ValueError, match="with other weights"):
            assert at_place_of({"sae": sae}, store, model) is store


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_of_another_model_are_refused(folder, command, capsys):
    assert main([*_command(command, folder, "silent", "one"), "--model", str(folder / "qwen")]) == 1
    sentence = "one' was harvested at 'block.1' of .*model, but is to be used on 'block.1' of .*qwen; --any-place"
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_names_a_hook_that_is_no_place_of_ours_asks_for_one(folder, command, capsys):
    for store in ("one", "two"):
        assert main(_command(command, folder, "hooked", store)) == 1
        assert "names the hook 'blocks.0.ln2.hook_normalized', which is no place of ours; give --block" in (
            capsys.readouterr().err
        )


def test_several_places_may_be_read_as_others(folder, capsys):
    arguments = _command("report", folder, "others", "two")
    assert main(arguments) == 1
    sentence = "was fitted on 'block.1 block.3' of .*, but is to be used on 'block.1 block.2' of .*; --any-place"
    assert re.search(sentence, capsys.readouterr().err)
    assert main([*arguments, "--any-place", "--block", "1", "2"]) == 0
    assert ", block.1 block.2, 400 tokens" in (folder / "report.html").read_text(encoding="utf-8")
    for more in ([], ["--any-place"]):
        assert main([*_command("report", folder, "third", "two"), *more]) == 1
        assert "two' has no site 'block.3'; it has 'block.1', 'block.2'" in capsys.readouterr().err
    assert main([*_command("report", folder, "third", "two"), "--any-place", "--block", "2"]) == 0
    assert main([*_command("report", folder, "wide", "two"), "--block", "2", "1"]) == 1
    assert "two' has no site 'block.2 block.1'" in capsys.readouterr().err


def test_probe_takes_the_place_that_is_given(folder):
    found = []
    for sae, store, more in (
        ("silent", "one", []),
        ("hooked", "one", ["--block", "1"]),
        ("silent", "two", ["--block", "1"]),
        ("named", "one", ["--any-place"]),
    ):
        assert main(["probe", *more, *_command("probe", folder, sae, store)[1:]]) == 0
        found.append((folder / "probe.csv").read_text().replace(sae, "sae"))
    assert found == [found[0]] * 4


def test_axes_are_those_of_one_place(folder, capsys):
    two = ActivationStore(folder / "two")
    options = {"regularizer": "Cardinality(8)", "n_components": 64, "n_steps": 1, "random_state": 0}
    ProxSAE(**options, blocks=two.info["widths"]).fit(two).save(folder / "crosscoder.safetensors")
    ProxSAE(**options).fit(two.at("block.1"), two.at("block.2")).save(folder / "transcoder.safetensors")
    for sae, more, sentence in (
        ("both", [], "the rows are of 'block.1 block.2' side by side"),
        ("crosscoder", ["--block", "1"], "the model is a crosscoder"),
        ("transcoder", ["--block", "2"], "the model is a transcoder"),
        ("silent", ["--against", f"{folder}/../{folder.name}/silent.safetensors"], "is the model itself"),
    ):
        assert main([*_command("axes", folder, sae, "two"), *more]) == 1
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sae", "store", "more", "place"),
    [
        ("named", "one", ["--any-place"], "block.1"),
        ("named", "two", [], "block.2"),
        ("silent", "one", [], "block.1"),
        ("silent", "two", ["--block", "1"], "block.1"),
    ],
)
def test_texts_are_read_where_and_how_the_rows_were_harvested(folder, sae, store, more, place, monkeypatch, capsys):
    model, info = load_model(folder / "model", device="cpu"), ActivationStore(folder / store).at(place).info
    expected = read_text(model, sae_of("Cardinality(8)", d=16, p=64), place, "w1 w2", info)
    read = []

    def serve(server):
        read.append(unpacked(server.answer("w1 w2")))
        assert f"model, {place}, 400 tokens" in server.page

    def read_words(_, site, words, *, bos):
        raise ValueError(f"{len(words)} words at {site}, {bos}")

    monkeypatch.setattr(PageServer, "serve_forever", serve)
    monkeypatch.setattr(opposites, "read_words", read_words)
    assert main([*_command("serve", folder, sae, store), *more]) == 0
    assert main([*_command("report", folder, sae, store), *more, "--read", "w1 w2"]) == 0
    read += data_of((folder / "report.html").read_text(encoding="utf-8"))["readings"]
    for text in read:
        assert text["tokens"] == ["w1", "w2"]  # the harvest had no beginning-of-text token
        np.testing.assert_array_equal(text["values"], expected.codes.data)
    assert main([*_command("axes", folder, sae, store), *more]) == 1
    assert f"4 words at {place}, False" in capsys.readouterr().err
