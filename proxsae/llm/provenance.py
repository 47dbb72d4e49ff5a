"""Where an autoencoder comes from, and whether that is where it is about to be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxsae.llm.massive import Drop
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, source_name


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
) -> dict[str, Any]:
    """Return what identifies the rows of a harvest or of a stream, in JSON."""
    widths = [model.width(site) for site in sites]
    return {
        "model": model.name,
        "weights": model.fingerprint(),
        "site": " ".join(map(str, sites)),
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
    }


def check_same_place(sae: Any, model: LanguageModel, site: Site, name: str) -> None:
    """Raise ValueError if the autoencoder was fitted on a store from another model or another site.

    ``sae.provenance_`` is what ``store.info`` said; an autoencoder without it may come from anywhere. The model is the
    same if its weights are, whatever its name; where they are of another precision, so that they cannot be compared,
    the name decides.
    """
    provenance = getattr(sae, "provenance_", None) or {}
    name_then, weights_then, site_then = (provenance.get(field) for field in ("model", "weights", "site"))
    if not (isinstance(name_then, str) and isinstance(weights_then, str) and isinstance(site_then, str)):
        return
    weights = model.fingerprint()
    is_comparable = weights_then.partition(":")[0] == weights.partition(":")[0]
    is_same = weights_then == weights if is_comparable else name_then == model.name
    if is_same and site_then == str(site):
        return
    changed = " with other weights" if name_then == model.name and not is_same else ""
    raise ValueError(
        f"{name} was fitted on '{site_then}' of {name_then}{changed}, but is to be used on '{site}' of "
        f"{model.name}; check_provenance=False allows it."
    )
