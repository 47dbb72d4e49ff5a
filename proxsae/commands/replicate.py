"""proxsae replicate: claims about an activation, tested by one command after another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.parser import BLOCK, add_command, add_model, check_counts


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "replicate",
        run,
        "sweep, axes, steer-bench and probe one after another, on one page; run again, it goes on",
        "proxsae replicate --block 15 --out replication",
    )
    add_model(command)
    command.add_argument("--device", default="auto", help="a torch device for the sweep (default: CUDA, if there)")
    command.add_argument("--block", default="15", help=f"{BLOCK} (default: 15)")
    command.add_argument("--tokens", type=int, default=208_896, help="rows to harvest (default: 208896)")
    command.add_argument("--context", type=int, default=128, help="tokens in a context (default: 128)")
    command.add_argument("--heldout-tokens", type=int, default=2048, help="on which to measure (default: 2048)")
    command.add_argument("--l0", default="16,32,64", help="non-zeros a token (default: 16,32,64)")
    command.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    command.add_argument("--components", type=int, default=1152, metavar="P", help="atoms (default: 1152)")
    command.add_argument("--steps", type=int, default=200, help="of each training (default: 200)")
    command.add_argument("--batch-size", type=int, default=1024, help="rows a step (default: 1024)")
    command.add_argument("--learning-rate", type=float, default=2e-3, help="peak step size of Adam (default: 0.002)")
    command.add_argument("--only", nargs="+", default=[], metavar="AXIS", help="steer these axes alone")
    command.add_argument("--out", type=Path, default=Path("replication"), help="folder (default: replication)")


def run(options: argparse.Namespace) -> int:
    """Run what is not done yet and write the page; the exit status is 1 if a step failed or was left out."""
    from proxsae.commands.steer_bench import chosen
    from proxsae.commands.sweep import source_of, training_of
    from proxsae.data.files import check_writable
    from proxsae.llm.concepts import read_axes
    from proxsae.studies.replication import replicate, steps

    check_counts(options, "tokens", "heldout_tokens", "seeds", "components", "steps", "batch_size")
    chosen(read_axes(), options.only)  # raises for unknown ones now, and not after hours
    page = options.out / "replication.html"
    check_writable(page)
    levels, training = training_of(options)
    todo = steps(source_of(options), training, levels, options.seeds, options.out, options.device, options.only)
    not_done = replicate(todo, options.out)
    print(f"page: {page.resolve()}")
    if not_done:
        print(f"not done: {', '.join(not_done)}")
    return int(bool(not_done))
