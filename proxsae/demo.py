"""The demo: four regularizers, one language model, one table, one report."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from proxsae.estimator import ProxSAE
from proxsae.regularizers import Regularizer, get

BLOCK = 15
L0 = 32
N_CALIBRATION = 4096  # tokens beside those of the training, on which steered weights are set
MEASURES = (
    "MSE: mean squared error a value. FVU: fraction of variance unexplained over the whole held-out set. L0: mean "
    "non-zeros a token. Dead: atoms that no held-out token uses. Loss recovered: (zero - SAE) / (zero - clean), of the "
    "cross-entropies of the next token with the stream set to zero, replaced by the reconstruction, and left as it is."
)
CARDS = (
    "Each atom: histogram of its non-zero activations, and the tokens where it is most active on each side (outlined; "
    "other tokens are shaded by the same atom's activation, blue positive, orange negative)."
)


@dataclass(frozen=True)
class Size:
    """The sizes of a run of the demo."""

    n_tokens: int
    n_components: int
    n_steps: int
    batch_size: int
    n_heldout: int


FULL = Size(n_tokens=100_000, n_components=4608, n_steps=700, batch_size=2048, n_heldout=8192)
FAST = Size(n_tokens=12_000, n_components=2304, n_steps=100, batch_size=1024, n_heldout=1024)


def regularizers() -> dict[str, tuple[Regularizer, dict[str, Any]]]:
    """Return the four regularizers with the parameter for 32 non-zeros a token: k, or a steered weight."""
    return {
        "ReLU": (get("relu", lam=1.0), {"target_l0": L0}),
        "JumpReLU": (get("jumprelu", lam=1.0), {"target_l0": L0}),
        "TopK": (get("topk", k=L0), {}),
        "AbsTopK": (get("abstopk", k=L0), {}),
    }


def run_demo(out: Path, folder: Path, size: Size, *, verbose: bool = True) -> list[dict[str, Any]]:
    """Harvest, train, evaluate and write the report; return the table.

    Parameters
    ----------
    out : path
        The HTML report.
    folder : path
        Where the activations and the trained models go.
    size : Size
    """
    from proxsae.llm import evaluate, harvest, load_model
    from proxsae.report import Section, feature_cards, table_row, write_sections
    from proxsae.report.figures import training_curves

    started = time.perf_counter()
    model = load_model()
    n_rows = size.n_tokens + N_CALIBRATION
    store = harvest(model, block=BLOCK, n_tokens=n_rows, out=folder / f"activations-{n_rows}", verbose=verbose)
    seen, unseen = store.part(0, size.n_tokens), store.part(size.n_tokens, n_rows)
    saes: dict[str, ProxSAE] = {}
    seconds: dict[str, float] = {}
    for name, (regularizer, options) in regularizers().items():
        start = time.perf_counter()
        saes[name] = ProxSAE(
            regularizer,
            size.n_components,
            n_steps=size.n_steps,
            batch_size=size.batch_size,
            random_state=0,
            verbose=int(verbose),
            **options,
        ).fit(seen)
        if "target_l0" in options:  # on text that it has not seen, as TopK has its k there by construction
            saes[name].calibrate(unseen)
        seconds[name] = time.perf_counter() - start
        saes[name].save(folder / f"{name.lower()}-{size.n_steps}.safetensors")
        if verbose:
            tqdm.write(f"{name}: trained in {seconds[name]:.0f} s", file=sys.stderr)
    results = evaluate(
        model,
        saes,
        block=BLOCK,
        n_tokens=size.n_heldout,
        context_length=store.info["context_length"],
        verbose=verbose,
    )
    table = [table_row(name, {**results[name], "seconds": seconds[name]}) for name in saes]
    codes = saes["AbsTopK"].transform(store)
    cards = feature_cards(codes, store, lambda token: str(model.tokenizer.decode([token])))
    info = store.info
    dropped = info["dropped_by_position"] + info["dropped_special"] + info["dropped_massive"]
    write_sections(
        out,
        title="ReLU, JumpReLU, TopK and AbsTopK: one proximal step, four regularizers",
        facts={
            "Model": f"{info['model']}, residual stream after {BLOCK} blocks",
            "Text": f"{info['text']}: {len(seen):,} tokens to train, {results['TopK']['n_tokens']:,} held out",
            "Left out": f"{dropped:,} tokens with massive activations or special tokens",
            "Autoencoders": f"{size.n_components:,} atoms, mean L0 {L0}, {size.n_steps} steps of {size.batch_size}",
            "Cross-entropy": f"{results['TopK']['cross_entropy_clean']:.3f} nats a token clean, "
            f"{results['TopK']['cross_entropy_zero']:.3f} with the stream set to zero",
            "Time": f"{time.perf_counter() - started:.0f} s",
        },
        sections=[
            Section("Results", [MEASURES], table=table),
            Section("Training", figure=training_curves({name: sae.history_ for name, sae in saes.items()})),
            Section("Bidirectional features of the AbsTopK autoencoder", [CARDS], cards=cards),
        ],
    )
    return table
