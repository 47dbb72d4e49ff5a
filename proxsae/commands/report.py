"""proxsae report: the feature cards of a trained SAE."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "report",
        run,
        "write the feature cards of a trained SAE",
        "proxsae report sae.safetensors activations --out report.html",
    )
    command.add_argument("sae", help="model written by proxsae fit, or of any library")
    command.add_argument("store", type=Path, help="activation store; its tokens are the examples shown")
    command.add_argument("--model", help="language model whose tokenizer prints tokens (default: that of the store)")
    command.add_argument("--features", type=int, default=24, help="how many cards (default: 24)")
    command.add_argument("--out", type=Path, default=Path("report.html"))


def run(options: argparse.Namespace) -> None:
    """Write feature cards."""
    from proxsae.data.files import check_writable
    from proxsae.formats import load
    from proxsae.llm import ActivationStore, load_model
    from proxsae.report import feature_cards, write_report

    check_writable(options.out)
    sae, store = load(options.sae), ActivationStore(options.store)
    tokenizer = load_model(options.model or store.info["model"]).tokenizer
    cards = feature_cards(
        sae.transform(store), store, lambda token: str(tokenizer.decode([token])), n_features=options.features
    )
    path = write_report(
        options.out,
        title=f"Features of {Path(options.sae).name}",
        facts={
            "Regularizer": repr(sae.regularizer),
            "Atoms": f"{len(sae.components_):,}",
            "Activations": f"{store.info['model']}, {store.info['site']}, {len(store):,} tokens",
        },
        histories={Path(options.sae).stem: sae.history_} if sae.history_ else {},
        table=[],
        cards={"Features": cards},
    )
    print(f"report: {path.resolve()}")
