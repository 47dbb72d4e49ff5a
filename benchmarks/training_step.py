"""A training step in units of one encoder product, beside a plain dense PyTorch step.

Run: python benchmarks/training_step.py
Every figure is the median over several rounds in which all contestants take turns; ratios are within a round.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import statistics
import time
from collections.abc import Callable

import torch

from proxsae.encoders import Amortized
from proxsae.regularizers import L1, Cardinality, NonNegative, Regularizer
from proxsae.training import Scaling, Trainer, TrainingState
from proxsae.training.autoencoder import initial_autoencoder

BATCH, N_FEATURES, N_ATOMS, K, ROUNDS = 4096, 576, 8192, 32, 9


def dense_step(x: torch.Tensor) -> Callable[[], None]:
    """Return the step that one writes first: dense codes, torch.topk, autograd, Adam."""
    atoms = torch.nn.functional.normalize(torch.randn(N_ATOMS, N_FEATURES), dim=1)
    W, D = torch.nn.Parameter(atoms.clone()), torch.nn.Parameter(atoms.clone())
    b_e = torch.nn.Parameter(torch.zeros(N_ATOMS))
    optimizer = torch.optim.Adam([W, D, b_e], lr=1e-3, fused=True)

    def step() -> None:
        u = torch.nn.functional.linear(x, W, b_e)
        top = u.abs().topk(K, dim=-1).indices
        z = torch.zeros_like(u).scatter(-1, top, u.gather(-1, top))
        loss = 0.5 * (x - z @ D).square().sum() / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            D.div_(D.norm(dim=1, keepdim=True))

    return step


def proxsae_step(x: torch.Tensor, regularizer: Regularizer, target_l0: float | None = None) -> Callable[[], None]:
    """Return our training step."""
    generator, learns = torch.Generator().manual_seed(0), target_l0 is not None
    model = initial_autoencoder(Amortized(), regularizer, N_ATOMS, N_FEATURES, generator, torch.float32, learns)
    scaling = Scaling(torch.zeros(N_FEATURES), 1.0)
    trainer = Trainer(TrainingState.start(model, scaling, regularizer, target_l0=target_l0), learning_rate=1e-3)
    return lambda: trainer.step(x) and None


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, N_FEATURES)
    W = torch.randn(N_ATOMS, N_FEATURES)
    out = torch.empty(BATCH, N_ATOMS)
    contestants: dict[str, Callable[[], object]] = {
        "one encoder product": lambda: torch.mm(x, W.T, out=out),
        "proxsae, AbsTopK": proxsae_step(x, Cardinality(K)),
        "proxsae, TopK": proxsae_step(x, NonNegative() + Cardinality(K)),
        "proxsae, BatchTopK": proxsae_step(x, NonNegative() + Cardinality(K, "batch")),
        "proxsae, ReLU at L0 = 32": proxsae_step(x, L1() + NonNegative(), target_l0=K),
        "dense PyTorch with torch.topk": dense_step(x),
    }
    for run in contestants.values():
        run()
        run()
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    product = []
    for _ in range(ROUNDS):
        seconds = {}
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start
        product.append(seconds["one encoder product"])
        for name, value in seconds.items():
            ratios[name].append(value / product[-1])
    print(f"batch {BATCH}, {N_FEATURES} features, {N_ATOMS} atoms, k = {K}, float32, {torch.get_num_threads()} threads")
    print(
        f"one encoder product ({BATCH}, {N_FEATURES}) @ ({N_FEATURES}, {N_ATOMS}): {statistics.median(product):.3f} s"
    )
    for name, values in ratios.items():
        print(f"{name:32s} {statistics.median(values):6.2f}   (from {min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
