"""The command line: ``proxsae COMMAND``, one file of :mod:`proxsae.commands` each."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

# In the order of the help. A new command is one new file with a function `add`, and its name here.
COMMANDS = (
    "demo",
    "harvest",
    "fit",
    "evaluate",
    "report",
    "serve",
    "sweep",
    "probe",
    "steer",
    "steer_bench",
    "axes",
    "replicate",
    "convert",
    "verify",
    "prove",
)

# Arguments that messages of the library name, and the options that set them.
OPTIONS = {
    "check_provenance=False": "--any-place",
    "; give block": "; give --block",
    "; give reads": "; give --reads",
    "; give store.at(site), site one of": "; give --block, one of",
    "give dtype='float32'": "give --dtype float32",
    "hook=": "--block ",
    "block=": "--block ",
    "n_tokens=": "--tokens ",
    "context_length=": "--context ",
    "temperature=": "--temperature ",
    "give checkpoint_dir": "give --checkpoint",
    "shards=": "--shards ",
    "and what you define or import": "and what the modules of --import define",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a mistake of the user is one line on standard error."""
    options = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a token that cannot be printed shall not end minutes of work

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"proxsae {options.command}: {message}", file=sys.stderr)

    try:
        with _sigterm_as_ctrl_c(options.command), warnings.catch_warnings():
            warnings.showwarning = show
            _import(options.modules)
            status = options.run(options)
        if sys.stdout is not None:  # nor closed before the start
            sys.stdout.flush()
    except BrokenPipeError:
        print(f"proxsae {options.command}: nothing reads the output any more", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return 1
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"proxsae {options.command}: {_with_options(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"proxsae {options.command}: interrupted", file=sys.stderr)
        return 130
    return int(status or 0)


def _import(modules: Sequence[str]) -> None:
    """Import modules of the user, from the working directory too, so that `parse` and files know their classes."""
    if modules:
        sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        importlib.import_module(name)


@contextmanager
def _sigterm_as_ctrl_c(command: str) -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that what is running is ended and cleared away.

    A handler that is there stays, and so does SIG_IGN. A fit by several processes has none: one that waits for the
    others, in C, would not end by it.
    """
    by_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and current_thread() is main_thread()
    is_shared = command == "fit" and os.environ.get("WORLD_SIZE", "1") != "1"
    replaces = by_default and not is_shared
    if replaces:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if replaces:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _with_options(sentence: str) -> str:
    """Return a sentence with options in place of the arguments of functions, but not within paths."""
    for argument, option in OPTIONS.items():
        if argument.endswith("="):
            sentence = re.sub(rf"(?<![^\s(]){argument}(?![^\s]*/)", option, sentence)
        else:
            sentence = sentence.replace(argument, option)
    return sentence


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="proxsae", description="Sparse autoencoders with the regularizer you specify."
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="a module that defines regularizers of your own, in the working directory or installed; may be repeated",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in COMMANDS:
        importlib.import_module(f"proxsae.commands.{name}").add(commands)
    return parser
