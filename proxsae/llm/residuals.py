"""The residual stream of batches of contexts, and which of its rows count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from proxsae.llm.contexts import Contexts
from proxsae.llm.massive import Drop, dropped_positions, median_norm
from proxsae.llm.model import LanguageModel

_MEASURED_CONTEXTS = 32


class Residuals(NamedTuple):
    """A batch of contexts with the residual stream after a block."""

    contexts: Contexts
    residual: NDArray[np.float32]
    """Shape (contexts, length, n_features)."""
    norms: NDArray[np.float32]
    """Euclidean norms, shape (contexts, length)."""


def residuals(model: LanguageModel, block: int, batches: Iterable[Contexts]) -> Iterator[Residuals]:
    """Run each batch through the first `block` blocks; raise ValueError where the outcome is not finite."""
    for batch in batches:
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        residual = model.residual(tokens, block).float().cpu().numpy()
        norms = np.sqrt(np.einsum("bld,bld->bl", residual, residual))
        if not np.isfinite(norms[~batch.is_padding]).all():
            raise ValueError(
                f"{model.name} gives activations after block {block} that are not finite; load it with "
                "dtype=torch.float32."
            )
        yield Residuals(batch, residual, norms)


def measure(stream: Iterator[Residuals], drop: Drop, batch_size: int) -> tuple[list[int], float, Iterator[Residuals]]:
    """Decide on the first 32 contexts which positions are dropped, and what norm is the usual one.

    Returns
    -------
    positions : list of int
        The positions to leave out; see :func:`proxsae.llm.massive.dropped_positions`.
    median : float
        The median norm of the tokens of text at the other positions.
    stream : iterator of Residuals
        The whole stream, the batches measured included.
    """
    measured = list(islice(stream, -(-_MEASURED_CONTEXTS // batch_size)))
    if not measured:
        return [], 0.0, stream
    norms = np.concatenate([batch.norms for batch in measured])
    is_padding = np.concatenate([batch.contexts.is_padding for batch in measured])
    positions = dropped_positions(drop, norms, is_padding)
    is_kept = np.concatenate([batch.contexts.is_text for batch in measured])
    is_kept[:, positions] = False
    return positions, median_norm(norms, is_kept), chain(measured, stream)


def kept_rows(batch: Residuals, positions: list[int], norm_limit: float) -> NDArray[np.bool_]:
    """Return which rows (contexts, length) are kept: text, at no dropped position, of norm up to the limit."""
    kept = batch.contexts.is_text & (batch.norms <= norm_limit)
    kept[:, positions] = False
    return kept
