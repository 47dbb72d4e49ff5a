"""Where an autoencoder comes from, and whether that is where it is about to be used."""

from __future__ import annotations

from typing import Any

from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site


def check_origin(sae: Any, model: LanguageModel, site: Site, name: str) -> None:
    """Raise ValueError if the autoencoder was fitted on a store from another model or another site.

    ``sae.origin_`` is what the index of that store says; an autoencoder without it, or with None, may come from
    anywhere. The model is the same if its weights are, whatever its name; where the precision differs, and the weights
    cannot be compared, the name decides.
    """
    origin = getattr(sae, "origin_", None)
    if not origin:
        return
    weights = model.fingerprint()
    comparable = origin["weights"].partition(":")[0] == weights.partition(":")[0]
    same = origin["weights"] == weights if comparable else origin["model"] == model.name
    if same and origin["site"] == str(site):
        return
    changed = " with other weights" if origin["model"] == model.name and not same else ""
    raise ValueError(
        f"{name} was fitted on '{origin['site']}' of {origin['model']}{changed}, but is to be evaluated on '{site}' of "
        f"{model.name}; check_origins=False allows it."
    )
