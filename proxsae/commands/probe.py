"""proxsae probe: how well a few atoms tell properties of tokens and topics of documents."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from proxsae.commands.harvested import store_and_model
from proxsae.commands.parser import OF_STORE, add_command, check_counts


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "probe",
        run,
        "tell properties of tokens and topics of documents from 1, 2, 5 and 16 atoms",
        "proxsae probe sweep/saes/topk-4608-l0_32-seed0.safetensors --activations sweep/activations",
    )
    command.add_argument("saes", nargs="+", help="models written by proxsae fit or sweep, or of any library")
    tokens = "store with tokens to tell"
    command.add_argument("--activations", dest="store", type=Path, required=True, metavar="DIR", help=tokens)
    command.add_argument("--block", metavar="PLACE", help=OF_STORE)
    command.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    command.add_argument("--model", help="language model whose tokenizer reads the tokens (default: that of the store)")
    command.add_argument("--rows", type=int, default=100_000, help="of the store, half to fit on (default: 100000)")
    command.add_argument("--tokens", type=int, default=20_000, help="rows for token properties (default: 20000)")
    command.add_argument("--k", default="1,2,5,16", help="atoms of a probe, if there are so many (default: 1,2,5,16)")
    command.add_argument("--topics", type=Path, metavar="CSV", help="title,topic of documents (default: of Wikipedia)")
    command.add_argument("--out", type=Path, default=Path("probe.csv"), help="all results (default: probe.csv)")


def run(options: argparse.Namespace) -> None:
    """Probe, write all accuracies and print their means."""
    from proxsae.data.files import replacing
    from proxsae.data.outputs import check_output
    from proxsae.formats import load
    from proxsae.report import format_table
    from proxsae.studies.probing import probe, probe_table

    check_counts(options, "rows", "tokens")
    check_output(options.out, *options.saes, options.store, options.topics)
    ks = [int(text) if text.strip().isdecimal() else 0 for text in options.k.split(",")]
    if min(ks) < 1:
        raise ValueError(f"--k takes integers of at least 1 with commas between them; got {options.k!r}")
    saes = {path: load(path) for path in options.saes}
    store, model = store_and_model(saes, options)
    topic_of = None if options.topics is None else _topics(options.topics)
    results, left_out = probe(
        saes,
        store.part(0, options.rows),
        model.tokenizer,
        ks=ks,
        n_tokens=options.tokens,
        topic_of=topic_of,
        check_provenance=False,  # which store_and_model compares
    )
    with replacing(options.out) as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(results[0]))
        table.writeheader()
        table.writerows(results)
    print(format_table(probe_table(results)))
    if left_out:
        print(f"left out, since a half has fewer than 20 samples of a class: {', '.join(left_out)}")
    print(f"saved {options.out}")


def _topics(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(stream)
        if not {"title", "topic"} <= set(table.fieldnames or ()):
            raise ValueError(f"'{path}' needs the columns title and topic")
        return {line["title"]: line["topic"] for line in table}
