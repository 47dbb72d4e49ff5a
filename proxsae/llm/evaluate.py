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

from proxsae.formats.parts import normalised
from proxsae.llm.activations import activations, kept_rows, large_rows, measure
from proxsae.llm.contexts import Packing, batches, check_contexts, excluded_ids, pack
from proxsae.llm.harvest import Hook, sites_of
from proxsae.llm.massive import Drop, check_drop, warn_of_large
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import check_same_place, names_of
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
from proxsae.training.blocks import columns_of


def evaluate(
    model: LanguageModel,
    sae: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    text: TextSource = None,
    *,
    block: Hook | Sequence[Hook] | None = None,
    reads: Hook | Sequence[Hook] | None = None,
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

    The places of a crosscoder are replaced one at a time, each in a forward pass of its own with the reconstruction
    that one code gives of it: together, the last of several residual streams would hide all before it.

    Parameters
    ----------
    model : LanguageModel
        From :func:`proxsae.llm.load_model`.
    sae : object or dict of str to object
        With ``transform`` (activations to codes, SciPy sparse or array) and ``inverse_transform`` (codes to
        activations), both in the raw units of the model.
    text : str, path, iterable of str or None
        See :func:`proxsae.llm.text.documents`; None is the embedded Wikipedia summaries.
    block : int, str, Site or a list of them, optional
        Where to replace; as in :func:`proxsae.llm.harvest`. Several, also as one text ``"block.7 block.15"``, where
        they are side by side in the rows of the autoencoders. None: the place of their harvest, of transcoders that
        of the targets.
    reads : int, str, Site or a list of them, optional
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
        defined in :mod:`proxsae.metrics`; ``n_tokens`` (rows replaced) and ``n_predictions``. Of several places, a dict
        from place to such a dict; of several autoencoders, one from name to what there is of each.

    Raises
    ------
    ValueError
        If an argument is outside what is allowed, an autoencoder comes from another model or place, shapes do not fit,
        the text holds nothing to replace or to predict, or something is not finite.
    """
    saes = dict(sae) if isinstance(sae, Mapping) else {"sae": sae}
    if not saes:
        raise ValueError("sae is an empty dict; give at least one sparse autoencoder.")
    places = sites_of(model, _harvested_at(saes) if block is None else block)
    source = _source(model, saes, reads, places)
    columns, width = _columns(model, places), _width(model, places)
    at, read_at = names_of(places), names_of(source)
    for name, one in saes.items():
        reads_elsewhere = _is_transcoder(one)
        if check_provenance:
            check_same_place(one, model, read_at if reads_elsewhere else at, name)
            if reads_elsewhere:
                check_same_place(one, model, at, name, "target_site")
        n_features = _width(model, source) if reads_elsewhere else width
        check_features(one, n_features, f"'{read_at if reads_elsewhere else at}' of {model.name}", name)
    check_contexts(context_length, batch_size, n_tokens, model)
    check_drop(drop, context_length)

    texts = documents(text, split=split, field=field, seed=seed)
    packed = pack(texts, model.tokenizer, context_length, Packing(bos, separator, concatenate))
    excluded = excluded_ids(exclude_tokens, model.tokenizer)
    sites = places if source == places else [*source, *places]
    stream = activations(model, sites, batches(packed, model.tokenizer, context_length, batch_size, excluded))
    positions, medians, stream = measure(stream, drop)
    sums = {(name, place): ReconstructionSums() for name in saes for place in places}
    spliced_loss, kl, zero_loss = dict.fromkeys(sums, 0.0), dict.fromkeys(sums, 0.0), dict.fromkeys(places, 0.0)
    clean_loss = 0.0
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
            parts = {place: np.ascontiguousarray(rows[..., columns[place]]) for place in places}
            clean = _log_probabilities(model, tokens, places[0], parts[places[0]])
            clean_loss += cross_entropy_sum(clean, tokens[:, 1:], is_target)
            for place, part in parts.items():
                zero = _log_probabilities(model, tokens, place, _replace(part, kept, np.zeros_like(part[kept])))
                zero_loss[place] += cross_entropy_sum(zero, tokens[:, 1:], is_target)
                del zero
            for name, one in saes.items():
                whole, codes = _reconstructed(one, x if _is_transcoder(one) else y, y, name)
                for place, part in parts.items():
                    reconstruction = whole[:, columns[place]]
                    sums[name, place].add(part[kept], reconstruction, codes)
                    spliced = _log_probabilities(model, tokens, place, _replace(part, kept, reconstruction))
                    spliced_loss[name, place] += cross_entropy_sum(spliced, tokens[:, 1:], is_target)
                    kl[name, place] += kl_sum(clean, spliced, is_target)
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
        (name, place): {
            **sums[name, place].result(),
            **loss_metrics(clean_loss, spliced_loss[name, place], zero_loss[place], kl[name, place], n_predictions),
            "n_tokens": n_rows,
            "n_predictions": n_predictions,
        }
        for name, place in sums
    }
    of_saes: dict[str, Any] = {
        name: results[name, places[0]] if len(places) == 1 else {str(place): results[name, place] for place in places}
        for name in saes
    }
    return of_saes if isinstance(sae, Mapping) else of_saes["sae"]


def _reconstructed(sae: SparseAutoencoder, x: NDArray[Any], y: NDArray[Any], name: str) -> tuple[NDArray[Any], Any]:
    """Return reconstruction and codes of raw rows, which are normalised first where the model is for such."""
    rows = getattr(sae, "provenance_", {}).get("normalised_rows")
    if rows is None:
        return reconstruct(sae, x, y, name)
    x, shift, scale = normalised(x, rows)
    reconstruction, codes = reconstruct(sae, x, y, name)
    return shift + scale * reconstruction, codes


def _is_transcoder(sae: SparseAutoencoder) -> bool:
    return bool(getattr(sae, "is_transcoder_", False))


def _harvested_at(saes: Mapping[str, SparseAutoencoder]) -> str:
    """Return the place that autoencoders say their activations, or those they decode to, come from."""
    field = {name: "target_site" if _is_transcoder(one) else "site" for name, one in saes.items()}
    told = {name: (getattr(one, "provenance_", None) or {}).get(field[name]) for name, one in saes.items()}
    if silent := next((name for name, place in told.items() if place is None), None):
        raise ValueError(f"{silent} does not say where its activations come from; give block")
    if len(set(told.values())) > 1:
        raise ValueError(f"{', '.join(f'{name} is of {place!r}' for name, place in told.items())}; give block")
    return str(next(iter(told.values())))


def _source(model: LanguageModel, saes: Mapping[str, SparseAutoencoder], reads: Any, places: list[Site]) -> list[Site]:
    """Return where transcoders read, the places themselves where there are none."""
    transcoders = {name: one for name, one in saes.items() if _is_transcoder(one)}
    told = [found["site"] for one in transcoders.values() if "site" in (found := getattr(one, "provenance_", {}))]
    if not transcoders:
        return places
    if reads is None and not told:
        raise ValueError(f"{next(iter(transcoders))} is a transcoder that does not say where it reads; give reads.")
    return sites_of(model, told[0] if reads is None else reads)


def _width(model: LanguageModel, sites: list[Site]) -> int:
    return sum(model.width(site) for site in sites)


def _columns(model: LanguageModel, sites: list[Site]) -> dict[Site, slice]:
    """Return where each site stands in the rows."""
    return dict(zip(sites, columns_of([model.width(site) for site in sites]), strict=True))


def _log_probabilities(model: LanguageModel, tokens: Tensor, site: Site, rows: NDArray[np.float32]) -> Tensor:
    """Return log p of the next token at all positions but the last, given the activations at the site."""
    return model.logits(tokens, site, torch.from_numpy(rows))[:, :-1].float().log_softmax(-1)


def _replace(rows: NDArray[np.float32], kept: NDArray[np.bool_], others: NDArray[np.floating]) -> NDArray[np.float32]:
    replaced = rows.copy()
    replaced[kept] = others
    return replaced
