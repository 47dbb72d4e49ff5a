"""Rows for a training straight from a language model, without a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxsae.data.stream import BUFFER_ROWS, Block, Stream, check_buffer
from proxsae.llm.activations import activations, kept_rows, measure
from proxsae.llm.contexts import Packing, batches, check_contexts, excluded_ids, pack
from proxsae.llm.massive import Drop, check_drop
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import header
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, documents


class ActivationStream(Stream):
    """The activations at one place in a language model, computed as a training asks for them and kept nowhere.

    ``ProxSAE.fit(stream)`` and ``fit_many(saes, stream)`` train on it. The rows are those that
    :func:`proxsae.llm.harvest` would store, shuffled within blocks of `buffer_rows`: their order is a function of
    (seed, epoch, position). While the autoencoder is trained on a block, a thread runs the model for the next;
    ``history_["waiting"]`` is the share of each step in which the training waited for it.

    A training that needs more rows than the text has begins the text again and runs the model again: a store is cheaper
    for rows that are read several times. A training that is resumed from a checkpoint runs the model again from the
    beginning up to the rows of the checkpoint.

    Parameters
    ----------
    model, text, block, context_length, batch_size, drop, exclude_tokens, bos, separator, concatenate, split, field
        As in :func:`proxsae.llm.harvest`.
    n_tokens : int, optional
        Rows of one pass; None: all rows of the text.
    seed : int, default 0
        Seed of the order of documents, which is the same in every epoch, and of the order of rows in a block.
    buffer_rows : int, default 65_536
        Rows of a block. Two blocks are in memory, and a third, from which the scale of the data is measured.

    Raises
    ------
    ValueError
        If an argument is outside what is allowed.
    """

    measured = ("median_norm", "median_norms", "model_type")

    def __init__(
        self,
        model: LanguageModel,
        text: TextSource = None,
        *,
        block: Site | int | str,
        n_tokens: int | None = None,
        context_length: int = 128,
        batch_size: int = 16,
        drop: Drop = "auto",
        exclude_tokens: Sequence[int | str] = (),
        bos: bool = True,
        separator: int | str | None = "eos",
        concatenate: bool = True,
        split: str = "train",
        field: str = "text",
        seed: int = 0,
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        self.model, self.text, self.site = model, text, model.site(block)
        check_contexts(context_length, batch_size, 1 if n_tokens is None else n_tokens, model)
        check_drop(drop, context_length)
        check_buffer(seed, buffer_rows)
        self.n_rows, self.context_length, self.batch_size, self.drop = n_tokens, context_length, batch_size, drop
        self.excluded = excluded_ids(exclude_tokens, model.tokenizer)
        self.packing = Packing(bos, separator, concatenate)
        self.split, self.field, self.seed, self.buffer_rows = split, field, seed, buffer_rows
        self.info = header(
            model,
            [self.site],
            text,
            split=split,
            seed=seed,
            drop=drop,
            excluded=self.excluded,
            context_length=context_length,
            batch_size=batch_size,
            packing=self.packing,
        )

    def __repr__(self) -> str:
        return f"ActivationStream({self.info['model']}, '{self.site}', text='{self.info['text']}', seed={self.seed})"

    def blocks(self, epoch: int, is_closed: Callable[[], bool]) -> Iterator[Block]:  # noqa: ARG002
        """Yield the rows of the text in blocks."""
        held: list[NDArray[Any]] = []
        n_held = 0
        for rows in self._rows():
            if is_closed():
                return
            held.append(rows)
            n_held += len(rows)
            while n_held >= self.buffer_rows:
                rows = np.concatenate(held)
                held, n_held = [rows[self.buffer_rows :]], n_held - self.buffer_rows
                yield self.buffer_rows, lambda rows=rows: rows[: self.buffer_rows]  # type: ignore[misc]
        if n_held:
            yield n_held, lambda: np.concatenate(held)

    def _rows(self) -> Iterator[NDArray[Any]]:
        """Yield the rows that are kept of each forward pass, `n_tokens` in all."""
        texts = documents(self.text, split=self.split, field=self.field, seed=self.seed)
        packed = pack(texts, self.model.tokenizer, self.context_length, self.packing)
        contexts = batches(packed, self.model.tokenizer, self.context_length, self.batch_size, self.excluded)
        stream = activations(self.model, [self.site], contexts)
        positions, medians, stream = measure(stream, self.drop)
        self.info |= {"dropped_positions": positions, "median_norms": medians}
        self.info["median_norm"] = medians[0] if medians else 0.0
        left = self.n_rows
        while left != 0 and (batch := next(stream, None)) is not None:
            rows = batch.rows[np.nonzero(kept_rows(batch, positions, self.drop, medians))][:left]
            left = None if left is None else left - len(rows)
            yield rows
