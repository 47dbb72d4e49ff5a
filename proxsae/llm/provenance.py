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
    provenance = getattr(sae, "provenance_", None) or {}
    told = (provenance.get(field) for field in ("model", "weights", of))
    name_then, weights_then, site_then = (value if isinstance(value, str) else None for value in told)
    weights = model.fingerprint() if weights_then else ""
    if weights_then and weights_then.partition(":")[0] == weights.partition(":")[0]:
        is_same = weights_then == weights
    else:
        is_same = name_then is None or _last_part(name_then) == _last_part(model.name)
    if is_same and site_then in (None, str(site)):
        return
    then = f"'{site_then or 'some place'}' of {name_then or 'some model'}"
    changed = " with other weights" if name_then == model.name and not is_same else ""
    raise ValueError(
        f"{name} was fitted on {then}{changed}, but is to be used on '{site}' of "
        f"{model.name}; check_provenance=False allows it."
    )


def no_place(sae: Any, name: str, argument: str, of: str = "site") -> ValueError:
    """Return the error for an autoencoder that names no site, which may name a hook of another library."""
    hook = (getattr(sae, "provenance_", None) or {}).get(of.replace("site", "hook"))
    says = (
        f"names the hook {hook!r}, which is no place of ours"
        if hook
        else "does not say where its activations come from"
    )
    return ValueError(f"{name} {says}; give {argument}")


def at_place_of(sae: Any, store: ActivationStore) -> ActivationStore:
    """Return of a store of several sites the one that the autoencoder reads; a crosscoder reads all."""
    told = (getattr(sae, "provenance_", None) or {}).get("site")
    return store if len(store.sites) == 1 or told in (None, store.info["site"]) else store.at(told)


def check_raw_rows(sae: Any, name: str) -> None:
    """Raise ValueError if the autoencoder is for rows that are normalised first: the rows of a store are raw."""
    if rows := (getattr(sae, "provenance_", None) or {}).get("normalised_rows"):
        raise ValueError(
            f"{name} is for rows that are normalised first ({rows}), and would be given raw ones: only evaluate "
            "normalises them"
        )


def _last_part(name: str) -> str:
    """Return the name of a model without its owner or folder."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
