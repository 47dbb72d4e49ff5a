"""Evaluate sparse autoencoders inside a language model: splice the reconstruction back and see what the model loses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from proxsae.llm.activations import activations, kept_rows, large_rows, measure
from proxsae.llm.contexts import Packing, batches, check_contexts, excluded_ids, pack
from proxsae.llm.massive import Drop, check_drop, warn_of_large
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import check_same_place
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, documents, source_name
from proxsae.metrics import (
    ReconstructionSums,
    SparseAutoencoder,
    check_features,
    cross_entropy_sum,
    kl_sum,
    loss_metrics,
    reconstruct,
)


def evaluate(
    model: LanguageModel,
    sae: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    text: TextSource = None,
    *,
    block: Site | int | str,
    reads: Site | int | str | None = None,
    n_tokens: int = 8192,
    context_length: int = 128,
    batch_size: int = 8,
    drop: Drop = "auto",
    exclude_tokens: Sequence[int | str] = (),
    bos: bool = True,
    separator: int | str | None = "eos",
    concatenate: bool = True,
    split: str = "heldout",
    field: str = "text",
    seed: int | None = 0,
    check_provenance: bool = True,
    verbose: bool | int = True,
) -> dict[str, Any]:
    """Put the reconstructions of one sparse autoencoder, or several, into a language model, and measure what it loses.

    All see the same text. The model up to the site, the clean and the zero-ablated rest run once for all of them; each
    runs only the rest. Every variant replaces the same rows, those that :func:`proxsae.llm.harvest` would keep; dropped
    positions and special tokens stay clean.

    Parameters
    ----------
    model : LanguageModel
        From :func:`proxsae.llm.load_model`.
    sae : object or dict of str to object
        With ``transform`` (activations to codes, SciPy sparse or array) and ``inverse_transform`` (codes to
        activations), both in the raw units of the model.
    text : str, path, iterable of str or None
        See :func:`proxsae.llm.text.documents`; None is the embedded Wikipedia summaries.
    block : int, str or Site
        Where to replace; as in :func:`proxsae.llm.harvest`.
    reads : int, str or Site, optional
        Where transcoders read; `block` is then what they write, such as ``reads="mlp_in.15", block="mlp_out.15"``, and
        zero is the layer taken out. None: where the store was read that they were fitted on.
    n_tokens : int, default=8192
        Rows to replace, at least: whole batches are evaluated.
    context_length : int, default=128
        Tokens in a context; take that of the harvest.
    batch_size : int, default=8
        Contexts in a forward pass; three arrays (batch_size, context_length, n_vocabulary) of float32 are held.
    drop : "auto", int or list of int, default="auto"
        As in :func:`proxsae.llm.harvest`; ``store.info["drop"]`` repeats a harvest's choice.
    exclude_tokens : sequence of int or str, default=()
        As in :func:`proxsae.llm.harvest`.
    bos, separator, concatenate : bool, int or str, bool
        As in :func:`proxsae.llm.harvest`.
    split : {"heldout", "train", "all"}, default="heldout"
        Which documents.
    field : str, default="text"
        Text field of ``.jsonl`` files and datasets.
    seed : int or None, default=0
        Of the order of documents.
    check_provenance : bool, default=True
        Refuse an autoencoder that was fitted on a store from another model or another place than these.
    verbose : bool or int, default=True
        Show a progress bar (on a terminal only).

    Returns
    -------
    dict
        ``mse``, ``fvu``, ``explained_variance``, ``l0``, ``dead_fraction``, ``cross_entropy_clean``,
        ``cross_entropy_spliced``, ``cross_entropy_zero`` (nats per token), ``loss_recovered``, ``kl`` (nats per token),
        defined in :mod:`proxsae.metrics`; ``n_tokens`` (rows replaced) and
        ``n_predictions``. Of several autoencoders, a dict from name to such a dict.

    Raises
    ------
    ValueError
        If an argument is outside what is allowed, an autoencoder comes from another model or place, shapes do not fit,
        the text holds nothing to replace or to predict, or something is not finite.
    """
    saes = dict(sae) if isinstance(sae, Mapping) else {"sae": sae}
    if not saes:
        raise ValueError("sae is an empty dict; give at least one sparse autoencoder.")
    site = model.site(block)
    source = _source(model, saes, reads, site)
    sites, width = [site] if source == site else [source, site], model.width(site)
    for name, one in saes.items():
        read = source if _is_transcoder(one) else site
        if check_provenance:
            check_same_place(one, model, read, name)
            if _is_transcoder(one):
                check_same_place(one, model, site, name, "target_site")
        check_features(one, model.width(read), f"'{read}' of {model.name}", name)
    check_contexts(context_length, batch_size, n_tokens, model)
    check_drop(drop, context_length)

    texts = documents(text, split=split, field=field, seed=seed)
    packed = pack(texts, model.tokenizer, context_length, Packing(bos, separator, concatenate))
    excluded = excluded_ids(exclude_tokens, model.tokenizer)
    stream = activations(model, sites, batches(packed, model.tokenizer, context_length, batch_size, excluded))
    positions, medians, stream = measure(stream, drop)
    sums = {name: ReconstructionSums() for name in saes}
    spliced_loss, kl = dict.fromkeys(saes, 0.0), dict.fromkeys(saes, 0.0)
    clean_loss = zero_loss = 0.0
    n_rows = n_large = n_predictions = 0
    bar = tqdm(total=n_tokens, unit="tok", desc="evaluate", disable=None if verbose else True)
    with bar:
        while n_rows < n_tokens and (batch := next(stream, None)) is not None:
            kept = kept_rows(batch, positions, drop, medians)
            if not kept.any():  # nothing to replace
                continue
            before, rows = batch.rows[..., :-width], np.ascontiguousarray(batch.rows[..., -width:])
            y = rows[kept]
            x = before[kept] if before.size else y
            tokens = torch.from_numpy(batch.contexts.tokens.astype(np.int64)).to(model.device)
            is_target = torch.from_numpy(~batch.contexts.is_padding[:, 1:]).to(model.device)
            clean = _log_probabilities(model, tokens, site, rows)
            clean_loss += cross_entropy_sum(clean, tokens[:, 1:], is_target)
            zero = _log_probabilities(model, tokens, site, _replace(rows, kept, np.zeros_like(y)))
            zero_loss += cross_entropy_sum(zero, tokens[:, 1:], is_target)
            del zero
            for name, one in saes.items():
                reconstruction, codes = reconstruct(one, x if _is_transcoder(one) else y, y, name)
                sums[name].add(y, reconstruction, codes)
                spliced = _log_probabilities(model, tokens, site, _replace(rows, kept, reconstruction))
                spliced_loss[name] += cross_entropy_sum(spliced, tokens[:, 1:], is_target)
                kl[name] += kl_sum(clean, spliced, is_target)
                del spliced
            n_rows += len(x)
            n_large += int(large_rows(batch, medians)[kept].sum())
            n_predictions += int(is_target.sum())
            bar.update(len(x))
    where = f"The text '{source_name(text)}' (split='{split}')"
    if n_rows == 0:
        raise ValueError(f"{where} gave no token to evaluate on.")
    if n_predictions == 0:
        raise ValueError(f"{where} holds one token, so there is no next token to predict.")
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


def _is_transcoder(sae: SparseAutoencoder) -> bool:
    return bool(getattr(sae, "is_transcoder_", False))


def _source(model: LanguageModel, saes: Mapping[str, SparseAutoencoder], reads: Any, site: Site) -> Site:
    """Return where transcoders read, the site itself where there are none."""
    transcoders = {name: one for name, one in saes.items() if _is_transcoder(one)}
    told = [found["site"] for one in transcoders.values() if "site" in (found := getattr(one, "provenance_", {}))]
    if not transcoders:
        return site
    if reads is None and not told:
        raise ValueError(f"{next(iter(transcoders))} is a transcoder that does not say where it reads; give reads.")
    return model.site(told[0] if reads is None else reads)


def _log_probabilities(model: LanguageModel, tokens: Tensor, site: Site, rows: NDArray[np.float32]) -> Tensor:
    """Return log p of the next token at all positions but the last, given the activations at the site."""
    return model.logits(tokens, site, torch.from_numpy(rows))[:, :-1].float().log_softmax(-1)


def _replace(rows: NDArray[np.float32], kept: NDArray[np.bool_], others: NDArray[np.floating]) -> NDArray[np.float32]:
    replaced = rows.copy()
    replaced[kept] = others
    return replaced
