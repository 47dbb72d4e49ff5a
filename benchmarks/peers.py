"""Training steps of TopK autoencoders beside SAELens, sparsify and dictionary_learning: time, and FVU after as many.

Run: make bench-peers, or python benchmarks/peers.py [--steps 24] where those libraries are installed.
All start from their own initial atoms and take the same batches with Adam at the same step size. Rows are samples of
a known dictionary. Contestants take turns, step by step; FVU is that of rows that none has seen.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from training_step import BATCH, N_ATOMS, N_FEATURES, RATE, K, trainer_of

from proxsae.dictionary import sparse_signals, sphere_atoms
from proxsae.regularizers import Cardinality, NonNegative

N_BATCHES = 12


class Contestant(NamedTuple):
    """A library: a step on a batch, and reconstructions after the steps."""

    step: Callable[[Tensor], object]
    reconstruct: Callable[[Tensor], Tensor]


def proxsae(n_steps: int) -> Contestant:
    """Return ours."""
    trainer = trainer_of(NonNegative() + Cardinality(K), N_ATOMS)
    trainer.state.n_steps, trainer.warmup, trainer.decay = n_steps, 0.0, 0.0
    return Contestant(trainer.step, lambda x: x - trainer.model(x).residual)


def saelens(n_steps: int) -> Contestant:
    """Return the trainer of SAELens."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=N_FEATURES, d_sae=N_ATOMS, k=K, device="cpu"))
    config = SAETrainerConfig(
        total_training_samples=n_steps * BATCH, train_batch_size_samples=BATCH, lr=RATE, lr_end=RATE
    )
    trainer = SAETrainer(config, sae, iter([]))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return Contestant(step, sae)


def sparsify(n_steps: int) -> Contestant:  # noqa: ARG001
    """Return the coder of sparsify in the loop that its trainer has around it."""
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    coder = SparseCoder(N_FEATURES, SparseCoderConfig(num_latents=N_ATOMS, k=K))
    optimizer = torch.optim.Adam(coder.parameters(), lr=RATE)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return Contestant(step, lambda x: coder(x).sae_out)


def dictionary_learning(n_steps: int) -> Contestant:
    """Return the trainer of dictionary_learning."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(n_steps, N_FEATURES, N_ATOMS, K, 0, "", lr=RATE, warmup_steps=0, seed=0, device="cpu")
    done = iter(range(n_steps))
    return Contestant(lambda x: trainer.update(next(done), x), trainer.ae)


CONTESTANTS: dict[str, tuple[Callable[[int], Contestant], str]] = {
    "proxsae": (proxsae, "proxsae"),
    "SAELens": (saelens, "sae-lens"),
    "sparsify": (sparsify, "eai-sparsify"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
}


def rows() -> Tensor:
    """Return samples of a known dictionary without their mean, of mean squared length 1 a feature."""
    atoms = sphere_atoms(2048, N_FEATURES, random_state=0)
    X = sparse_signals((N_BATCHES + 1) * BATCH, atoms, 24, random_state=1).X
    x = torch.from_numpy(X.astype(np.float32))
    x = x - x.mean(0)
    return x / x.square().mean().sqrt()


def fvu(reconstruct: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the fraction of the variance that is not explained."""
    with torch.no_grad():
        return float((x - reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    *batches, heldout = rows().split(BATCH)
    W = torch.randn(N_ATOMS, N_FEATURES)
    libraries = {name: make(options.steps) for name, (make, _) in CONTESTANTS.items()}
    products: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for i in range(options.steps):
        x = batches[i % len(batches)]
        start = time.perf_counter()
        torch.mm(x, W.T)
        products.append(time.perf_counter() - start)
        for name, library in libraries.items():
            start = time.perf_counter()
            library.step(x)
            seconds[name].append(time.perf_counter() - start)
    unit = statistics.median(products)
    print(
        f"{options.steps} steps of TopK, k = {K}, batch {BATCH}, {N_FEATURES} features, {N_ATOMS} atoms, float32, "
        f"Adam at {RATE:g}, {torch.get_num_threads()} threads; an encoder product took {unit:.3f} s"
    )
    print("                                  products  of ours  FVU after them")
    for name, library in libraries.items():
        median = statistics.median(seconds[name])
        label = f"{name} {version(CONTESTANTS[name][1])}"
        ours = median / statistics.median(seconds["proxsae"])
        print(f"{label:34s} {median / unit:7.2f}  {ours:7.2f}  {fvu(library.reconstruct, heldout):14.4f}")


if __name__ == "__main__":
    main()
