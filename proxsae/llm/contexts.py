"""From documents to contexts: rows of token ids of one length, with a mask of what is text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DOCUMENTS_AT_ONCE = 64


class Contexts(NamedTuple):
    """A batch of contexts, all arrays of shape (contexts, length)."""

    tokens: NDArray[np.int32]
    """Token ids."""
    is_text: NDArray[np.bool_]
    """False at special tokens and at padding."""
    is_padding: NDArray[np.bool_]
    """True behind the end of the text, in the last context only."""


def pack(documents: Iterable[str], tokenizer: Any, length: int) -> Iterator[list[int]]:
    """Pack documents into contexts of `length` token ids; only the last may be shorter.

    Every context starts with the tokenizer's beginning-of-text token (the end-of-text token if it has none; nothing if
    it has neither). Documents follow one another, each closed by the end-of-text token, and run on into the next
    context.
    """
    start, end = _boundary_tokens(tokenizer)
    head = [] if start is None else [start]
    tail = [] if end is None else [end]
    room = length - len(head)
    held: list[int] = []
    source = iter(documents)
    while texts := list(islice(source, _DOCUMENTS_AT_ONCE)):
        for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            held += ids
            held += tail
        whole = len(held) // room * room
        for at in range(0, whole, room):
            yield head + held[at : at + room]
        held = held[whole:]
    if held:
        yield head + held


def batches(packed: Iterator[list[int]], tokenizer: Any, length: int, batch_size: int) -> Iterator[Contexts]:
    """Group packed contexts into batches of `batch_size`; only the last may be smaller.

    The last context is padded on the right, which cannot change what a causal model computes before it.
    """
    special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int32)
    _, end = _boundary_tokens(tokenizer)
    while rows := list(islice(packed, batch_size)):
        tokens = np.full((len(rows), length), 0 if end is None else end, dtype=np.int32)
        is_padding = np.ones((len(rows), length), dtype=bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
            is_padding[index, : len(row)] = False
        yield Contexts(tokens, ~is_padding & ~np.isin(tokens, special), is_padding)


def _boundary_tokens(tokenizer: Any) -> tuple[int | None, int | None]:
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return (end if start is None else start), (start if end is None else end)


def check_contexts(length: int, batch_size: int, n_tokens: int, model: Any) -> None:
    """Raise ValueError unless the sizes are positive and the model can read contexts that long."""
    for name, value, least in (("context_length", length, 2), ("batch_size", batch_size, 1), ("n_tokens", n_tokens, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r} was given; an integer of at least {least} is allowed.")
    longest = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
    if longest and length > longest:
        raise ValueError(f"context_length={length} was given, but {model.name} reads at most {longest} tokens at once.")
