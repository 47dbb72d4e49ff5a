"""Tiny random language models with a tiny tokenizer, for the tests of proxsae.llm."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from proxsae.llm import LanguageModel

WORDS = [f"w{number}" for number in range(60)]
VOCABULARY = {token: number for number, token in enumerate(["<s>", "</s>", "<unk>", *WORDS])}
_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
_COMMON = {"vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_CONFIGS = {
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 4, "n_head": 4, "n_positions": 64}),
    "neox": ("GPTNeoX", {**_SIZES, "max_position_embeddings": 64}),
    "llama": ("Llama", {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}),
    "qwen2": ("Qwen2", {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}),
    "gemma2": (
        "Gemma2",
        {**_SIZES, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 4, "max_position_embeddings": 64},
    ),
    "gemma3": (
        "Gemma3",
        {**_SIZES, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 4, "max_position_embeddings": 64},
    ),
}
ARCHITECTURES = list(_CONFIGS)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny products are slower on several threads, which mostly wait for one another; imported where it is wanted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_tokenizer(special: bool = True) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "<s>", "eos_token": "</s>"} if special else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_transformer(architecture: str = "llama", **sizes: int) -> transformers.PreTrainedModel:
    """Return a model of random weights; `sizes` are for its configuration."""
    prefix, usual = _CONFIGS[architecture]
    config_class = getattr(transformers, f"{prefix}TextConfig", None) or getattr(transformers, f"{prefix}Config")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_class(**(usual | sizes), **_COMMON))
    # initial weights are so small that every block would be nearly the identity
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def tiny_model(architecture: str = "llama", **sizes: int) -> LanguageModel:
    return LanguageModel(tiny_transformer(architecture, **sizes), tiny_tokenizer(), f"tiny {architecture}")


def tiny_texts(count: int = 60, seed: int = 0) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 30, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[index] for index in torch.randint(0, len(WORDS), (length,), generator=generator).tolist())
        for length in lengths
    ]
