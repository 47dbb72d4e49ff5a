"""What a token buys: whole trainings on 100,000 activations of a language model, and FVU on text that none has seen.

Run: python benchmarks/tokens.py [--seeds 3] [--regularizers topk relu] [--learning-rate 0.002] [--store FOLDER]
    [--encoder solved --steps 100]
4,608 atoms, 32 codes a token, 700 steps of 2,048: block 15 of the embedded model. Everything but R is at its default.
Seconds are those of `fit`; in units of the encoder product of a batch they hardly depend on the machine.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from proxsae import ProxSAE
from proxsae.llm import ActivationStore, harvest, load_model
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, Regularizer

BLOCK, N_TOKENS, N_HELDOUT, N_ATOMS, K, STEPS, BATCH = 15, 100_000, 20_000, 4608, 32, 700, 2048

REGULARIZERS: dict[str, tuple[Regularizer, float | None]] = {
    "topk": (NonNegative() + Cardinality(K), None),
    "abstopk": (Cardinality(K), None),
    "jumprelu": (L0() + NonNegative(), float(K)),
    "relu": (L1() + NonNegative(), float(K)),
}


def stores(folder: Path) -> tuple[ActivationStore, np.ndarray[Any, Any]]:
    """Return the tokens to train on and those of other documents, harvested where the folder has none."""
    model = None
    found = []
    for split, n_tokens in (("train", N_TOKENS), ("heldout", N_HELDOUT)):
        if not (folder / split).exists():
            model = model or load_model()
            harvest(model, block=BLOCK, n_tokens=n_tokens, split=split, out=folder / split)
        found.append(ActivationStore(folder / split))
    train, heldout = found
    return train, np.asarray(heldout[np.arange(len(heldout))])


def seconds_of_product(train: ActivationStore) -> float:
    """Return the median time of the encoder product of one batch."""
    x, W = torch.from_numpy(np.asarray(train[np.arange(BATCH)], np.float32)), torch.randn(N_ATOMS, train.shape[1])
    times = []
    for _ in range(9):
        start = time.perf_counter()
        torch.mm(x, W.T)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print a row a regularizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regularizers", nargs="+", choices=REGULARIZERS, default=list(REGULARIZERS))
    parser.add_argument("--learning-rate", type=float, default=ProxSAE().learning_rate)
    parser.add_argument("--encoder", choices=("amortized", "unrolled", "solved"), default="amortized")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--store", type=Path, help="where to keep the activations; none: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        train, heldout = stores(options.store or Path(temporary))
        unit = seconds_of_product(train)
        print(
            f"{len(train):,} tokens, {options.steps} steps of {BATCH}, {N_ATOMS} atoms, {options.seeds} seed(s), "
            f"{torch.get_num_threads()} threads; an encoder product takes {unit:.3f} s"
        )
        print("             seconds  products a step   held-out FVU (range)      L0    dead")
        for name in options.regularizers:
            regularizer, target_l0 = REGULARIZERS[name]
            rows = []
            for seed in range(options.seeds):
                sae = ProxSAE(
                    regularizer, N_ATOMS, target_l0=target_l0, n_steps=options.steps, batch_size=BATCH, device="cpu",
                    encoder=options.encoder, learning_rate=options.learning_rate, random_state=seed,
                )  # fmt: skip
                start = time.perf_counter()
                sae.fit(train)
                seconds = time.perf_counter() - start
                l0 = sae.transform(heldout).nnz / len(heldout)
                rows.append((seconds, 1.0 - sae.score(heldout), l0, sae.history_["dead"][-1]))
            seconds, fvu, l0, dead = np.median(rows, axis=0)
            low, high = np.min(rows, axis=0)[1], np.max(rows, axis=0)[1]
            print(
                f"{name:10s} {seconds:9.1f} {seconds / options.steps / unit:16.2f}   {fvu:.4f} ({low:.4f}-{high:.4f})"
                f"  {l0:6.1f}  {dead:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
