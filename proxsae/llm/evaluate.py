"""Evaluate sparse autoencoders inside a language model: splice the reconstruction back and see what the model loses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from proxsae.llm.contexts import batches, check_contexts, pack
from proxsae.llm.hooks import check_block
from proxsae.llm.massive import MASSIVE_RATIO, Drop, check_drop, norm_limit, warn_of_large
from proxsae.llm.metrics import cross_entropy_sum, kl_sum, loss_metrics
from proxsae.llm.model import LanguageModel
from proxsae.llm.residuals import kept_rows, measure, residuals
from proxsae.llm.text import TextSource, documents, source_name
from proxsae.metrics import ReconstructionSums, SparseAutoencoder, check_features, reconstruct


def evaluate(
    model: LanguageModel,
    sae: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    text: TextSource = None,
    *,
    block: int,
    n_tokens: int = 8192,
    context_length: int = 128,
    batch_size: int = 8,
    drop: Drop = "auto",
    split: str = "heldout",
    field: str = "text",
    seed: int | None = 0,
    verbose: bool | int = True,
) -> dict[str, Any]:
    """Evaluate one sparse autoencoder, or several on the same text, on the residual stream after `block` blocks.

    The first blocks, the clean and the zero-ablated rest run once for all of them; each runs only the rest. Every
    variant replaces the same rows, those that :func:`proxsae.llm.harvest` would keep; dropped positions and special
    tokens stay clean.

    Parameters
    ----------
    model : LanguageModel
        From :func:`proxsae.llm.load_model`.
    sae : object or dict of str to object
        With ``transform`` (activations to codes, SciPy sparse or array) and ``inverse_transform`` (codes to
        activations), both in the raw units of the model.
    text : str, path, iterable of str or None
        See :func:`proxsae.llm.text.documents`; None is the embedded Wikipedia summaries.
    block : int
        Number of blocks applied, 1 to n_blocks - 1.
    n_tokens : int, default=8192
        Rows to replace, at least: whole batches are evaluated.
    context_length : int, default=128
        Tokens in a context; take that of the harvest.
    batch_size : int, default=8
        Contexts in a forward pass; three arrays (batch_size, context_length, n_vocabulary) of float32 are held.
    drop : "auto", int or list of int, default="auto"
        As in :func:`proxsae.llm.harvest`; ``store.info["drop"]`` repeats a harvest's choice.
    split : {"heldout", "train", "all"}, default="heldout"
        Which documents.
    field : str, default="text"
        Text field of ``.jsonl`` files and datasets.
    seed : int or None, default=0
        Of the order of documents.
    verbose : bool or int, default=True
        Show a progress bar (on a terminal only).

    Returns
    -------
    dict
        ``mse``, ``fvu``, ``explained_variance``, ``l0``, ``dead_fraction``, ``cross_entropy_clean``,
        ``cross_entropy_spliced``, ``cross_entropy_zero`` (nats per token), ``loss_recovered``, ``kl`` (nats per token),
        defined in :mod:`proxsae.metrics` and :mod:`proxsae.llm.metrics`; ``n_tokens`` (rows replaced) and
        ``n_predictions``. Of several autoencoders, a dict from name to such a dict.

    Raises
    ------
    ValueError
        If an argument is outside what is allowed, shapes do not fit, or something is not finite.
    """
    saes = dict(sae) if isinstance(sae, Mapping) else {"sae": sae}
    if not saes:
        raise ValueError("sae is an empty dict; give at least one sparse autoencoder.")
    for name, one in saes.items():
        check_features(one, model.n_features, model.name, name)
    check_block(block, model.n_blocks, model.name)
    check_contexts(context_length, batch_size, n_tokens, model)
    check_drop(drop, context_length)

    packed = pack(documents(text, split=split, field=field, seed=seed), model.tokenizer, context_length)
    stream = residuals(model, block, batches(packed, model.tokenizer, context_length, batch_size))
    positions, median, stream = measure(stream, drop, batch_size)
    sums = {name: ReconstructionSums() for name in saes}
    spliced_loss, kl = dict.fromkeys(saes, 0.0), dict.fromkeys(saes, 0.0)
    clean_loss = zero_loss = 0.0
    n_rows = n_large = n_predictions = 0
    bar = tqdm(total=n_tokens, unit="tok", desc="evaluate", disable=None if verbose else True)
    with bar:
        while n_rows < n_tokens and (batch := next(stream, None)) is not None:
            kept = kept_rows(batch, positions, norm_limit(drop, median))
            x = batch.residual[kept]
            tokens = torch.from_numpy(batch.contexts.tokens.astype(np.int64)).to(model.device)
            is_target = torch.from_numpy(~batch.contexts.is_padding[:, 1:]).to(model.device)
            clean = _log_probabilities(model, tokens, block, batch.residual)
            clean_loss += cross_entropy_sum(clean, tokens[:, 1:], is_target)
            zero = _log_probabilities(model, tokens, block, _replace(batch.residual, kept, np.zeros_like(x)))
            zero_loss += cross_entropy_sum(zero, tokens[:, 1:], is_target)
            del zero
            for name, one in saes.items():
                reconstruction, codes = reconstruct(one, x, name)
                sums[name].add(x, reconstruction, codes)
                residual = _replace(batch.residual, kept, reconstruction)
                spliced = _log_probabilities(model, tokens, block, residual)
                spliced_loss[name] += cross_entropy_sum(spliced, tokens[:, 1:], is_target)
                kl[name] += kl_sum(clean, spliced, is_target)
                del spliced
            n_rows += len(x)
            n_large += int((batch.norms[kept] > MASSIVE_RATIO * median).sum())
            n_predictions += int(is_target.sum())
            bar.update(len(x))
    where = f"The text '{source_name(text)}' (split='{split}')"
    if n_rows == 0:
        raise ValueError(f"{where} gave no token to evaluate on.")
    warn_of_large(n_large, n_rows)
    if n_rows < n_tokens:
        warnings.warn(f"{where} ended after {n_rows} of the {n_tokens} tokens asked for.", stacklevel=2)
    results = {
        name: {
            **sums[name].result(),
            **loss_metrics(clean_loss, spliced_loss[name], zero_loss, kl[name], n_predictions),
            "n_tokens": n_rows,
            "n_predictions": n_predictions,
        }
        for name in saes
    }
    return results if isinstance(sae, Mapping) else results["sae"]


def _log_probabilities(model: LanguageModel, tokens: Tensor, block: int, residual: NDArray[np.float32]) -> Tensor:
    """Return log p of the next token at all positions but the last, given the residual stream after `block` blocks."""
    inner = torch.from_numpy(residual).to(model.device, model.model.dtype)
    return model.logits(tokens, block, inner)[:, :-1].float().log_softmax(-1)


def _replace(residual: NDArray[np.float32], kept: NDArray[np.bool_], rows: NDArray[np.floating]) -> NDArray[np.float32]:
    replaced = residual.copy()
    replaced[kept] = rows
    return replaced
