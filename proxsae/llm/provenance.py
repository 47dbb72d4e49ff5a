"""The provenance of an autoencoder, and a check that it is used at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxsae.data.store import ActivationStore
from proxsae.llm.contexts import Packing
from proxsae.llm.massive import Drop
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, source_name


def names_of(sites: Sequence[Site]) -> str:
    """Return the text by which a store and the file of a model name sites."""
    return " ".join(map(str, sites))


def header(
    model: LanguageModel,
    sites: Sequence[Site],
    text: TextSource,
    *,
    split: str,
    seed: int | None,
    drop: Drop,
    excluded: Sequence[int],
    context_length: int,
    batch_size: int,
    packing: Packing,
) -> dict[str, Any]:
    """Return the JSON fields that identify the rows of a harvest or of a stream."""
    widths = [model.width(site) for site in sites]
    return {
        "model": model.name,
        "model_type": model.model.config.model_type,
        "weights": model.fingerprint(),
        "site": names_of(sites),
        "widths": widths,
        "tokenizer": f"{model.name} ({len(model.tokenizer)} tokens)",
        "text": source_name(text),
        "split": split,
        "seed": seed,
        "drop": drop if isinstance(drop, str | int) else [int(position) for position in drop],
        "excluded_tokens": list(excluded),
        "n_features": sum(widths),
        "context_length": context_length,
        "batch_size": batch_size,
        **packing.non_defaults(),
    }


def check_same_place(sae: Any, model: LanguageModel, site: Site | str, name: str, of: str = "site") -> None:
    """Raise ValueError if the autoencoder was fitted on the activations of another model or another site.

    Several sites are one text, as in a store. ``sae.provenance_`` comes from ``store.info`` or a file; its
    ``target_site`` is the place of the targets of a transcoder. An autoencoder that names no model is accepted. Models
    are the same if their weights are, whatever their names; where the weights are not known or have another precision,
    the last part of the name decides.
    """
    has_weights = (getattr(sae, "provenance_", None) or {}).get("weights")
    _check_same(sae, model.name, model.fingerprint() if has_weights else "", str(site), name, of)


def no_place(sae: Any, name: str, argument: str, of: str = "site") -> ValueError:
    """Return the error for an autoencoder that names no site, which may name a hook of another library."""
    hook = (getattr(sae, "provenance_", None) or {}).get(of.replace("site", "hook"))
    says = (
        f"names the hook {hook!r}, which is no place of ours"
        if hook
        else "does not say where its activations come from"
    )
    return ValueError(f"{name} {says}; give {argument}")


def at_place_of(sae: Any, store: ActivationStore, name: str, *, check_provenance: bool = True) -> ActivationStore:
    """Return of a store of several sites the one that the autoencoder reads; a crosscoder reads all.

    Raises
    ------
    ValueError
        If the autoencoder is for rows that are normalised first, does not say which of several sites it reads, or,
        unless `check_provenance` is false, was fitted on another model or another site than those of the rows.
    """
    check_raw_rows(sae, name)
    told = (getattr(sae, "provenance_", None) or {}).get("site")
    if len(store.sites) > 1 and told != store.info["site"]:
        if told is not None:
            store = store.at(told)
        elif getattr(sae, "n_features_in_", store.shape[1]) != store.shape[1]:
            raise no_place(sae, name, f"store.at(site), site one of {', '.join(map(repr, store.sites))}")
    if check_provenance:
        _check_same(sae, store.info["model"], store.info["weights"], store.info["site"], name)
    return store


def check_raw_rows(sae: Any, name: str) -> None:
    """Raise ValueError if the autoencoder is for rows that are normalised first: the rows of a store are raw."""
    if rows := (getattr(sae, "provenance_", None) or {}).get("normalised_rows"):
        raise ValueError(
            f"{name} is for rows that are normalised first ({rows}), and would be given raw ones: only evaluate "
            "normalises them"
        )


def _check_same(sae: Any, model: str, weights: str, site: str, name: str, of: str = "site") -> None:
    """Raise ValueError if the autoencoder was fitted on another place, or a model of another name and other weights."""
    provenance = getattr(sae, "provenance_", None) or {}
    told = (provenance.get(field) for field in ("model", "weights", of))
    name_then, weights_then, site_then = (value if isinstance(value, str) else None for value in told)
    if weights_then and weights_then.partition(":")[0] == weights.partition(":")[0]:
        is_same = weights_then == weights
    else:
        is_same = name_then is None or _last_part(name_then) == _last_part(model)
    if is_same and site_then in (None, site):
        return
    then = f"'{site_then or 'some place'}' of {name_then or 'some model'}"
    changed = " with other weights" if name_then == model and not is_same else ""
    raise ValueError(
        f"{name} was fitted on {then}{changed}, but is to be used on '{site}' of {model}; check_provenance=False "
        "allows it."
    )


def _last_part(name: str) -> str:
    """Return the name of a model without its owner or folder."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
