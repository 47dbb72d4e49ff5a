"""Places in a model: by short name or module path, one or several in one pass."""

import pickle

import numpy as np
import pytest
import torch
from llm_models import ARCHITECTURES, one_thread, tiny_model, tiny_texts  # noqa: F401 (a fixture)

from proxsae import ProxSAE
from proxsae.data.shard import StoreError
from proxsae.llm import ActivationStore, harvest


@pytest.fixture
def tokens():
    return torch.randint(3, 63, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_mlp_takes_hides_and_gives_what_its_sites_say(architecture, tokens):
    model = tiny_model(architecture)
    mlp = model.blocks[2].mlp
    taken, hidden, given = model.read_all(tokens, ["mlp_in.3", "mlp_hidden.3", "mlp_out.3"])
    with torch.no_grad():
        torch.testing.assert_close(mlp(taken), given)
        last = next(part for name, part in mlp.named_children() if name in ("down_proj", "c_proj", "dense_4h_to_h"))
        torch.testing.assert_close(last(hidden), given)
    for site, x in (("mlp_in.3", taken), ("mlp_hidden.3", hidden)):
        torch.testing.assert_close(model.read(tokens, site), x)
        torch.testing.assert_close(model.logits(tokens, site, x), model.logits(tokens))
        assert not torch.allclose(model.logits(tokens, site, 2 * x), model.logits(tokens))


def test_a_path_is_a_module(model, tokens):
    up = model.read(tokens, "model.layers.2.mlp.up_proj")
    taken = model.read(tokens, "in:model.layers.2.mlp.up_proj")
    torch.testing.assert_close(taken, model.read(tokens, "mlp_in.3"))
    with torch.no_grad():
        torch.testing.assert_close(model.model.model.layers[2].mlp.up_proj(taken), up)
    torch.testing.assert_close(model.logits(tokens, "model.layers.2.mlp.up_proj", up), model.logits(tokens))


def test_a_module_at_the_top_of_the_model(model, tokens):
    x = model.read(tokens, "in:lm_head")  # what the final norm gives
    with torch.no_grad():
        torch.testing.assert_close(model.model.lm_head(x), model.logits(tokens))
    torch.testing.assert_close(model.logits(tokens, "in:lm_head", x), model.logits(tokens))


def test_sites_are_read_in_any_order(model, tokens):
    sites = ["mlp_out.4", "embed", 2, "attn_out.1", "embed"]
    for site, x in zip(sites, model.read_all(tokens, sites), strict=True):
        torch.testing.assert_close(x, model.read(tokens, site))


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("model.layers.9.mlp", "LlamaForCausalLM has no such module"),
        ("model.rotary_emb", "cannot be read: for tokens of shape"),
        ("in:model.embed_tokens", "cannot be read: for tokens of shape"),
        ("mlp_hidden.9", "has 4 blocks"),
        ("mlp_of", "names no place"),
        ("lm_head", "with a dot in it, and 'in:lm_head'"),
        ("in:head", "LlamaForCausalLM has no such module"),
        ([], "one place or several different ones"),
        (["mlp_in.3", "mlp_in.3"], "one place or several different ones"),
    ],
)
def test_what_is_no_place(model, tmp_path, hook, message):
    with pytest.raises(ValueError, match=message):
        harvest(model, tiny_texts(), hook=hook, n_tokens=10, context_length=16, out=tmp_path / "store")


def test_one_of_hook_and_block(model, tmp_path):
    for both in ({}, {"hook": "mlp_in.3", "block": 3}):
        with pytest.raises(ValueError, match="one of the two"):
            harvest(model, tiny_texts(), **both, n_tokens=10, out=tmp_path / "store")


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    options = {"n_tokens": 150, "context_length": 16, "verbose": False}
    out = tmp_path_factory.mktemp("store")
    return harvest(model, tiny_texts(), hook=["mlp_in.3", "mlp_hidden.3", "mlp_out.3"], out=out, **options)


def test_several_sites_stand_side_by_side(model, store):
    assert store.shape == (150, 16 + 24 + 16)
    assert store.sites == {"mlp_in.3": slice(0, 16), "mlp_hidden.3": slice(16, 40), "mlp_out.3": slice(40, 56)}
    Y = store.at("mlp_out.3")
    assert (Y.shape, Y.info["site"], Y.info["n_features"]) == ((150, 16), "mlp_out.3", 16)
    np.testing.assert_array_equal(Y[:], store[:][:, 40:])
    np.testing.assert_array_equal(Y.part(3, 9)[1:], store[4:9][:, 40:])
    np.testing.assert_array_equal(store.part(3, 9).at("mlp_out.3")[[4, 1]], store[[7, 4]][:, 40:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(Y))[:], Y[:])
    context, position = Y.tokens_of(20)
    np.testing.assert_array_equal(context, store.tokens_of(20)[0])
    seen = model.read_all(torch.from_numpy(context[None].astype(np.int64)), list(store.sites))
    np.testing.assert_allclose(store[20], torch.cat(seen, -1)[0, position], atol=1e-5)
    np.testing.assert_array_equal(ActivationStore(store.path).at("mlp_in.3")[:], store.at("mlp_in.3")[:])
    with pytest.raises(ValueError, match=r"no site 'mlp_in\.4'; it has 'mlp_in\.3'"):
        store.at("mlp_in.4")


def test_a_transcoder_of_two_sites(store):
    sae = ProxSAE("NonNegative + Cardinality(4)", 32, n_steps=30, batch_size=64, random_state=0, skip_connection=True)
    X, Y = store.at("mlp_in.3"), store.at("mlp_out.3")
    sae.fit(X, Y)
    assert (sae.provenance_["site"], sae.provenance_["target_site"]) == ("mlp_in.3", "mlp_out.3")
    assert sae.score(X, Y) == pytest.approx(sae.score(X[:], Y[:]), abs=1e-6)


def test_a_row_that_is_massive_at_one_site_is_dropped(tmp_path):
    model = tiny_model()
    handle = model.blocks[2].mlp.register_forward_hook(
        lambda _module, _args, out: torch.cat([1000 * out[:, :1], out[:, 1:]], dim=1)
    )
    options = {"n_tokens": 60, "context_length": 16, "verbose": False}
    store = harvest(model, tiny_texts(), hook=["mlp_in.3", "mlp_out.3"], out=tmp_path / "two", **options)
    handle.remove()
    assert store.info["dropped_positions"] == [0]
    assert len(store.info["median_norms"]) == 2
    with pytest.raises(StoreError, match=r"site='mlp_in\.3'"):
        harvest(model, tiny_texts(), hook="mlp_in.3", out=tmp_path / "two", **options)
