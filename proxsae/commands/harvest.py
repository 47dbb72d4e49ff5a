"""proxsae harvest: activations of a language model, written to disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.parser import BLOCK, add_command, add_model, add_packing, packing_of


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "harvest",
        run,
        "write activations of a language model to disk",
        "proxsae harvest --text notes.txt --block 15 --tokens 100000 --out activations",
    )
    add_model(command)
    command.add_argument("--block", required=True, nargs="+", help=f"{BLOCK}; several stand side by side in the rows")
    command.add_argument("--tokens", type=int, required=True, help="rows to store")
    command.add_argument("--context", type=int, default=128, help="tokens in a context (default: 128)")
    add_packing(command)
    dtypes = ["float32", "float16", "bfloat16"]
    command.add_argument("--dtype", choices=dtypes, default="float32", help="of the stored rows (default: float32)")
    command.add_argument("--out", type=Path, required=True, help="folder of the activation store")


def run(options: argparse.Namespace) -> None:
    """Write an activation store."""
    from proxsae.data.files import check_writable
    from proxsae.data.shard import INDEX
    from proxsae.llm import harvest, load_model

    check_writable(options.out / INDEX)
    model = load_model(options.model)
    harvest(
        model,
        options.text,
        hook=options.block,
        n_tokens=options.tokens,
        out=options.out,
        context_length=options.context,
        dtype=options.dtype,
        field=options.field,
        **packing_of(options),
    )
