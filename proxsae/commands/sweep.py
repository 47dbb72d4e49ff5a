"""proxsae sweep: many sparse autoencoders on the same activations, one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsae.commands.parser import BLOCK, add_command, add_model, add_packing, check_counts, packing_of

if TYPE_CHECKING:
    from proxsae.studies import Configuration, Source


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "sweep",
        run,
        "train and measure SAEs that differ in R, L0 and seed alone; run again, it goes on where it was stopped",
        "proxsae sweep --regularizers topk,topk:2,abstopk --l0 16,32 --seeds 3 --block 15 --out sweep",
    )
    add_model(command)
    command.add_argument("--device", default="auto", help="a torch device (default: CUDA where there is one)")
    command.add_argument("--block", help=BLOCK)
    command.add_argument("--tokens", type=int, default=100_000, help="rows to harvest (default: 100000)")
    command.add_argument("--context", type=int, default=128, help="tokens in a context (default: 128)")
    add_packing(command)
    command.add_argument("--heldout-tokens", type=int, default=8192, help="on which to measure (default: 8192)")
    command.add_argument("--activations", type=Path, metavar="DIR", help="of the harvest (default: in OUT)")
    command.add_argument(
        "--regularizers",
        default="topk,abstopk,jumprelu,relu",
        help="names of activations; topk:2 has twice the atoms (default: topk,abstopk,jumprelu,relu)",
    )
    command.add_argument("--l0", default="16,32,64,128", help="non-zeros a token (default: 16,32,64,128)")
    command.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    command.add_argument("--components", type=int, default=4608, metavar="P", help="atoms (default: 4608)")
    match = "parameters: all have P atoms; atoms: one of signed codes counts for two, so that the others have 2 P"
    command.add_argument(
        "--match", choices=["parameters", "atoms"], default="parameters", help=f"{match} (default: parameters)"
    )
    scaling = "mean-norm, token (standardised), or both with a comma (default: mean-norm)"
    command.add_argument("--scaling", default="mean-norm", help=scaling)
    auxk = "train dead atoms on the residual: yes, no, or yes,no (default: yes; of the preset: yes,no)"
    command.add_argument("--auxk", help=auxk)
    command.add_argument("--steps", type=int, default=1000, help="of each training (default: 1000)")
    command.add_argument("--batch-size", type=int, default=2048, help="rows a step (default: 2048)")
    command.add_argument("--learning-rate", type=float, default=4e-3, help="peak step size of Adam (default: 0.004)")
    command.add_argument(
        "--preset",
        choices=["abstopk-paper"],
        help="TopK(P), TopK(2P), AbsTopK(P) by token and by batch, in both scalings, with and without AuxK",
    )
    command.add_argument("--row", type=Path, metavar="FILE", help="train the row of this file again, from what it says")
    command.add_argument("--out", type=Path, required=True, help="folder of the table, the figures and the SAEs")


def run(options: argparse.Namespace) -> int:
    """Sweep, and write table, figures and page; the exit status is 3 if a row failed."""
    from proxsae.report import format_table
    from proxsae.studies import Source, sweep
    from proxsae.studies.comparison import comparison_table, factor_table
    from proxsae.studies.configuration import Configuration
    from proxsae.studies.results import ROWS_FAILED, read_row, read_rows
    from proxsae.studies.sweep_page import failures, summary, write_page

    check_counts(options, "tokens", "heldout_tokens", "seeds", "components", "steps", "batch_size")
    if options.row is not None:
        row = read_row(options.row)
        configurations, source = [Configuration(**row["configuration"])], Source(**row["source"])
    else:
        source = source_of(options)
        configurations = _configurations(options)
    rows = sweep(configurations, source, options.out, activations=options.activations, device=options.device)
    for table in (summary(rows), comparison_table(rows), factor_table(rows)):
        if table:
            print(format_table(table), end="\n\n")
    for sentence in failures(rows):
        print(f"failed: {sentence}")
    print(f"page: {write_page(options.out, read_rows(options.out)).resolve()}")
    return ROWS_FAILED if failures(rows) else 0


def source_of(options: argparse.Namespace) -> Source:
    """Return the source that the options name."""
    from proxsae.studies import Source

    if options.block is None:
        raise ValueError(f"give --block: {BLOCK}")
    return Source(
        options.block,
        options.tokens,
        options.heldout_tokens,
        options.model,
        options.text,
        options.field,
        options.context,
        packing_of(options),
    )


def training_of(options: argparse.Namespace) -> tuple[list[float], dict[str, Any]]:
    """Return the levels of L0 and the parameters of the training that the options name."""
    return [_number(text) for text in _listed(options.l0)], {
        "n_components": options.components,
        "n_steps": options.steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
    }


def _configurations(options: argparse.Namespace) -> list[Configuration]:
    from proxsae.studies import abstopk_paper, grid

    l0, training = training_of(options)
    answers = _listed(("yes,no" if options.preset else "yes") if options.auxk is None else options.auxk)
    if not answers or not set(answers) <= {"yes", "no"}:
        raise ValueError(f"--auxk takes yes, no, or yes,no; got {options.auxk!r}")
    auxk = [answer == "yes" for answer in answers]
    if options.preset:
        return abstopk_paper(l0, n_seeds=options.seeds, auxk=auxk, **training)
    names, scalings = _listed(options.regularizers), _listed(options.scaling)
    return grid(names, l0, n_seeds=options.seeds, match=options.match, scalings=scalings, auxk=auxk, **training)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--l0 takes numbers with commas between them; got {text!r}") from None
