"""What the parsers of several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

BLOCK = 'blocks before the residual stream is read, such as 15, or another place: "mlp_out.15", "attn_out.15", "embed"'


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command to the parser of all, with an example in its help, and return its own parser."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def add_model(command: argparse.ArgumentParser) -> None:
    """Add the options that name a language model and a text."""
    command.add_argument("--model", help="Hugging Face name, folder or .gguf file (default: the embedded SmolLM2-135M)")
    command.add_argument("--text", help=".txt or .jsonl file, or Hugging Face dataset (default: embedded Wikipedia)")
    command.add_argument("--field", default="text", help="text field of a .jsonl file or dataset (default: text)")
