"""Evaluate sparse autoencoders inside a language model: splice the reconstruction in and measure the loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from proxsae.llm.activations import activations, kept_rows, large_rows, measure
from proxsae.llm.contexts import Packing, batches, check_contexts, excluded_ids, pack
from proxsae.llm.harvest import Hook, sites_of
from proxsae.llm.massive import Drop, check_drop, warn_of_large
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import check_same_place, names_of, no_place
from proxsae.llm.sites import Site
from proxsae.llm.splicing import SplicedSums, is_transcoder
from proxsae.llm.text import TextSource, documents, source_name
from proxsae.metrics import SparseAutoencoder, check_features


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
    """Put the reconstructions of sparse autoencoders into a language model, and measure what the model loses.

    All autoencoders see the same text. The model up to the site, and the clean and the zero-ablated rest of it, run
    once for all; for each autoencoder only the rest of the model runs. Every variant replaces the same rows, those that
    :func:`proxsae.llm.harvest` would keep; dropped positions and special tokens stay clean.

    The places of a crosscoder are replaced one at a time, each in its own forward pass, with the reconstruction of that
    place from the common code: if all were replaced at once, the last residual stream would hide those before it.

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
        Where transcoders read; `block` is then where they write, such as ``reads="mlp_in.15", block="mlp_out.15"``, and
        zero ablation removes the layer. None: the place from which the rows of their training came.
    n_tokens : int, default=8192
        Rows to replace, at least: whole batches are evaluated.
    context_length : int, default=128
        Tokens in a context; use the context length of the harvest.
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
        Seed of the order of documents.
    check_provenance : bool, default=True
        Refuse an autoencoder that was fitted on a store from another model or another place than these.
    verbose : bool or int, default=True
        Show a progress bar (on a terminal only).

    Returns
    -------
    dict
        ``mse``, ``fvu``, ``explained_variance``, ``l0``, ``dead_fraction``, ``cross_entropy_clean``,
        ``cross_entropy_spliced``, ``cross_entropy_zero`` (nats per token), ``loss_recovered``, ``kl`` (nats per token),
        defined in :mod:`proxsae.metrics`; ``n_tokens`` (rows replaced) and ``n_predictions``. For several places the
        result is a dict from place to such a dict; for several autoencoders a dict from name to the result of each.

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
    _check_saes(model, saes, source, places, check_provenance=check_provenance)
    check_contexts(context_length, batch_size, n_tokens, model)
    check_drop(drop, context_length)

    texts = documents(text, split=split, field=field, seed=seed)
    packed = pack(texts, model.tokenizer, context_length, Packing(bos, separator, concatenate))
    excluded = excluded_ids(exclude_tokens, model.tokenizer)
    sites = places if source == places else [*source, *places]
    stream = activations(model, sites, batches(packed, model.tokenizer, context_length, batch_size, excluded))
    positions, medians, stream = measure(stream, drop)
    sums, n_large = SplicedSums(model, saes, places), 0
    with tqdm(total=n_tokens, unit="tok", desc="evaluate", disable=None if verbose else True) as bar:
        while sums.n_rows < n_tokens and (batch := next(stream, None)) is not None:
            kept = kept_rows(batch, positions, drop, medians)
            if kept.any():  # else there is nothing to replace
                sums.add(batch, kept)
                n_large += int(large_rows(batch, medians)[kept].sum())
                bar.update(int(kept.sum()))

    where = f"The text '{source_name(text)}' (split='{split}')"
    if sums.n_rows == 0:
        raise ValueError(f"{where} gave no token to evaluate on.")
    if sums.n_predictions == 0:
        raise ValueError(f"{where} holds one token, so there is no next token to predict.")
    warn_of_large(n_large, sums.n_rows)
    if sums.n_rows < n_tokens:
        warnings.warn(f"{where} ended after {sums.n_rows} of the {n_tokens} tokens asked for.", stacklevel=2)
    results: dict[str, Any] = {name: {str(place): sums.result(name, place) for place in places} for name in saes}
    if len(places) == 1:
        results = {name: of_places[str(places[0])] for name, of_places in results.items()}
    return results if isinstance(sae, Mapping) else results["sae"]


def _check_saes(
    model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    source: list[Site],
    places: list[Site],
    *,
    check_provenance: bool,
) -> None:
    """Raise ValueError where an autoencoder is of other features than it would be given, or of another place."""
    for name, sae in saes.items():
        read = source if is_transcoder(sae) else places
        at = names_of(read)
        if check_provenance:
            check_same_place(sae, model, at, name)
            if is_transcoder(sae):
                check_same_place(sae, model, names_of(places), name, "target_site")
        check_features(sae, sum(model.width(site) for site in read), f"'{at}' of {model.name}", name)


def _harvested_at(saes: Mapping[str, SparseAutoencoder]) -> str:
    """Return the place that autoencoders say their activations, or those they decode to, come from."""
    return _told({name: (one, "target_site" if is_transcoder(one) else "site") for name, one in saes.items()}, "block")


def _source(model: LanguageModel, saes: Mapping[str, SparseAutoencoder], reads: Any, places: list[Site]) -> list[Site]:
    """Return where transcoders read, the places themselves where there are none."""
    transcoders = {name: (one, "site") for name, one in saes.items() if is_transcoder(one)}
    if not transcoders:
        return places
    telling = {name: pair for name, pair in transcoders.items() if _told_by(*pair) is not None}
    return sites_of(model, _told(telling or transcoders, "reads") if reads is None else reads)


def _told(fields: Mapping[str, tuple[SparseAutoencoder, str]], argument: str) -> str:
    """Return the place that the fields of all provenances tell; raise ValueError, naming an argument, if there is none.

    `fields` has for each name an autoencoder and the name of its field.
    """
    told = {name: _told_by(*pair) for name, pair in fields.items()}
    if silent := next((name for name, place in told.items() if place is None), None):
        sae, field = fields[silent]
        raise no_place(sae, silent, argument, field)
    if len(set(told.values())) > 1:
        raise ValueError(f"{', '.join(f'{name} is of {place!r}' for name, place in told.items())}; give {argument}")
    return str(next(iter(told.values())))


def _told_by(sae: SparseAutoencoder, field: str) -> Any:
    """Return a field of the provenance of an autoencoder, None where it has none."""
    return (getattr(sae, "provenance_", None) or {}).get(field)
