"""The activations of batches of contexts at a site, and which of their rows count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from proxsae.llm.contexts import Contexts
from proxsae.llm.massive import Drop, dropped_positions, median_norm
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site

_MEASURED_CONTEXTS = 32


class Activations(NamedTuple):
    """A batch of contexts with the activations at a site."""

    contexts: Contexts
    rows: NDArray[np.float32]
    """Shape (contexts, length, n_features); (0, length, n_features) if the batch holds no text."""
    norms: NDArray[np.float32]
    """Euclidean norms, shape (contexts, length)."""


def activations(model: LanguageModel, site: Site, batches: Iterable[Contexts]) -> Iterator[Activations]:
    """Run each batch up to the site; raise ValueError where the outcome is not finite."""
    for batch in batches:
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        rows = model.read(tokens, site).float().cpu().numpy()
        norms = np.sqrt(np.einsum("bld,bld->bl", rows, rows))
        if not np.isfinite(norms[~batch.is_padding]).all():
            raise ValueError(
                f"{model.name} gives activations at '{site}' that are not finite; load it with dtype=torch.float32."
            )
        # nobody reads the rows of a batch without text, and hundreds of such batches may be held while one measures
        yield Activations(batch, rows if batch.is_text.any() else np.empty((0, *rows.shape[1:]), np.float32), norms)


def measure(stream: Iterator[Activations], drop: Drop) -> tuple[list[int], float, Iterator[Activations]]:
    """Decide on the first 32 contexts that hold text which positions are dropped, and what norm is the usual one.

    Returns
    -------
    positions : list of int
        The positions to leave out; see :func:`proxsae.llm.massive.dropped_positions`.
    median : float
        The median norm of the tokens of text at the other positions.
    stream : iterator of Activations
        The whole stream, the batches measured included.
    """
    measured: list[Activations] = []
    with_text = 0
    while with_text < _MEASURED_CONTEXTS and (batch := next(stream, None)) is not None:
        measured.append(batch)
        with_text += int(batch.contexts.is_text.any(axis=1).sum())
    if not measured:
        return [], 0.0, stream
    norms = np.concatenate([batch.norms for batch in measured])
    is_padding = np.concatenate([batch.contexts.is_padding for batch in measured])
    positions = dropped_positions(drop, norms, is_padding)
    is_kept = np.concatenate([batch.contexts.is_text for batch in measured])
    is_kept[:, positions] = False
    return positions, median_norm(norms, is_kept), chain(measured, stream)


def kept_rows(batch: Activations, positions: list[int], norm_limit: float) -> NDArray[np.bool_]:
    """Return which rows (contexts, length) are kept: text, at no dropped position, of norm up to the limit."""
    kept = batch.contexts.is_text & (batch.norms <= norm_limit)
    kept[:, positions] = False
    return kept
