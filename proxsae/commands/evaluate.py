"""proxsae evaluate: trained SAEs, measured inside the language model."""

from __future__ import annotations

import argparse
from typing import Any

from proxsae.commands.parser import BLOCK, add_command, add_model, add_packing, packing_of


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "evaluate",
        run,
        "measure trained SAEs inside the language model",
        "proxsae evaluate sae.safetensors --block 15 --tokens 8192",
    )
    command.add_argument("saes", nargs="+", help="models written by proxsae fit, or of any library")
    add_model(command)
    where = f"{BLOCK}; several of a crosscoder (default: that of the harvest, where the model's file names it)"
    command.add_argument("--block", nargs="+", metavar="PLACE", help=where)
    reads = "where transcoders read (default: that of their harvest)"
    command.add_argument("--reads", nargs="+", metavar="PLACE", help=reads)
    command.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    refined = "also with the codes that a solver finds from those of the encoder (minutes for thousands of tokens)"
    command.add_argument("--refined", action="store_true", help=refined)
    command.add_argument("--tokens", type=int, default=8192)
    command.add_argument("--context", type=int, help="tokens in a context (default: as in the harvest, or 128)")
    add_packing(command, "as in the harvest")
    command.add_argument("--split", choices=["heldout", "train", "all"], default="heldout")


def run(options: argparse.Namespace) -> None:
    """Print the table of the trained models."""
    from proxsae.formats import load
    from proxsae.llm import evaluate, load_model
    from proxsae.report import format_table, table_row

    saes: dict[str, Any] = {path: load(path) for path in options.saes}
    provenance: dict[str, Any] = next(
        (found for sae in saes.values() if (found := getattr(sae, "provenance_", None))), {}
    )
    if options.refined:
        from proxsae.training import Refined

        saes |= {f"{path}, refined": Refined(sae) for path, sae in saes.items()}
    block = options.block or provenance.get("target_site") or provenance.get("site")
    if block is None:
        raise ValueError("no file says where its activations come from; give --block")
    results = evaluate(
        load_model(options.model),
        saes,
        options.text,
        block=block,
        reads=options.reads,
        n_tokens=options.tokens,
        context_length=options.context or provenance.get("context_length", 128),
        check_provenance=not options.any_place,
        **_packing(provenance) | packing_of(options),
        split=options.split,
        field=options.field,
    )
    print(format_table([table_row(name, result) for name, result in _lines(results)]))


def _lines(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return a line for each model, or for each place of each."""
    places = {name: {"": result} if "fvu" in result else result for name, result in results.items()}
    return [(f"{name} at {place}" if place else name, one) for name in places for place, one in places[name].items()]


def _packing(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's file says of how documents became contexts."""
    names = {name: name for name in ("bos", "separator", "concatenate")} | {"excluded_tokens": "exclude_tokens"}
    return {argument: provenance[field] for field, argument in names.items() if field in provenance}
