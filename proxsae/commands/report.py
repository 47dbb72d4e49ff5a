"""proxsae report: a page of all atoms of a trained SAE."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.harvested import store_and_model
from proxsae.commands.parser import OF_STORE, add_command, check_counts


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "report",
        run,
        "write a page of all atoms of a trained SAE: a table to search, their contexts, texts token by token",
        "proxsae report sae.safetensors activations --out report.html",
    )
    command.add_argument("sae", help="model written by proxsae fit, or of any library")
    command.add_argument("store", type=Path, help="activation store; its tokens are the examples shown")
    command.add_argument("--model", help="language model whose tokenizer prints tokens (default: that of the store)")
    command.add_argument("--block", nargs="+", metavar="PLACE", help=OF_STORE)
    command.add_argument("--tokens", type=int, default=300_000, help="rows of the store that count (default: 300000)")
    command.add_argument(
        "--read",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text to show; may be repeated (default: of the store)",
    )
    command.add_argument("--any-place", action="store_true", help="even where the SAE is of another model or block")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")


def run(options: argparse.Namespace) -> None:
    """Write the page."""
    from proxsae.data.outputs import check_output
    from proxsae.formats import load
    from proxsae.report import explorer_page, write_page

    check_counts(options, "tokens")
    check_output(options.out, options.sae, options.store)
    sae, name = load(options.sae), Path(options.sae).name
    store, model = store_and_model({name: sae}, options)
    html = explorer_page(
        sae,
        store.part(0, options.tokens),
        model,
        title=f"Features of {name}",
        texts=options.read,
        check_provenance=False,  # which store_and_model compares
    )
    print(f"report: {write_page(options.out, html).resolve()}")
