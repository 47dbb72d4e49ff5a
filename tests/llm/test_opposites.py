"""Two directions in a language model: words in sentences, the logit lens, next tokens, and the page."""

import numpy as np
import pytest
import torch
from llm_models import one_thread, tiny_model, tiny_texts  # noqa: F401
from small_saes import sae_of

from proxsae.cli import main
from proxsae.commands import axes
from proxsae.llm import harvest
from proxsae.llm.generate import prompt_ids
from proxsae.llm.opposites import (
    CARRIERS,
    logit_lens,
    pair_codes,
    read_pairs,
    read_words,
    rows_with_next_token,
    shuffled_pairs,
)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    texts = tiny_texts(400)
    options = {"n_tokens": 1500, "context_length": 16, "verbose": False}
    return harvest(model, texts, hook=["block.1", "block.2"], out=folder / "s", **options).at("block.2")


def test_our_pairs_are_pairs_without_repetition():
    pairs = read_pairs()
    assert len(pairs) >= 80
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("text", "sentence"), [("", "holds no pair"), ("\n\n", "holds no pair"), ("one\n", "is no pair")]
)
def test_a_list_without_pairs(tmp_path, text, sentence):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_pairs(tmp_path / "pairs.csv")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "pairs.csv").write_bytes(b"\xef\xbb\xbfrise,fall\n")
    assert read_pairs(tmp_path / "pairs.csv") == [("rise", "fall")]


def test_words_are_read_at_their_last_token(model):
    words = read_words(model, 2, ["w1", "w2 w3", "w1"])
    assert [(word, read.n_tokens) for word, read in words.items()] == [("w1", 1), ("w2 w3", 2)]
    for word, read in words.items():
        assert read.rows.shape == (len(CARRIERS), 16)
        for carrier, row in zip(CARRIERS, read.rows, strict=True):
            expected = model.read(torch.tensor([prompt_ids(model, f"{carrier} {word}")]), 2)[0, -1]
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)
    sae = sae_of("Cardinality(8)", d=16, p=64)
    (code,) = pair_codes(sae, words, [("w1", "w2 w3")])
    signs = [np.sign(sae.transform(words[word].rows).toarray()) for word in ("w1", "w2 w3")]
    opposite = np.flatnonzero(
        ((signs[0] > 0).mean(0) >= 0.5) & ((signs[1] < 0).mean(0) >= 0.5)
        | ((signs[0] < 0).mean(0) >= 0.5) & ((signs[1] > 0).mean(0) >= 0.5)
    )
    assert code.atom in opposite if len(opposite) else code.atom is None


def test_words_are_read_without_the_beginning_of_text_token_where_the_harvest_was(model):
    rows = read_words(model, 2, ["w1"], bos=False)["w1"].rows
    for carrier, row in zip(CARRIERS, rows, strict=True):
        ids = prompt_ids(model, f"{carrier} w1")
        assert ids[0] == model.tokenizer.bos_token_id
        np.testing.assert_allclose(row, model.read(torch.tensor([ids[1:]]), 2)[0, -1], rtol=1e-4, atol=1e-4)


def test_shuffled_pairs_are_other_pairs():
    pairs = [(f"a{i}", f"b{i}") for i in range(9)]
    for seed in range(4):
        mixed = shuffled_pairs(pairs, seed)
        assert len(mixed) == 9
        assert not set(mixed) & set(pairs)
        assert {b for _, b in mixed} == {b for _, b in pairs}


def test_the_lens_is_the_norm_and_the_head(model):
    directions = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    inner = model.model
    expected = inner.lm_head(inner.model.norm(torch.from_numpy(directions))).detach()
    np.testing.assert_allclose(logit_lens(model)(directions), expected, rtol=1e-4, atol=1e-4)
    longer = logit_lens(model)(7 * directions)
    np.testing.assert_allclose(longer, expected, rtol=1e-3, atol=1e-3)


def test_next_tokens_are_those_of_the_text(store):
    rows, X, following = rows_with_next_token(store, 1000)
    assert 900 < len(rows) < 1000
    np.testing.assert_array_equal(X, store[rows])
    for row, token in zip(rows[::97], following[::97], strict=True):
        tokens, position = store.tokens_of(int(row))
        assert tokens[position + 1] == token


def test_the_command_writes_a_page(model, store, tmp_path, capsys, monkeypatch):
    model.model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    for name, R in (("signed", "Cardinality(8)"), ("onesided", "NonNegative + Cardinality(8)")):
        sae_of(R, d=16, p=64).save(tmp_path / f"{name}.safetensors")
    (tmp_path / "pairs.csv").write_text("w1,w2\nw3,w4 w5\nw6,w7\n")
    arguments = ["axes", str(tmp_path / "signed.safetensors"), str(store.path), "--model", str(tmp_path / "model")]
    arguments += ["--block", "2", "--any-place", "--pairs", str(tmp_path / "pairs.csv"), "--tokens", "1500"]
    arguments += ["--against", str(tmp_path / "onesided.safetensors"), "--out", str(tmp_path / "axes.html")]
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)  # not needed where a store is given
    assert main([*arguments, "--least", "5"]) == 0
    printed = capsys.readouterr().out
    assert "two-sided balance" in printed
    assert "onesided, words paired at random" in printed
    assert "Words of several tokens, read at the last: w4 w5." in printed
    html = (tmp_path / "axes.html").read_text(encoding="utf-8")
    for heading in ("The best atoms", "Typical atoms", "Each pair", "w3 / w4 w5"):
        assert heading in html
    assert html.count('class="card"') >= 8
    assert main([*arguments, "--least", "5000"]) == 1
    assert "two atoms that fire on 5000 samples are needed" in capsys.readouterr().err
    one_sided = [argument.replace("signed.safetensors", "onesided.safetensors") for argument in arguments[:2]]
    assert main([*one_sided, *arguments[2:]]) == 1
    assert "is the model itself; give another one" in capsys.readouterr().err
    assert main([*one_sided, *arguments[2:-4], *arguments[-2:], "--least", "5"]) == 1
    assert "has 5 non-zeros on both sides" in capsys.readouterr().err


def test_models_are_named_by_their_files_or_where_these_are_alike_by_their_paths():
    two = {"layers.14": "runs/layers.14", "topk": "runs/topk.safetensors"}
    assert axes._named(*two.values()) == two
    assert axes._named("runs/layers.14", None) == {"layers.14": "runs/layers.14"}
    alike = ("A/layers.14", "B/layers.14")
    assert axes._named(*alike) == dict(zip(alike, alike, strict=True))


@pytest.mark.parametrize("site", ["mlp_in.2", "mlp_hidden.2"])
def test_what_does_not_write_to_the_stream_has_no_lens(model, site, tmp_path, capsys):
    folder, d = tmp_path / "model", model.width(model.site(site))
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    options = {"n_tokens": 400, "context_length": 16, "verbose": False}
    store = harvest(model, tiny_texts(400), hook=site, out=tmp_path / "s", **options)
    sae_of("Cardinality(8)", d=d, p=32).save(tmp_path / "signed.safetensors")
    (tmp_path / "pairs.csv").write_text("w1,w2\nw3,w4\n")
    arguments = ["axes", str(tmp_path / "signed.safetensors"), str(store.path), "--model", str(folder), "--least", "5"]
    arguments += ["--block", site, "--pairs", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "axes.html")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    html = (tmp_path / "axes.html").read_text(encoding="utf-8")
    assert "cosine of contexts" in printed
    assert "logit lens" not in printed
    assert "No logit lens: it is for atoms of the residual stream, or of what attention or an MLP adds to it." in html
    assert "Atoms that carry pairs" in html
    assert "The best atoms" not in html
