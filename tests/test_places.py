"""The commands that take an autoencoder and a store: whose rows are shown, and where and how texts are read."""

import re

import numpy as np
import pytest
from llm_models import one_thread, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401
from pages import data_of, unpacked
from small_saes import sae_of

from proxsae.cli import main
from proxsae.llm import ActivationStore, harvest, load_model, opposites
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
    silent, named = sae_of("Cardinality(8)", d=16, p=64), sae_of("Cardinality(8)", d=16, p=64)
    silent.save(folder / "silent.safetensors")
    named.provenance_ = {"model": model.name, "site": "block.2"}
    named.save(folder / "named.safetensors")
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
