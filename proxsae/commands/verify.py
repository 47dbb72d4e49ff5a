"""proxsae verify: the proximal operator of a regularizer, checked."""

from __future__ import annotations

import argparse
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "verify",
        run,
        "check the proximal operator of a regularizer by every oracle that applies",
        'proxsae verify "0.1*L1 + NonNegative"',
    )
    command.add_argument("regularizer", help='such as "0.1*L1 + NonNegative"')


def run(options: argparse.Namespace) -> int:
    """Print the report of every check; the exit status is 1 if one failed."""
    from proxsae.verification import verify

    report = verify(options.regularizer)
    print(report)
    return 0 if report.passed else 1
