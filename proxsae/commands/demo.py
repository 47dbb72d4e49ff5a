"""proxsae demo: the demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "demo",
        run,
        "train four SAEs on SmolLM2-135M and write a report",
        "proxsae demo --fast --out report.html",
    )
    command.add_argument("--fast", action="store_true", help="a small run, under 90 seconds")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="the report (default: report.html)")
    where = "activations and models go here (default: proxsae-demo)"
    command.add_argument("--folder", type=Path, default=Path("proxsae-demo"), help=where)


def run(options: argparse.Namespace) -> None:
    """Run the demo and print its table."""
    from proxsae.data.outputs import check_output
    from proxsae.demo import FAST, FULL, run_demo
    from proxsae.report import format_table

    check_output(options.out, options.folder)
    table = run_demo(options.out, options.folder, FAST if options.fast else FULL)
    print(format_table(table))
    print(f"report: {options.out.resolve()}")
