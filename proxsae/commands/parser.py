"""What the parsers of several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

BLOCK = 'blocks before the residual stream is read, such as 15, or another place: "mlp_out.15", "attn_out.15", "embed"'
OF_STORE = "which of several sites in the store (default: that of the harvest of the SAE)"
OF_STORE_OR_SAE = "(default: that of the store; of several places, or without a store, that of the SAE's harvest)"
OURS = "the embedded SmolLM2-135M"
OPTIONS = {
    "block": "--block",
    "reads": "--reads",
    "context_length": "--context",
    "bos": "--bos or --no-bos",
    "separator": "--separator",
    "concatenate": "--concatenate or --no-concatenate",
    "exclude_tokens": "--exclude-tokens",
}  # by the argument of harvest or evaluate that they set


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command to the parser of all, with an example in its help, and return its own parser."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: {example}"
    )
    command._negative_number_matcher = re.compile(r"-[\d.]")  # "-0.1*L1" is no option, for the parser of R to refuse
    command.set_defaults(run=run)
    return command


def add_model(command: argparse.ArgumentParser, default: str = OURS) -> None:
    """Add the options that name a language model and a text."""
    command.add_argument("--model", help=f"Hugging Face name, folder or .gguf file (default: {default})")
    command.add_argument("--text", help=".txt or .jsonl file, or Hugging Face dataset (default: embedded Wikipedia)")
    command.add_argument("--field", default="text", help="text field of a .jsonl file or dataset (default: text)")


def add_packing(command: argparse.ArgumentParser, default: str = "") -> None:
    """Add the options of how documents become contexts; options that are not given are as `default` says."""

    def add(name: str, of_default: str, summary: str, **options: Any) -> None:
        command.add_argument(
            name, default=argparse.SUPPRESS, help=f"{summary} (default: {default or of_default})", **options
        )

    choice = {"action": argparse.BooleanOptionalAction}
    add("--bos", "yes", "contexts start with the beginning-of-text token", **choice)
    closes = 'the token that closes a document: "eos", "bos", "none", an id or the text of one token'
    add("--separator", "eos", closes, type=_separator, metavar="TOKEN")
    add("--concatenate", "yes", "documents run on into the next context, else each begins one of its own", **choice)
    left_out = "tokens to leave out beside the special ones: ids, or the text of one token each"
    add("--exclude-tokens", "none", left_out, nargs="*", type=_token, metavar="TOKEN")


def packing_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :func:`add_packing` that were given, as arguments of harvest and evaluate."""
    names = ("bos", "separator", "concatenate", "exclude_tokens")
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def context_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return :func:`packing_of` and the option of the length of a context, where it was given."""
    length = {} if options.context is None else {"context_length": options.context}
    return length | packing_of(options)


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Raise ValueError unless the options of these names are at least 1, before minutes of work begin."""
    for name in names:
        if (count := getattr(options, name)) < 1:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} {count} was given; an integer of at least 1 is allowed")


def _token(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _separator(text: str) -> int | str | None:
    return None if text == "none" else _token(text)
