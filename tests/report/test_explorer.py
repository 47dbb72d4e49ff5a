"""The page of all atoms: its columns against brute force, its texts against the model, and what a page may not hold."""

import hashlib
import re
from base64 import b64encode

import numpy as np
import pytest
import torch
from llm_models import one_thread, tiny_texts  # noqa: F401
from pages import data_of, unpacked
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from small_saes import sae_of

from proxsae import ProxSAE
from proxsae.formats import LargestValues, SAEWithoutProx
from proxsae.llm import harvest
from proxsae.llm.opposites import logit_lens
from proxsae.report import explorer
from proxsae.report.atoms import BINS, examples, firing, neighbours, pushed_tokens
from proxsae.report.examples import TokenPlaces
from proxsae.report.packing import packed
from proxsae.report.reading import Reading, read_text


@pytest.fixture(scope="module")
def codes(sae, store):
    return csr_array(sae.transform(store))


@pytest.fixture(scope="module")
def places(store):
    return TokenPlaces(store)


def test_arrays_come_out_as_they_went_in():
    tree = {
        "a": [np.arange(3, dtype=np.int8), "x"],
        "b": np.array([[-1, 2**31 - 1]]),
        "c": np.float64([0.5]),
        "d": True,
    }
    found = unpacked(packed(tree | {"e": np.array([2**32 - 1]), "f": "</script>&"}))
    assert found["a"][0].tolist() == [0, 1, 2]
    assert found["b"].tolist() == [-1, 2**31 - 1]
    assert (found["c"].tolist(), found["d"], found["e"].tolist(), found["f"]) == (
        [0.5],
        True,
        [2**32 - 1],
        "</script>&",
    )
    assert not set("<>&") & set(packed({"f": "</script>&"}))
    with pytest.raises(ValueError, match="4294967296 does not fit into 32 bits"):
        packed({"a": np.array([2**32])})


def test_atoms_fire_as_their_codes_say(codes):
    Z = codes.toarray()
    found = firing(codes.tocsc())
    np.testing.assert_array_equal(found.counts, np.stack([(Z > 0).sum(axis=0), (Z < 0).sum(axis=0)], axis=1))
    np.testing.assert_allclose(found.strongest, np.maximum(0, [Z.max(axis=0), (-Z).max(axis=0)]).T)
    for atom in range(Z.shape[1]):
        for side, z in enumerate((Z[:, atom], -Z[:, atom])):
            expected = np.histogram(z[z > 0], bins=BINS, range=(0, max(np.abs(Z[:, atom]).max(), 1e-9)))[0]
            assert np.abs(found.histogram[atom, side] - expected).sum() <= 2  # rounding at an edge


def test_examples_are_the_strongest_of_their_contexts(codes, places):
    Z, n, width = codes.toarray(), 3, 2
    found = examples(codes.tocsc(), places, n, width)
    for atom in range(Z.shape[1]):
        for side, z in enumerate((Z[:, atom], -Z[:, atom])):
            of_context = [z[places.contexts == c].max() for c in range(len(places.tokens))]
            strongest = sorted((best for best in of_context if best > 0), reverse=True)[:n]
            rows = found.row[atom, side]
            rows = rows[rows >= 0]
            assert z[rows].tolist() == strongest
            np.testing.assert_array_equal(np.abs(found.z[atom, side, : len(rows)]), z[rows])
            for row, around in zip(rows, found.around[atom, side], strict=False):
                context, position = places.contexts[row], places.positions[row]
                near = [
                    next(iter(Z[(places.contexts == context) & (places.positions == p), atom]), 0.0)
                    for p in range(position - width, position + width + 1)
                ]
                np.testing.assert_allclose(around, 127 * np.array(near) / np.abs(Z[:, atom]).max(), atol=0.5001)
    assert (found.row[:, 1] >= 0).any()


def test_the_nearest_atoms_have_the_largest_cosines():
    D = np.random.default_rng(0).normal(size=(30, 5))
    D[7] = -2 * D[3]
    C = np.corrcoef(np.c_[D, -D])  # of rows of mean zero: cosines
    found = neighbours(D, 3, 20)
    np.fill_diagonal(C, 0)
    np.testing.assert_allclose(found.cosine[:, 0], [c[np.abs(c).argmax()] for c in C], atol=1e-12)
    np.testing.assert_allclose(np.abs(found.cosine), -np.sort(-np.abs(C), axis=1)[:, :3], atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(C, found.atom, axis=1), found.cosine, atol=1e-12)
    np.testing.assert_allclose([found.lowest, found.highest], [C.min(axis=1), C.max(axis=1)], atol=1e-12)
    assert found.atom[7, 0] == 3
    assert found.lowest[7] == pytest.approx(-1)
    assert found.histogram.sum() == 30 * 29 / 2
    assert found.histogram[0] >= 1
    assert neighbours(D[:1], 3, 20).atom.shape == (1, 0)


def test_pushed_tokens_are_those_of_the_head(sae, model):
    D = sae.components_
    head, norm = model.model.lm_head.weight.float(), model.model.model.norm
    with torch.no_grad():
        logits = (norm(torch.from_numpy(D) / torch.from_numpy(D).norm(dim=1, keepdim=True) * 4) @ head.T).numpy()
    logits /= np.sqrt(np.square(logits).mean(axis=0))
    found = pushed_tokens(D, logit_lens(model), 3)
    np.testing.assert_array_equal(found[:, 0], np.argsort(-logits, axis=1)[:, :3])
    np.testing.assert_array_equal(found[:, 1], np.argsort(logits, axis=1)[:, :3])


def test_biases_and_tokens_that_all_move_push_nothing_up():
    D, W = np.random.default_rng(0).normal(size=(600, 16)), np.random.default_rng(1).normal(size=(16, 30))
    size, bias = 1 + 9 * np.arange(30), 100 * np.arange(30)
    found = pushed_tokens(D, lambda d: (d @ W) * size + bias, 3)
    np.testing.assert_array_equal(found, pushed_tokens(D, lambda d: d @ W, 3))
    assert len(np.unique(found[:, 0, 0])) > 20


def test_a_text_is_read_as_a_harvest_reads_it(model, sae):
    text = tiny_texts(1, seed=5)[0]
    reading = read_text(model, sae, 2, text)
    assert [model.tokenizer.decode([token]) for token in reading.tokens] == ["<s>", *text.split()]
    assert reading.is_read.tolist() == [False, *[True] * len(text.split())]
    rows = model.read(torch.from_numpy(reading.tokens[None]), 2)[0].numpy()
    assert (reading.codes[1:] != csr_array(sae.transform(rows[1:]))).nnz == 0
    assert reading.codes[:1].nnz == 0
    with pytest.raises(ValueError, match="the text is empty"):
        read_text(model, sae, 2, " \n")
    with pytest.raises(ValueError, match="the text has 71 tokens; at most 64 can be read at once"):
        read_text(model, sae, 2, "w1 " * 70)
    with pytest.raises(ValueError, match="every token of the text is special"):
        read_text(model, sae, 2, "<s> <s>")


def test_tokens_that_are_bytes_are_shown_by_the_character_they_make():
    def shown(content):
        codes = csr_array((len(content), 4))
        reading = Reading(np.frombuffer(content, np.uint8), np.ones(len(content), bool), codes)
        return explorer.reading_content(reading, lambda tokens: bytes(tokens).decode(errors="replace"))["tokens"]

    assert shown("aé日😀".encode()) == ["a", "·", "é", "·", "·", "日", "·", "·", "·", "😀"]
    assert shown(b"a\xe6\x97b") == ["a", "\ufffd", "\ufffd", "b"]
    assert shown(b"\x97\xa5" + "本".encode()) == ["\ufffd", "\ufffd", "·", "·", "本"]
    assert shown(b"\xf0\x9f") == ["\ufffd", "\ufffd"]


def test_a_text_is_read_with_the_settings_of_the_harvest(model, tmp_path):
    text, packing = "w1 w2 w3 w1", {"bos": False, "separator": None, "exclude_tokens": ["w2"], "context_length": 16}
    options = {"block": 2, "n_tokens": 3, "split": "all", "drop": 0, "verbose": False}
    store = harvest(model, [text], out=tmp_path, **packing, **options)
    sae = sae_of("Cardinality(4)", d=16, p=40)
    expected = sae.transform(store).toarray()
    told = {"site": "block.2", "bos": False, "excluded_tokens": store.info["excluded_tokens"]}
    for provenance, info in ((told, None), ({}, store.info)):
        sae.provenance_ = provenance
        reading = read_text(model, sae, 2, text, info)
        assert [model.tokenizer.decode([token]) for token in reading.tokens] == text.split()
        assert reading.is_read.tolist() == [True, False, True, True]
        np.testing.assert_allclose(reading.codes[reading.is_read].toarray(), expected, atol=1e-4 * abs(expected).max())
    with pytest.raises(ValueError, match="every token of the text is special, excluded or of a massive activation"):
        read_text(model, sae, 2, text, {**store.info, "median_norms": [0.01]})


def test_the_page_holds_what_the_codes_say(model, sae, store, codes, places):
    data = data_of(explorer.explorer_page(sae, store, model, title="A"))
    p, Z = codes.shape[1], codes.toarray()
    assert (data["n_atoms"], data["n_tokens"], data["signed"]) == (40, 600, True)
    assert data["count"].reshape(p, 2).sum(axis=1).tolist() == (Z != 0).sum(axis=0).tolist()
    texts = np.array(data["vocabulary"])[data["contexts"]].reshape(places.tokens.shape)
    assert texts[3].tolist() == [model.tokenizer.decode([token]) for token in store.tokens(3)]
    at = data["example"].reshape(p, 2, -1)[:, 0, 0]
    atom = int(np.argmax(data["strongest"].reshape(p, 2)[:, 0]))
    row = int(Z[:, atom].argmax())
    assert at[atom] == places.contexts[row] * 16 + places.positions[row]
    reading = data["readings"][1]
    rows = places.row_at[(len(places.tokens) - 1) // 4]
    assert len(reading["tokens"]) == 16
    assert reading["values"].tolist() == codes[rows[rows >= 0]].data.tolist()
    assert np.diff(reading["starts"]).tolist() == [4 if is_read else 0 for is_read in reading["is_read"]]
    density, l0, cosines = data["plots"]
    assert sum(density["counts"]) == (Z != 0).any(axis=0).sum()
    assert (l0["counts"][4], sum(l0["counts"])) == (600, 600)
    assert sum(cosines["counts"]) == p * (p - 1) / 2


def test_nothing_pushes_where_atoms_do_not_write_into_the_stream(model, sae):
    paths = ("model.layers.1", "in:model.layers.1", "model.layers.1.self_attn", "model.layers.1.mlp")
    for hook in ("mlp_out.2", *paths):
        assert explorer.writes_to_stream(sae, [hook], model)
    paths = ["in:model.layers.1.mlp", "model.layers.1.input_layernorm", "model.layers.9.mlp"]
    for hooks in (["mlp_in.2"], *([path] for path in paths), ["block.1", "block.2"]):
        assert not explorer.writes_to_stream(sae, hooks, model)


def test_transcoders_and_crosscoders_have_a_page(model, tmp_path):
    hooks = ["mlp_in.2", "mlp_out.2"]
    store = harvest(
        model, tiny_texts(40), hook=hooks, n_tokens=200, context_length=16, out=tmp_path / "two", verbose=False
    )
    options = {"regularizer": "Cardinality(4)", "n_components": 24, "n_steps": 3, "batch_size": 64, "random_state": 0}
    transcoder = ProxSAE(**options).fit(*map(store.at, hooks))
    crosscoder = ProxSAE(**options, blocks=store.info["widths"]).fit(store)
    for sae, place, X, n_pushed in ((transcoder, hooks[0], store.at(hooks[0]), 6), (crosscoder, hooks, store, 0)):
        sae.history_ = {}
        data = data_of(explorer.explorer_page(sae, store, model, title="A", texts=["w1 w2 w3"]))
        Z = sae.transform(X)
        assert data["count"].sum() == Z.nnz
        assert len(data["pushed"]) == 24 * 2 * n_pushed
        reading = read_text(model, sae, place, "w1 w2 w3")
        assert data["readings"][0]["values"].tolist() == reading.codes.data.tolist()
        assert np.diff(reading.codes.indptr).tolist() == [0, 4, 4, 4]
    with pytest.raises(ValueError, match=r"was fitted on 'mlp_in.2' of tiny llama, but is to be used on 'mlp_out.2'"):
        explorer.explorer_page(transcoder, store.at(hooks[1]), model, title="A")


def test_what_cannot_be_shown_is_one_sentence(model, sae, store):
    for arguments, error, sentence in (
        ((ProxSAE(), store, model), NotFittedError, "is not fitted yet"),
        ((sae, np.zeros((9, 16)), model), TypeError, "store must be an ActivationStore, .*, got a ndarray"),
        ((sae, store, None), TypeError, "model must be a LanguageModel, .*, got a NoneType"),
    ):
        with pytest.raises(error, match=sentence):
            explorer.explorer_page(*arguments, title="A")
    with pytest.raises(TypeError, match="texts must be a list of texts, got the text 'abc'"):
        explorer.explorer_page(sae, store, model, title="A", texts="abc")
    with pytest.raises(ValueError, match=r"character 1 of the text .* is a byte that is no UTF-8, or half of"):
        explorer.explorer_page(sae, store, model, title="A", texts=["\ud83d"])


def test_an_autoencoder_without_a_regularizer_has_a_page(model, sae, store):
    encoder = LargestValues(sae.encoder_.weight.detach(), sae.encoder_.bias.detach(), k=4)
    html = explorer.explorer_page(SAEWithoutProx(sae.components_, sae.intercept_, encoder), store, model, title="A")
    assert "<dt>Regularizer</dt><dd>none</dd>" in html
    assert len(data_of(html)["count"]) == 2 * len(sae.components_)


def test_the_page_is_one_file_that_runs_its_own_script_alone(model, sae, store, monkeypatch):
    hostile = '</script><script>alert("w")</script><!--<img src=x onerror=alert(1)>'
    monkeypatch.setattr(explorer, "decoder", lambda model: lambda tokens: f"{hostile}{tokens}")
    html = explorer.explorer_page(sae, store, model, title=hostile)
    assert "<img" not in html
    assert len(re.findall("<script", html)) == 2
    assert data_of(html)["vocabulary"][0].startswith(hostile)
    script = re.findall(r"<script>(.*?)</script>", html, re.S)[0]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', html)
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in policy
    assert "connect-src 'none'" in policy
    assert not re.search(r'(src|href)="?(https?:)?//|url\(|@import', html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    live = explorer.explorer_page(sae, store, model, title="A", is_live=True)
    assert "connect-src 'self'" in live
    assert 'id="ask"' in live
    assert 'id="ask"' not in html
