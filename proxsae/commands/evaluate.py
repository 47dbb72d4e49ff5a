"""proxsae evaluate: trained SAEs, measured inside the language model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from proxsae.commands.harvested import of_harvests
from proxsae.commands.parser import BLOCK, add_command, add_model, add_packing, context_of


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
    replaced = "rows to replace, at least (default: 8192); whole batches are run"
    command.add_argument("--tokens", type=int, default=8192, help=replaced)
    command.add_argument("--context", type=int, help="tokens in a context (default: as in the harvest, or 128)")
    add_packing(command, "as in the harvest")
    which = "which documents (default: heldout)"
    command.add_argument("--split", choices=["heldout", "train", "all"], default="heldout", help=which)


def run(options: argparse.Namespace) -> None:
    """Print the table of the trained models."""
    from proxsae.formats import load
    from proxsae.llm import evaluate, load_model
    from proxsae.report import format_table, table_row

    saes: dict[str, Any] = {path: load(path) for path in options.saes}
    given = {"block": options.block, "reads": options.reads}
    given = {name: value for name, value in given.items() if value is not None} | context_of(options)
    settings = {"context_length": 128, **of_harvests(saes, given)}
    if options.refined:
        from proxsae.training import Refined

        saes |= {f"{path}, refined": Refined(sae) for path, sae in saes.items()}
    results = evaluate(
        load_model(options.model),
        saes,
        options.text,
        n_tokens=options.tokens,
        check_provenance=not options.any_place,
        **settings,
        split=options.split,
        field=options.field,
    )
    lines = _lines(results)
    print(format_table([table_row(name, result) for name, result in lines]))
    n_rows = lines[0][1]["n_tokens"]
    print(f"{n_rows:,} rows replaced, {options.tokens:,} asked for: whole batches are run", file=sys.stderr)


def _lines(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return a line for each model, or for each place of each."""
    places = {name: {"": result} if "fvu" in result else result for name, result in results.items()}
    return [(f"{name} at {place}" if place else name, one) for name in places for place, one in places[name].items()]
