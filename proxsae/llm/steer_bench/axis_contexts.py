"""The contexts that are read once and steered many times: the templates of an axis and neutral text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proxsae.llm import hooks
from proxsae.llm.concepts import Axis, target_ids
from proxsae.llm.contexts import batches, pack, special_ids
from proxsae.llm.generate import prompt_ids
from proxsae.llm.massive import MASSIVE_RATIO, median_norm
from proxsae.llm.model import LanguageModel, evaluating
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, documents
from proxsae.metrics import cross_entropy_sum, kl_sum

Array = NDArray[np.float32]

LENGTH = 64  # tokens in a context of neutral text


@dataclass
class Passage:
    """Contexts with the activations at the site, and which of their rows a steering edits; in main memory."""

    tokens: Tensor  # (contexts, length), padded on the right
    rows: Tensor  # (contexts, length, n_features)
    edited: Tensor  # (contexts, length), boolean

    @property
    def edited_rows(self) -> Array:
        """The rows that are edited, shape (n_rows, n_features)."""
        found: Array = self.rows[self.edited].numpy()
        return found

    def changed(self, change: Array) -> Tensor:
        """Return the activations with a change added to the rows that are edited."""
        out = self.rows.clone()
        out[self.edited] += torch.from_numpy(change)
        return out


@dataclass
class AxisContexts:
    """The templates of an axis, read: contexts of side a, then those of side b."""

    axis: Axis
    passage: Passage
    last: Tensor  # (contexts,), the position after which the targets are predicted
    targets: tuple[list[int], list[int]]
    multi_token: list[str]
    odds: NDArray[np.float64]  # clean log-odds of a against b, (contexts,)
    slopes: Array  # gradient of the log-odds, summed over the rows that are edited, (contexts, n_features)

    @property
    def n_templates(self) -> int:
        """The number of pairs."""
        return len(self.axis.templates)

    @property
    def gap(self) -> NDArray[np.float64]:
        """Clean log-odds in the context of side a minus those in that of side b, a template each."""
        found: NDArray[np.float64] = self.odds[: self.n_templates] - self.odds[self.n_templates :]
        return found

    @property
    def last_rows(self) -> Array:
        """The activations at the last token of each context, shape (contexts, n_features)."""
        found: Array = self.passage.rows[torch.arange(len(self.last)), self.last].numpy()
        return found


@dataclass
class Neutral:
    """Text that is unrelated to all axes, and the clean predictions of the model on it."""

    passage: Passage
    is_target: Tensor
    log_p: Tensor
    cross_entropy: float
    median_norm: float

    def damage(self, model: LanguageModel, site: Site, change: Array) -> tuple[float, float]:
        """Return KL(p_clean || p_steered) and the rise of the cross-entropy, in nats a token."""
        tokens = self.passage.tokens
        steered = model.logits(tokens, site, self.passage.changed(change))[:, :-1].cpu().float().log_softmax(-1)
        n = int(self.is_target.sum())
        kl = kl_sum(self.log_p, steered, self.is_target) / n
        return kl, cross_entropy_sum(steered, tokens[:, 1:], self.is_target) / n - self.cross_entropy


def read_neutral(model: LanguageModel, site: Site, text: TextSource, n_tokens: int) -> Neutral:
    """Return the first held-out contexts of a text."""
    packed = pack(documents(text, split="heldout"), model.tokenizer, LENGTH)
    batch = next(batches(packed, model.tokenizer, LENGTH, max(1, n_tokens // LENGTH)), None)
    if batch is None:
        raise ValueError("the neutral text holds nothing")
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    rows = model.read(tokens, site).float().cpu().clone()
    norms = rows.norm(dim=-1)
    median = median_norm(norms.numpy(), batch.is_text)
    passage = Passage(tokens, rows, torch.from_numpy(batch.is_text) & (norms <= MASSIVE_RATIO * median))
    is_target = torch.from_numpy(~batch.is_padding[:, 1:])
    log_p = model.logits(tokens)[:, :-1].cpu().float().log_softmax(-1)
    cross_entropy = cross_entropy_sum(log_p, tokens[:, 1:], is_target) / int(is_target.sum())
    return Neutral(passage, is_target, log_p, cross_entropy, median)


def read_sides(model: LanguageModel, site: Site, axis: Axis, limit: float) -> AxisContexts:
    """Run the templates of an axis once, with the gradient of their log-odds; rows above the limit are not edited."""
    a, b, multi_token = target_ids(model, axis)
    ids = [prompt_ids(model, context) for side in zip(*axis.templates, strict=True) for context in side]
    tokens = torch.zeros((len(ids), max(map(len, ids))), dtype=torch.long)
    is_text = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, found in enumerate(ids):
        tokens[row, : len(found)] = torch.tensor(found)
        is_text[row, : len(found)] = ~torch.isin(torch.tensor(found), torch.tensor(special_ids(model.tokenizer)))
    rows = model.read(tokens, site).float().cpu().clone()
    passage = Passage(tokens, rows, is_text & (rows.norm(dim=-1) <= limit))
    last = torch.tensor([len(found) - 1 for found in ids])
    odds, slopes = _odds_and_slopes(model, site, passage, last, (a, b))
    return AxisContexts(axis, passage, last, (a, b), multi_token, odds, slopes)


def steered_odds(
    model: LanguageModel, site: Site, passage: Passage, last: Tensor, targets: Any, change: Array
) -> NDArray[np.float64]:
    """Return the log-odds of the targets after the last token of each context, with a change of the edited rows."""
    with last_only(model.model, last):
        logits = model.logits(passage.tokens, site, passage.changed(change))[:, 0].cpu()
    found: NDArray[np.float64] = log_odds(logits.double(), targets).numpy()
    return found


def log_odds(logits: Tensor, targets: tuple[list[int], list[int]]) -> Tensor:
    """Return log p(one of a) - log p(one of b), shape (contexts,)."""
    a, b = targets
    return logits[:, a].logsumexp(-1) - logits[:, b].logsumexp(-1)


def _odds_and_slopes(
    model: LanguageModel, site: Site, passage: Passage, last: Tensor, targets: Any
) -> tuple[NDArray[np.float64], Array]:
    leaf = passage.rows.to(model.device, model.model.dtype, copy=True).requires_grad_()
    with (
        torch.enable_grad(),
        evaluating(model.model),
        hooks.replaced(model.model, model.blocks, site, lambda _: leaf),
        last_only(model.model, last),
    ):
        logits = model.model(input_ids=passage.tokens.to(model.device), use_cache=False).logits[:, 0]
        odds = log_odds(logits.double(), targets)
        (slopes,) = torch.autograd.grad(odds.sum(), leaf)
    return odds.detach().cpu().numpy(), (slopes.cpu().float() * passage.edited[..., None]).sum(1).numpy()


@contextmanager
def last_only(model: nn.Module, last: Tensor) -> Iterator[None]:
    """Within this context the model computes logits at one position of each context alone, shape (contexts, 1, .)."""

    def pick(_module: nn.Module, args: Any) -> Any:
        return (args[0][torch.arange(len(last)), last][:, None], *args[1:])

    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()
