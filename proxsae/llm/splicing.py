"""What a language model loses where reconstructions take the place of its activations: sums over batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxsae.formats.parts import normalised
from proxsae.llm.activations import Activations
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.metrics import ReconstructionSums, SparseAutoencoder, cross_entropy_sum, kl_sum, loss_metrics, reconstruct
from proxsae.training.blocks import columns_of


class SplicedSums:
    """Sums from which the metrics of autoencoders in a model follow, of each at each place.

    Parameters
    ----------
    model : LanguageModel
    saes : dict of str to object
    places : list of Site
        Where reconstructions are put, one place at a time; they are the last of the rows of a batch.

    Attributes
    ----------
    n_rows, n_predictions : int
        Rows replaced, and next tokens predicted.
    """

    def __init__(self, model: LanguageModel, saes: Mapping[str, SparseAutoencoder], places: list[Site]) -> None:
        self.model, self.saes = model, saes
        self.columns = dict(zip(places, columns_of([model.width(site) for site in places]), strict=True))
        self.rows = {(name, place): ReconstructionSums() for name in saes for place in places}
        self.clean, self.zero = 0.0, dict.fromkeys(places, 0.0)
        self.spliced, self.kl = dict.fromkeys(self.rows, 0.0), dict.fromkeys(self.rows, 0.0)
        self.n_rows = self.n_predictions = 0

    def add(self, batch: Activations, kept: NDArray[np.bool_]) -> None:
        """Run the model on a batch: as it is, and with the kept rows replaced by zeros and by reconstructions."""
        width = sum(self.model.width(site) for site in self.columns)
        before, rows = batch.rows[..., :-width], np.ascontiguousarray(batch.rows[..., -width:])
        y = rows[kept]
        x = before[kept] if before.size else y
        parts = {place: np.ascontiguousarray(rows[..., columns]) for place, columns in self.columns.items()}
        tokens = torch.from_numpy(batch.contexts.tokens.astype(np.int64)).to(self.model.device)
        targets = tokens[:, 1:], torch.from_numpy(~batch.contexts.is_padding[:, 1:]).to(self.model.device)

        def log_probabilities(place: Site, others: NDArray[np.floating]) -> Tensor:
            """Return log p of the next token at all positions but the last, with other rows at a place."""
            replaced = parts[place].copy()
            replaced[kept] = others
            return self.model.logits(tokens, place, torch.from_numpy(replaced))[:, :-1].float().log_softmax(-1)

        first = next(iter(parts))
        clean = log_probabilities(first, parts[first][kept])
        self.clean += cross_entropy_sum(clean, *targets)
        for place, part in parts.items():
            self.zero[place] += cross_entropy_sum(log_probabilities(place, np.zeros_like(part[kept])), *targets)
        for name, sae in self.saes.items():
            whole, codes = _reconstructed(sae, x if is_transcoder(sae) else y, y, name)
            for place, part in parts.items():
                reconstruction = whole[:, self.columns[place]]
                self.rows[name, place].add(part[kept], reconstruction, codes)
                spliced = log_probabilities(place, reconstruction)
                self.spliced[name, place] += cross_entropy_sum(spliced, *targets)
                self.kl[name, place] += kl_sum(clean, spliced, targets[1])
                del spliced  # before the next is there
        self.n_rows += len(x)
        self.n_predictions += int(targets[1].sum())

    def result(self, name: str, place: Site) -> dict[str, Any]:
        """Return the metrics of an autoencoder at a place."""
        losses = self.clean, self.spliced[name, place], self.zero[place], self.kl[name, place]
        counts = {"n_tokens": self.n_rows, "n_predictions": self.n_predictions}
        return {**self.rows[name, place].result(), **loss_metrics(*losses, self.n_predictions), **counts}


def is_transcoder(sae: SparseAutoencoder) -> bool:
    """Whether an autoencoder reads at one place and writes at another."""
    return bool(getattr(sae, "is_transcoder_", False))


def _reconstructed(sae: SparseAutoencoder, x: NDArray[Any], y: NDArray[Any], name: str) -> tuple[NDArray[Any], Any]:
    """Return reconstruction and codes of raw rows, which are normalised first where the model is for such."""
    rows = getattr(sae, "provenance_", {}).get("normalised_rows")
    if rows is None:
        return reconstruct(sae, x, y, name)
    x, shift, scale = normalised(x, rows)
    reconstruction, codes = reconstruct(sae, x, y, name)
    return shift + scale * reconstruction, codes
