import numpy as np
import pytest
import torch
from llm_models import ARCHITECTURES, one_thread, tiny_model, tiny_texts, tiny_tokenizer  # noqa: F401

from proxsae.data.shard import StoreError, read_index, write_index
from proxsae.data.writer import StoreWriter
from proxsae.llm import ActivationStore, describe, documents, harvest

OPTIONS = {"block": 2, "n_tokens": 300, "context_length": 16, "batch_size": 4, "verbose": False}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return tiny_texts()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setitem(StoreWriter.__init__.__kwdefaults__, "shard_bytes", 5000)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_row_is_the_hidden_state_at_its_token(architecture, texts, tmp_path):
    model = tiny_model(architecture)
    store = harvest(model, texts, out=tmp_path, drop=1, **OPTIONS)
    assert store.shape == (300, 16)
    assert store.info["complete"]
    context, position = store.trace(np.arange(len(store)))
    tokens = np.stack([store.tokens(number) for number in range(store.info["contexts"])])
    with torch.inference_mode():
        output = model.model(input_ids=torch.from_numpy(tokens.astype(np.int64)), output_hidden_states=True)
    hidden = output.hidden_states[2].numpy()
    np.testing.assert_allclose(store[:], hidden[context, position], rtol=1e-5, atol=1e-5)
    # the rows are the text in order, without boundaries and first positions
    kept = (tokens > 2) & (np.arange(16) > 0)
    np.testing.assert_array_equal(np.flatnonzero(kept)[:300], context * 16 + position)


def test_a_store_of_before_model_type_is_the_same_harvest(model, texts, tmp_path):
    info = harvest(model, texts, out=tmp_path, **OPTIONS).info
    assert info["model_type"] == "llama"
    index = read_index(tmp_path)
    del index["model_type"]
    write_index(tmp_path, index)
    assert len(harvest(model, texts, out=tmp_path, **OPTIONS)) == 300


def test_contexts_behind_the_last_row_are_not_counted(model, texts, tmp_path):
    few = OPTIONS | {"n_tokens": 20}
    store = harvest(model, texts, out=tmp_path, drop=1, **few)
    assert store.info["contexts"] == store.trace([19])[0][0] + 1 == 2
    assert "20 rows of 16 features from 2 contexts of" in describe(store)
    assert len(harvest(model, texts, out=tmp_path, drop=1, **few)) == 20
    one = harvest(model, texts, out=tmp_path / "one", drop=1, **(few | {"n_tokens": 3}))
    assert "3 rows of 16 features from 1 context of" in describe(one)


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (None, {"separator": "w1 w2"}, "separator holds 'w1 w2'"),
        (["w1", 3], {}, "must be a string or token ids"),
        (None, {"n_tokens": 0}, "n_tokens=0 was given"),
        (None, {"block": 31}, "numbered from 1 to 4"),
    ],
)
def test_a_refused_harvest_leaves_no_folder(model, texts, tmp_path, text, options, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        harvest(model, text or texts, out=tmp_path / "store", **(OPTIONS | {"split": "all"} | options))
    assert list(tmp_path.iterdir()) == []


def test_a_complete_harvest_says_so(model, texts, tmp_path, capsys):
    verbose = OPTIONS | {"verbose": True}
    store = harvest(model, texts, out=tmp_path, **verbose)
    assert capsys.readouterr().err.endswith(" tokens/s.\n")
    harvest(model, texts, out=tmp_path, **verbose)
    assert capsys.readouterr().err == f"{describe(store)}; complete already, nothing was run.\n"
    harvest(model, texts, out=tmp_path, **OPTIONS)
    assert capsys.readouterr().err == ""


def test_what_is_dropped_is_counted(model, texts, tmp_path):
    store = harvest(model, texts, out=tmp_path, drop=2, **OPTIONS)
    info = store.info
    tokens = np.stack([store.tokens(number) for number in range(info["contexts"])])
    context, position = store.trace([len(store) - 1])
    seen = np.arange(tokens.size).reshape(tokens.shape) <= context[0] * 16 + position[0]
    assert info["dropped_by_position"] == seen[:, :2].sum()
    assert info["dropped_special"] == (seen & (tokens < 3))[:, 2:].sum()
    assert info["dropped_massive"] == info["large_kept"] == 0
    assert len(store) + info["dropped_by_position"] + info["dropped_special"] == seen.sum()
    assert "dropped: " in describe(store)
    assert info["dropped_positions"] == [0, 1]


def test_massive_activations_are_found(texts, tmp_path):
    def grow(_module, _args, output):
        output = output.clone()
        output[:, 0] *= 1000
        output[1, 5] *= 1000
        return output

    model = tiny_model()
    model.blocks[1].register_forward_hook(grow)
    auto = harvest(model, texts, out=tmp_path / "auto", **OPTIONS)
    assert auto.info["dropped_positions"] == [0]
    # a single row in each batch, which no median shows
    assert auto.info["dropped_massive"] > 0
    assert auto.info["large_kept"] == 0
    norms = np.linalg.norm(auto[:], axis=1)
    assert norms.max() < 10 * auto.info["median_norm"]
    with pytest.warns(UserWarning, match="times as long as the median row"):
        kept = harvest(model, texts, out=tmp_path / "kept", drop=[0], **OPTIONS)
    assert kept.info["large_kept"] == (np.linalg.norm(kept[:], axis=1) > 10 * kept.info["median_norm"]).sum() > 0


def _files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("calls", [1, 3, 5])
def test_resuming_equals_never_having_stopped(model, texts, tmp_path, monkeypatch, small_shards, calls):
    # by default 32 contexts, here all of them, are measured before anything is written
    monkeypatch.setattr("proxsae.llm.activations._MEASURED_CONTEXTS", 4)
    whole = harvest(model, texts, out=tmp_path / "whole", **OPTIONS)
    assert len(list((tmp_path / "whole").glob("*.safetensors"))) > 2
    run, count = model.read_all, 0

    def interrupted(*args):
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(model, "read_all", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        harvest(model, texts, out=tmp_path / "again", **OPTIONS)
    with pytest.warns(UserWarning, match="of the 300 rows asked for: its harvest was interrupted or still runs"):
        part = ActivationStore(tmp_path / "again")
    assert not part.info["complete"]
    np.testing.assert_array_equal(part[:], whole[: len(part)])
    monkeypatch.setattr(model, "read_all", run, raising=False)
    again = harvest(model, texts, out=tmp_path / "again", **OPTIONS)
    assert len(again) == 300
    assert _files(tmp_path / "again") == _files(tmp_path / "whole")
    # a complete harvest is returned without another forward pass
    monkeypatch.setattr(model, "read_all", None, raising=False)
    assert len(harvest(model, texts, out=tmp_path / "again", **OPTIONS)) == 300


def test_another_text_or_size_is_refused(model, texts, tmp_path, small_shards):
    harvest(model, texts, out=tmp_path, **OPTIONS)
    with pytest.raises(StoreError, match="complete harvest of 300 rows, so n_tokens=301 needs another folder"):
        harvest(model, texts, out=tmp_path, **(OPTIONS | {"n_tokens": 301}))
    with pytest.raises(StoreError, match=r"holds a harvest with site='block\.2', so one with site='block\.1'"):
        harvest(model, texts, out=tmp_path, **(OPTIONS | {"block": 1}))
    write_index(tmp_path, read_index(tmp_path) | {"complete": False})
    with pytest.raises(StoreError, match="was begun with another text"):
        harvest(model, tiny_texts(seed=5), out=tmp_path, **(OPTIONS | {"n_tokens": 301}))
    with pytest.raises(StoreError, match="holds 300 rows already, so n_tokens=299"):
        harvest(model, texts, out=tmp_path, **(OPTIONS | {"n_tokens": 299}))


def test_a_complete_harvest_of_another_text_is_refused(model, texts, tmp_path):
    harvest(model, texts, out=tmp_path / "list", **OPTIONS)
    with pytest.raises(StoreError, match=r"another text .* 'strings \(list\)' gives now \(context 0 differs"):
        harvest(model, tiny_texts(seed=5), out=tmp_path / "list", **OPTIONS)
    file, options = tmp_path / "text.txt", OPTIONS | {"split": "all", "seed": None}
    file.write_text("\n\n".join(texts))
    whole = harvest(model, file, out=tmp_path / "file", **options)
    assert len(harvest(model, file, out=tmp_path / "file", **options)) == 300
    # one word in the middle: the contexts behind it stay what they are
    words = file.read_text().split(" ")
    words[150] = "w1" if words[150] != "w1" else "w2"
    file.write_text(" ".join(words))
    for complete in (True, False):
        write_index(whole.path, read_index(whole.path) | {"complete": complete})
        with pytest.raises(StoreError, match=r"another text .* \(context \d+ differs\); give another folder"):
            harvest(model, file, out=tmp_path / "file", **options)


def test_a_text_that_ended_and_goes_on_now_is_another_text(model, tmp_path):
    options = OPTIONS | {"split": "all", "seed": None, "separator": None, "drop": 0}
    with pytest.warns(UserWarning, match="ended after 30 of the 300 rows"):
        harvest(model, ["w1 " * 30], out=tmp_path, **options)
    with pytest.warns(UserWarning, match="ended after 30 of the 300 rows"):
        assert len(harvest(model, ["w1 " * 30], out=tmp_path, **options)) == 30
    for text in ("w1 " * 29, "w1 " * 31, "w1 " * 30 + "</s>"):
        with pytest.raises(StoreError, match="begun with another text"):
            harvest(model, [text], out=tmp_path, **options)


def test_a_text_that_ends_early(model, texts, tmp_path):
    words = sum(len(text.split()) for text in texts[:4])
    options = OPTIONS | {"split": "all", "drop": 0}
    with pytest.warns(UserWarning, match=f"ended after {words} of the 300 rows"):
        store = harvest(model, texts[:4], out=tmp_path / "short", **options)
    assert len(store) == words
    with pytest.raises(ValueError, match="gave no token to store"):
        harvest(model, [" "], out=tmp_path / "none", **options)
    # nothing was stored, so the folder is free for another text
    with pytest.warns(UserWarning, match="ended after"):
        harvest(model, tuple(texts[:4]), out=tmp_path / "none", **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block": 5}, "block='block.5' was given, but tiny llama has 4 blocks, numbered from 1 to 4"),
        ({"exclude_tokens": [63]}, "exclude_tokens holds 63, which is neither an id below 63 nor the text"),
        ({"exclude_tokens": ["w1 w2"]}, "exclude_tokens holds 'w1 w2', which is neither"),
        ({"exclude_tokens": "w1"}, "exclude_tokens='w1' is one text"),
        ({"n_tokens": 0}, "n_tokens=0 was given; an integer of at least 1"),
        ({"n_tokens": 1e3}, r"n_tokens=1000\.0 was given"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"context_length": 65}, "reads at most 64 tokens"),
        ({"context_length": 1}, "an integer of at least 2"),
        ({"drop": 16}, "drop=16 was given"),
        ({"drop": "first"}, "drop='first' was given; allowed are 'auto'"),
        ({"drop": [-1]}, r"drop=\[-1\] was given"),
        ({"dtype": "float8"}, "dtype='float8' was given; allowed are float32, float16"),
        ({"split": "test"}, "split='test'"),
    ],
)
def test_wrong_arguments(model, texts, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        harvest(model, texts, out=tmp_path / "out", **(OPTIONS | wrong))
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_nan(texts, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(ValueError, match=r"at 'block\.2' that are not finite"):
        harvest(model, texts, out=tmp_path, **OPTIONS)


def test_it_says_what_it_did(model, texts, tmp_path, capsys):
    harvest(model, texts, out=tmp_path, **(OPTIONS | {"verbose": True}))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "300 rows of 16 features" in printed.err
    assert "tokens/s" in printed.err
    assert "it/s" not in printed.err


def test_excluded_tokens_are_left_out(model, texts, tmp_path):
    whole = harvest(model, texts, out=tmp_path / "whole", drop=0, **OPTIONS)
    store = harvest(model, texts, out=tmp_path / "some", drop=0, exclude_tokens=["w1", 9], **OPTIONS)
    assert store.info["excluded_tokens"] == [4, 9]
    own = [ids[at] for ids, at in map(store.tokens_of, range(len(store)))]
    others = [ids[at] for ids, at in map(whole.tokens_of, range(len(whole)))]
    assert {4, 9} <= set(others)
    assert own[:200] == [token for token in others if token not in (4, 9)][:200]
    with pytest.raises(StoreError, match=r"excluded_tokens=\[4, 9\], so one with excluded_tokens=\[\] cannot"):
        harvest(model, texts, out=tmp_path / "some", drop=0, **OPTIONS)


def test_other_weights_under_the_same_name_are_not_mixed_in(texts, tmp_path, small_shards):
    model = tiny_model()
    harvest(model, texts, out=tmp_path, **OPTIONS)
    write_index(tmp_path, read_index(tmp_path) | {"complete": False})
    with torch.no_grad():
        model.model.lm_head.weight[0, 0] += 1e-3
    with pytest.raises(StoreError, match=r"holds a harvest with weights='float32:.*', so one with weights='float32:"):
        harvest(model, texts, out=tmp_path, **(OPTIONS | {"n_tokens": 400}))


def test_a_text_that_begins_with_hundreds_of_contexts_without_text(model, tmp_path):
    texts = ["</s> " * 16 * 100, *tiny_texts()]
    store = harvest(model, texts, out=tmp_path, seed=None, split="all", **OPTIONS)
    assert len(store) == 300
    assert store.trace([0])[0][0] > 100
    tokens, position = store.tokens_of(0)
    with torch.inference_mode():
        hidden = model.model(input_ids=torch.tensor(tokens[None].astype(int)), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(store[0], hidden[2][0, position].numpy(), rtol=1e-5, atol=1e-5)


def test_one_token_is_a_row(model, tmp_path):
    with pytest.warns(UserWarning, match="ended after 1 of the 300 rows"):
        store = harvest(model, ["w1"], out=tmp_path, split="all", **OPTIONS)
    assert len(store) == 1


def test_a_model_without_a_tokenizer_or_with_another(texts, tmp_path):
    model = tiny_model()
    larger = tiny_tokenizer()
    larger.add_tokens(["w99"])
    for tokenizer, sentence in (
        (None, "tiny llama has no tokenizer, so it cannot read text"),
        (larger, "The token id 63 was given, but the embedding of tiny llama has 63 rows"),
    ):
        model.tokenizer = tokenizer
        with pytest.raises(ValueError, match=sentence):
            harvest(model, [*texts, "w99"], out=tmp_path / "out", split="all", **(OPTIONS | {"n_tokens": 10_000}))


@pytest.mark.parametrize("site", ["embed", "mlp_out.2", "attn_out.3", "block.4"])
def test_other_sites(model, texts, tmp_path, site):
    store = harvest(model, texts, out=tmp_path, drop=0, **(OPTIONS | {"block": site}))
    assert store.info["site"] == site
    assert f"at '{site}'" in describe(store)
    context, position = store.trace(np.arange(len(store)))
    tokens = np.stack([store.tokens(number) for number in range(store.info["contexts"])])
    read = model.read(torch.from_numpy(tokens.astype(np.int64)), site).numpy()
    np.testing.assert_allclose(store[:], read[context, position], rtol=1e-5, atol=1e-5)


def test_how_documents_become_contexts_is_kept_and_compared(model, texts, tmp_path):
    options = {"block": 1, "n_tokens": 60, "context_length": 16, "batch_size": 4, "split": "all", "verbose": False}
    packing = {"bos": False, "separator": None, "concatenate": False}
    store = harvest(model, texts, out=tmp_path / "own", drop=0, **packing, **options)
    assert {name: store.info[name] for name in packing} == packing
    first = next(iter(documents(texts)))
    words = model.tokenizer(first, add_special_tokens=False)["input_ids"]
    context, position = store.trace(range(len(words)))
    assert store.tokens(0)[: len(words)].tolist() == words
    assert (context == 0).all()
    assert position.tolist() == list(range(len(words)))
    np.testing.assert_allclose(store[: len(words)], model.read(torch.tensor([words]), 1)[0], atol=1e-4)
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents(texts)]
    again = harvest(model, ids, out=tmp_path / "ids", drop=0, seed=None, **packing, **options)
    np.testing.assert_array_equal(again[:], store[:])
    with pytest.raises(ValueError, match="bos"):
        harvest(model, texts, out=tmp_path / "own", drop=0, **options)
