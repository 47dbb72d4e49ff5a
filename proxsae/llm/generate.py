"""Continuations of a prompt by a language model, and the log-probabilities of given texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxsae.formulas.integers import is_count
from proxsae.llm.contexts import boundary_tokens, ids_of
from proxsae.llm.model import LanguageModel, evaluating


class Continuation(NamedTuple):
    """The continuation of a prompt.

    Attributes
    ----------
    text : str
    tokens : int64 array of shape (n_tokens,)
    log_probabilities : float64 array of shape (n_tokens,)
        The log-probability of each token given the tokens before it, in nats, at temperature 1.
    """

    text: str
    tokens: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]


@torch.inference_mode()
def generate(
    model: LanguageModel, prompt: str, *, n_tokens: int = 40, temperature: float = 0.0, seed: int = 0
) -> Continuation:
    r"""Continue a prompt: greedily, or by samples of :math:`p^{1/T} / \sum p^{1/T}` with their own seed.

    Parameters
    ----------
    model : LanguageModel
    prompt : str
    n_tokens : int, default=40
        The largest number of tokens; the continuation ends before an end-of-text token.
    temperature : float, default=0
        T; 0 takes the most probable token.
    seed : int, default=0
        Seed of the samples; no other random state is changed.

    Returns
    -------
    Continuation

    Raises
    ------
    ValueError
        If an argument is not as described, the prompt and the text are longer than the model reads, or its logits are
        not finite.
    """
    if not is_count(n_tokens):
        raise ValueError(f"n_tokens={n_tokens!r} was given; an integer of at least 1 is allowed.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r} was given; a number of at least 0 is allowed.")
    ids = prompt_ids(model, prompt)
    if model.max_length and len(ids) + n_tokens > model.max_length:
        raise ValueError(
            f"{len(ids)} tokens of the prompt and {n_tokens} more were asked for, but {model.name} reads at most "
            f"{model.max_length} at once."
        )
    random = torch.Generator().manual_seed(seed)
    _, end = boundary_tokens(model.tokenizer)
    tokens: list[int] = []
    log_probabilities: list[float] = []
    given, cache = torch.tensor([ids], device=model.device), None
    with evaluating(model.model):
        while len(tokens) < n_tokens:
            output = model.model(input_ids=given, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            log_p = _log_softmax(model, output.logits[0, -1]).cpu()
            token = _drawn(log_p, temperature, random)
            if token == end:
                break
            tokens.append(token)
            log_probabilities.append(float(log_p[token]))
            given = torch.tensor([[token]], device=model.device)
    return Continuation(str(model.tokenizer.decode(tokens)), np.array(tokens, np.int64), np.array(log_probabilities))


def _log_softmax(model: LanguageModel, logits: Tensor) -> Tensor:
    """Return log p in float64, or raise ValueError where logits are not finite; -inf stands for an impossible token."""
    log_p = logits.double().log_softmax(-1)
    if bool(log_p.isnan().any()):
        raise ValueError(f"the logits of {model.name} hold NaN or infinity, as of activations that are too large")
    return log_p


def _drawn(log_p: Tensor, temperature: float, random: torch.Generator) -> int:
    if temperature == 0:
        return int(log_p.argmax())
    return int(torch.multinomial((log_p / temperature).softmax(-1), 1, generator=random))


def log_probabilities(model: LanguageModel, prompt: str, continuations: Sequence[str]) -> NDArray[np.float64]:
    """Return log p(continuation | prompt) of each continuation, in nats: the sum over its tokens.

    Raises
    ------
    ValueError
        If a continuation is empty, or the logits are not finite.
    TypeError
        If the continuations are one text.
    """
    if isinstance(continuations, str):
        raise TypeError(f"continuations must be a list of texts, got the text {continuations!r}")
    ids = prompt_ids(model, prompt)
    found = []
    for text in continuations:
        more = ids_of(text, model.tokenizer)
        if not more:
            raise ValueError(f"the continuation {text!r} has no token")
        log_p = _log_softmax(model, model.logits(torch.tensor([ids + more]))[0])
        places = torch.arange(len(ids) - 1, len(ids) + len(more) - 1)
        found.append(float(log_p[places, more].sum()))
    return np.array(found)


def prompt_ids(model: LanguageModel, prompt: str, *, bos: bool = True) -> list[int]:
    """Return the tokens of a prompt, after the beginning-of-text token unless `bos` is false.

    Raises
    ------
    ValueError
        If the model has no tokenizer, or there is no token at all.
    """
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, so it cannot read text; give LanguageModel one.")
    start, _ = boundary_tokens(model.tokenizer)
    ids = ([start] if bos and start is not None else []) + ids_of(prompt, model.tokenizer)
    if not ids:
        raise ValueError(f"the prompt {prompt!r} has no token")
    return ids
