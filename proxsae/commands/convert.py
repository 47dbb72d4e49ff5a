"""proxsae convert: a SAE of one library, written for another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "convert",
        run,
        "read a sparse autoencoder of any library and write it for another",
        "proxsae convert sae.safetensors gpt2-sae --format saelens",
    )
    command.add_argument("source", metavar="IN", help="a file, a folder, or hf://user/repository/path")
    command.add_argument("out", metavar="OUT", type=Path, help="the file or folder to write")
    command.add_argument("--format", required=True, help="of OUT, such as saelens; proxsae is ours")
    command.add_argument("--from", dest="source_format", default="auto", help="of IN (default: by its files)")
    command.add_argument("-R", "--regularizer", help="of IN, where its file cannot say it, such as 0.1*L1+NonNegative")
    command.add_argument(
        "--signed",
        choices=["double", "native"],
        default="double",
        help="signed codes as pairs of non-negative ones, or as AbsTopK where the format has it (default: double)",
    )


def run(options: argparse.Namespace) -> None:
    """Write a model for another library."""
    from proxsae.data.outputs import check_not_read
    from proxsae.formats import load, save
    from proxsae.formats.convert import check_folder, format_named
    from proxsae.formats.files import one_line

    chosen = format_named(options.format)  # a file may take minutes to read or fetch
    if chosen is not None:
        check_folder(options.out.expanduser(), chosen)
    for name in ("", *(chosen.written if chosen else ())):
        check_not_read(options.out / name, options.source)
    sae = load(options.source, options.source_format, options.regularizer)
    save(sae, options.out, options.format, options.signed)
    n_components, n_features = sae.components_.shape
    R = one_line(str(getattr(sae, "regularizer_", "none")))
    print(f"{options.source}: {n_components} atoms, {n_features} features, R = {R}")
    print(f"saved {options.out} for {options.format}")
