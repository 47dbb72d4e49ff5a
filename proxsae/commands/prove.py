"""proxsae prove: the catalogue, proved."""

from __future__ import annotations

import argparse
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(commands, "prove", run, "prove the catalogue with z3 and print the table", "proxsae prove")
    command.add_argument("--timeout", type=float, default=60.0, help="CPU seconds for each theorem (default: 60)")


def run(options: argparse.Namespace) -> int:
    """Print a line a theorem; the exit status is 1 if one was refuted."""
    from proxsae.verification.proofs.catalogue import prove_all

    refuted = 0
    for proof in prove_all(options.timeout):
        print(f"{proof.verdict:25s} {proof.seconds:7.2f} s  {proof.regularizer}: {proof.theorem}", flush=True)
        refuted += proof.verdict == "counterexample"
    return 1 if refuted else 0
