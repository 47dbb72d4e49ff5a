"""The store of a command: one that is given, or a temporary harvest like that of the trained models."""

from __future__ import annotations

import argparse
from typing import Any

from proxsae.commands.parser import OPTIONS, add_packing, context_of


def add_harvest(command: argparse.ArgumentParser) -> None:
    """Add the options of a temporary harvest."""
    command.add_argument("--context", type=int, help="tokens in a context (default: as in the harvest of the SAE)")
    add_packing(command, "as in the harvest of the SAE")


def check_store(options: argparse.Namespace) -> None:
    """Raise ValueError where options of a new harvest are given beside a store, which is harvested already."""
    given = ["text"] * (options.text is not None) + ["field"] * (options.field != "text") + [*context_of(options)]
    if options.store and given:
        names = ", ".join(OPTIONS.get(name, f"--{name}") for name in given)
        raise ValueError(
            f"{names} cannot change '{options.store}', which is harvested already; leave out one of the two"
        )


def store_and_model(saes: dict[str, Any], options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the store that is given, at the place in --block or of the SAEs, and the model, by default that of it.

    Raises
    ------
    ValueError
        If the store has no such site, or, without --any-place, store, SAEs and model are not of one place and model.
    """
    from proxsae.llm import ActivationStore, Site, load_model
    from proxsae.llm.provenance import at_place_of, no_place

    store = ActivationStore(options.store)
    given = options.block.split() if isinstance(options.block, str) else options.block or []
    sites = [str(Site.of(one)) for one in given] or list(store.sites)
    if sites != list(store.sites):
        store = store.at(" ".join(sites))
    for name, sae in saes.items():
        told = getattr(sae, "provenance_", None) or {}
        if told.get("hook") and not (told.get("site") or given or options.any_place):
            raise no_place(sae, name, "--block")
    model = load_model(options.model or store.info["model"])
    return at_place_of(saes, store, model, check_provenance=not options.any_place), model


def harvest_like(saes: dict[str, Any], model: Any, block: Any, options: argparse.Namespace, folder: str) -> Any:
    """Return a store of a place in a model, harvested into a folder with the settings of the models' own harvests."""
    from proxsae.llm import harvest

    settings = of_harvests(saes, {"block": block, **context_of(options)})
    settings.pop("reads", None)  # of a transcoder, what is in block
    return harvest(model, options.text, n_tokens=options.tokens, out=folder, field=options.field, **settings)


def of_harvests(saes: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the harvests in the files, as arguments of evaluate, in favour of those given.

    Raises
    ------
    ValueError
        If two files differ in a setting, since all rows of a table are measured alike.
    """
    found: dict[str, tuple[str, Any]] = {}
    for path, sae in saes.items():
        for argument, value in _told(sae).items():
            first, of_first = found.setdefault(argument, (path, value))
            if argument not in given and value != of_first:
                raise ValueError(
                    f"{path} was harvested with {argument}={value!r} and {first} with {argument}={of_first!r}; give "
                    f"{OPTIONS[argument]} for both"
                )
    return {argument: value for argument, (_, value) in found.items()} | given


def _told(sae: Any) -> dict[str, Any]:
    """Return the settings of the harvest in the file of a model; our files name those that are not default."""
    from proxsae.llm.contexts import PACKING

    provenance = getattr(sae, "provenance_", None) or {}
    told = {**PACKING._asdict(), **provenance} if "weights" in provenance else dict(provenance)
    told["block"] = told.get("site")
    if getattr(sae, "is_transcoder_", False):
        told["reads"], told["block"] = told.get("site"), told.get("target_site")
    names = {name: name for name in OPTIONS} | {"exclude_tokens": "excluded_tokens"}
    known = {argument: told[field] for argument, field in names.items() if field in told}
    return {argument: value for argument, value in known.items() if argument == "separator" or value is not None}
