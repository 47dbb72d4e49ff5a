"""The activations of batches of contexts at a site, and which rows are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from proxsae.llm.contexts import Contexts
from proxsae.llm.massive import MASSIVE_RATIO, Drop, dropped_positions, median_norm
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site

_MEASURED_CONTEXTS = 32


class Activations(NamedTuple):
    """A batch of contexts with the activations at one site or at several, side by side."""

    contexts: Contexts
    rows: NDArray[np.float32]
    """Shape (contexts, length, n_features); (0, length, n_features) if the batch holds no text."""
    norms: NDArray[np.float32]
    """Euclidean norms, shape (sites, contexts, length)."""


def activations(model: LanguageModel, sites: Sequence[Site], batches: Iterable[Contexts]) -> Iterator[Activations]:
    """Run each batch up to the last of the sites; raise ValueError where the outcome is not finite."""
    for batch in batches:
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        parts = [part.float().cpu().numpy() for part in model.read_all(tokens, sites)]
        norms = np.stack([np.sqrt(np.einsum("bld,bld->bl", part, part)) for part in parts])
        for site, of_site in zip(sites, norms, strict=True):
            if not np.isfinite(of_site[~batch.is_padding]).all():
                raise ValueError(
                    f"{model.name} gives activations at '{site}' that are not finite; load it with dtype=torch.float32."
                )
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        # nobody reads the rows of a batch without text, and hundreds of such batches may be held while one measures
        yield Activations(batch, rows if batch.is_text.any() else np.empty((0, *rows.shape[1:]), np.float32), norms)


def measure(stream: Iterator[Activations], drop: Drop) -> tuple[list[int], list[float], Iterator[Activations]]:
    """Decide by the first 32 contexts that hold text which positions are dropped, and measure the median norm.

    Returns
    -------
    positions : list of int
        The positions to leave out at some site; see :func:`proxsae.llm.massive.dropped_positions`.
    medians : list of float
        The median norm of the tokens of text at the other positions, of each site.
    stream : iterator of Activations
        The whole stream, the batches measured included.
    """
    measured: list[Activations] = []
    with_text = 0
    while with_text < _MEASURED_CONTEXTS and (batch := next(stream, None)) is not None:
        measured.append(batch)
        with_text += int(batch.contexts.is_text.any(axis=1).sum())
    if not measured:
        return [], [], stream
    norms = np.concatenate([batch.norms for batch in measured], axis=1)
    is_padding = np.concatenate([batch.contexts.is_padding for batch in measured])
    positions = sorted({at for of_site in norms for at in dropped_positions(drop, of_site, is_padding)})
    is_kept = np.concatenate([batch.contexts.is_text for batch in measured])
    is_kept[:, positions] = False
    return positions, [median_norm(of_site, is_kept) for of_site in norms], chain(measured, stream)


def kept_rows(batch: Activations, positions: list[int], drop: Drop, medians: list[float]) -> NDArray[np.bool_]:
    """Return which rows (contexts, length) are kept: text, at no dropped position, massive at no site."""
    kept = batch.contexts.is_text.copy()
    if drop == "auto":
        kept &= ~large_rows(batch, medians)
    kept[:, positions] = False
    return kept


def large_rows(batch: Activations, medians: list[float]) -> NDArray[np.bool_]:
    """Return which rows (contexts, length) have a norm of more than 10 times the median at some site."""
    limits = MASSIVE_RATIO * np.array(medians, dtype=np.float64)
    large: NDArray[np.bool_] = np.any(batch.norms > limits[:, None, None], axis=0)
    return large
