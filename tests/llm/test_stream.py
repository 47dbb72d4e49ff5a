"""Training straight from a language model: the rows are those of a harvest."""

import numpy as np
import pytest
from llm_models import one_thread, tiny_model, tiny_texts  # noqa: F401

from proxsae import ProxSAE, fit_many
from proxsae.llm import ActivationStream, evaluate, harvest
from proxsae.regularizers import Cardinality

OPTIONS = {"block": 2, "context_length": 16, "batch_size": 4}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return tiny_texts()


def rows_of(stream, epoch=0):
    return np.concatenate([read() for _, read in stream.blocks(epoch, lambda: False)])


@pytest.mark.parametrize("buffer_rows", [7, 100, 10_000])
@pytest.mark.parametrize("drop", ["auto", 2])
def test_the_rows_are_those_that_a_harvest_stores(buffer_rows, drop, model, texts, tmp_path):
    store = harvest(model, texts, out=tmp_path, n_tokens=300, drop=drop, verbose=False, **OPTIONS)
    stream = ActivationStream(model, texts, n_tokens=300, drop=drop, buffer_rows=buffer_rows, **OPTIONS)
    for epoch in range(2):
        np.testing.assert_array_equal(rows_of(stream, epoch), store[:])
    sizes = [n_rows for n_rows, _ in stream.blocks(0, lambda: False)]
    assert sizes == [*[buffer_rows] * (300 // buffer_rows), *[300 % buffer_rows] * (300 % buffer_rows > 0)]


def test_without_a_number_it_is_the_whole_text(model, texts, tmp_path):
    with pytest.warns(UserWarning, match="ended after"):
        store = harvest(model, texts, out=tmp_path, n_tokens=10_000, verbose=False, **OPTIONS)
    np.testing.assert_array_equal(rows_of(ActivationStream(model, texts, **OPTIONS)), store[:])


def test_a_fit_on_it_is_that_on_the_shuffled_rows(model, texts):
    def sae_of(k=3):
        return ProxSAE(Cardinality(k), 32, n_steps=20, batch_size=64, random_state=0)

    def stream():
        return ActivationStream(model, texts, n_tokens=400, buffer_rows=150, **OPTIONS)

    sae = sae_of().fit(stream())
    assert sae.history_["waiting"].shape == (20,)
    assert sae.provenance_["site"] == "block.2"
    assert sae.provenance_["model"] == "tiny llama"
    told = [sae.provenance_[name] for name in ("text", "tokenizer", "dropped_positions", "tokens_seen")]
    assert told == ["strings (list)", "tiny llama (63 tokens)", [], 20 * 64]
    assert evaluate(model, {"a": sae}, texts, n_tokens=50, verbose=False, **OPTIONS)["a"]["fvu"] < 1
    for one, k in zip(fit_many([sae_of(2), sae_of(3)], stream()), (2, 3), strict=True):
        np.testing.assert_array_equal(one.components_, sae_of(k).fit(stream()).components_)


def test_a_model_of_a_stream_knows_the_usual_norm_as_that_of_a_store_does(model, texts, tmp_path):
    store = harvest(model, texts, out=tmp_path, n_tokens=300, verbose=False, **OPTIONS)
    stream = ActivationStream(model, texts, n_tokens=300, **OPTIONS)
    sae = ProxSAE(Cardinality(3), 32, n_steps=2, batch_size=64, random_state=0).fit(stream)
    for name in ("dropped_positions", "median_norm", "median_norms"):
        assert sae.provenance_[name] == store.info[name]
    before = stream.definition
    del stream.info["median_norm"], stream.info["median_norms"]  # as in checkpoints of earlier versions
    assert stream.definition == before


def test_a_checkpoint_of_another_stream_is_refused(model, texts, tmp_path):
    """Although the first blocks may be equal."""
    given = {"n_tokens": 160, "buffer_rows": 80, "drop": 0, **OPTIONS}

    def fit(resume=False, **others):
        sae = ProxSAE(Cardinality(3), 32, n_steps=4, batch_size=64, random_state=0, checkpoint_dir=tmp_path)
        return sae.fit(ActivationStream(model, texts, **{**given, **others}), resume=resume)

    fitted = fit()
    for others in ({"n_tokens": 240}, {"buffer_rows": 160, "n_tokens": 160}, {"seed": 1}):
        with pytest.raises(ValueError, match="another fit: its stream = n_rows 160, buffer_rows 80, seed 0, prov"):
            fit(resume=True, **others)
    np.testing.assert_array_equal(fit(resume=True).components_, fitted.components_)


def test_text_that_can_be_read_only_once_ends_with_a_sentence(model, texts):
    once = (text for text in texts)
    sae = ProxSAE(Cardinality(3), 32, n_steps=200, batch_size=64, random_state=0)
    with pytest.raises(ValueError, match=r"gives no rows in pass number 2, after \d+ rows"):
        sae.fit(ActivationStream(model, once, **OPTIONS))


def test_what_goes_wrong_in_the_thread_is_said_where_it_is_asked_for(model, texts):
    def broken():
        yield from texts[:30]
        yield 7

    sae = ProxSAE(Cardinality(3), 32, n_steps=200, batch_size=64, random_state=0)
    with pytest.raises(TypeError, match="Document number 30 is a int"):
        sae.fit(ActivationStream(model, broken(), seed=0, buffer_rows=50, **OPTIONS))


def test_a_pass_over_a_stream_needs_an_end(model, texts):
    sae = ProxSAE(Cardinality(3), 32, n_steps=2, batch_size=64, random_state=0)
    sae.fit(ActivationStream(model, texts, **OPTIONS))
    with pytest.raises(ValueError, match="this stream has no end: give n_tokens"):
        sae.partial_fit(ActivationStream(model, texts, **OPTIONS))
    assert sae.partial_fit(ActivationStream(model, texts, n_tokens=130, **OPTIONS)).n_iter_ == 2 + 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_tokens": 0}, "n_tokens=0 was given"),
        ({"buffer_rows": 0}, "buffer_rows must be an integer >= 1, got 0"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
        ({"drop": 99}, "drop=99 was given"),
    ],
)
def test_bad_arguments_are_one_sentence(options, sentence, model, texts):
    with pytest.raises(ValueError, match=sentence):
        ActivationStream(model, texts, **{**OPTIONS, **options})


def test_a_fit_counts_the_tokens_that_it_sees(model, texts, tmp_path):
    store = harvest(model, texts, out=tmp_path / "store", n_tokens=400, verbose=False, **OPTIONS)

    def sae(n_steps, **options):
        return ProxSAE(Cardinality(3), 32, n_steps=n_steps, batch_size=64, random_state=0, **options)

    fitted = sae(20).fit(store)
    assert fitted.provenance_ == {**store.info, "tokens_seen": 20 * 64}
    assert fitted.partial_fit(store).partial_fit(store).provenance_["tokens_seen"] == (20 + 2 * 7) * 64
    fitted.save(tmp_path / "sae.safetensors")
    again = ProxSAE.load(tmp_path / "sae.safetensors")
    assert again.partial_fit(store).provenance_["tokens_seen"] == (20 + 3 * 7) * 64
    folder = tmp_path / "checkpoints"
    sae(10, checkpoint_dir=folder, checkpoint_every=5).fit(store)
    resumed = sae(10, checkpoint_dir=folder, checkpoint_every=5)
    assert resumed.fit(store, resume=True).provenance_["tokens_seen"] == 10 * 64
    assert sae(2).fit(store[:]).provenance_ == {}
