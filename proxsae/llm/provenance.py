"""The provenance of an autoencoder, and a check that it is used at the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    provenance = _provenance(sae)
    here = {"model": model.name, "weights": model.fingerprint() if provenance.get("weights") else ""}
    _check_same(f"{name} was fitted on", provenance, of, str(site), here)


def no_place(sae: Any, name: str, argument: str, of: str = "site") -> ValueError:
    """Return the error for an autoencoder that names no site, which may name a hook of another library."""
    hook = _provenance(sae).get(of.replace("site", "hook"))
    says = (
        f"names the hook {hook!r}, which is no place of ours"
        if hook
        else "does not say where its activations come from"
    )
    return ValueError(f"{name} {says}; give {argument}")


def at_place_of(
    saes: Mapping[str, Any],
    store: ActivationStore,
    model: LanguageModel | None = None,
    *,
    check_provenance: bool = True,
) -> ActivationStore:
    """Return of a store of several sites the one that the autoencoders read; a crosscoder reads all.

    An autoencoder may name the model of the store or `model`, which are the same under two names.

    Raises
    ------
    ValueError
        If an autoencoder is for rows that are normalised first, does not say which of several sites it reads or reads
        none of them, two read different ones, or, unless `check_provenance` is false, one was fitted on another model
        or another site than those of the rows, or the rows are of another model than `model`.
    """
    for name, sae in saes.items():
        check_raw_rows(sae, name)
    here = [store.info]
    if check_provenance and model is not None:
        loaded = {"model": model.name, "weights": model.fingerprint()}
        _check_same(f"'{store.path}' was harvested at", store.info, "site", store.info["site"], loaded)
        here.append(loaded)
    read = {}
    for name, sae in saes.items():
        provenance = _provenance(sae)
        told, part = provenance.get("site"), store
        takes_all = told not in store.sites and getattr(sae, "n_features_in_", store.shape[1]) == store.shape[1]
        if len(store.sites) > 1 and not takes_all:
            if told is None:
                raise no_place(sae, name, f"store.at(site), site one of {', '.join(map(repr, store.sites))}")
            part = store.at(told)
        if check_provenance:
            _check_same(f"{name} was fitted on", provenance, "site", part.info["site"], *here)
        read[part.info["site"]] = part
    if len(read) > 1:
        raise ValueError(f"the autoencoders read at {' and '.join(map(repr, read))}: give those of one place at a time")
    return next(iter(read.values()), store)


def check_raw_rows(sae: Any, name: str) -> None:
    """Raise ValueError if the autoencoder is for rows that are normalised first: the rows of a store are raw."""
    if rows := _provenance(sae).get("normalised_rows"):
        raise ValueError(
            f"{name} is for rows that are normalised first ({rows}), and would be given raw ones: only evaluate "
            "normalises them"
        )


def _provenance(sae: Any) -> dict[str, str]:
    """Return what an autoencoder says in texts of the activations that it was fitted on."""
    provenance = getattr(sae, "provenance_", None) or {}
    return {field: value for field, value in provenance.items() if isinstance(value, str)}


def _check_same(subject: str, then: Mapping[str, Any], of: str, site: str, *here: Mapping[str, Any]) -> None:
    """Raise ValueError if a provenance is of another site, or of none of the models of one or two others.

    `of` is the field of its site. A site or model that it does not name is accepted.
    """
    is_same = _is_same_model(then, here)
    if is_same and then.get(of) in (None, site):
        return
    name_then, name = then.get("model"), here[0]["model"]
    place = f"'{then.get(of) or 'some place'}' of {name_then or 'some model'}"
    changed = " with other weights" if name_then == name and not is_same else ""
    raise ValueError(
        f"{subject} {place}{changed}, but is to be used on '{site}' of {name}; check_provenance=False allows it."
    )


def _is_same_model(then: Mapping[str, Any], here: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a provenance has the weights of one of others, or where none has its precision, the name of one."""
    weights, name = then.get("weights") or "", then.get("model")
    known = [one["weights"] for one in here if weights and one["weights"]]
    equal = [weights == other for other in known if weights.partition(":")[0] == other.partition(":")[0]]
    return any(equal or [name is None or _last_part(name) == _last_part(one["model"]) for one in here])


def _last_part(name: str) -> str:
    """Return the name of a model without its owner or folder."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
