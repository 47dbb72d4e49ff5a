"""Training steps and `transform` in units of one encoder product, beside a plain dense PyTorch step.

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

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, Regularizer
from proxsae.training import Scaling, Trainer, TrainingState
from proxsae.training.autoencoder import initial_autoencoder

BATCH, N_FEATURES, N_ATOMS, K, RATE, ROUNDS = 4096, 576, 8192, 32, 1e-3, 9
MANY, FEW_ROUNDS = 65_536, 3  # atoms, for which a product takes eight times as long

Contestants = dict[str, Callable[[], object]]


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


def trainer_of(regularizer: Regularizer, n_atoms: int, target_l0: float | None = None) -> Trainer:
    """Return a trainer before its first step."""
    generator, learns = torch.Generator().manual_seed(0), target_l0 is not None
    model = initial_autoencoder(Amortized(), regularizer, n_atoms, N_FEATURES, generator, torch.float32, learns)
    scaling = Scaling(torch.zeros(N_FEATURES), 1.0)
    return Trainer(TrainingState.start(model, scaling, regularizer, target_l0=target_l0), learning_rate=RATE)


def proxsae_step(
    x: torch.Tensor, regularizer: Regularizer, n_atoms: int = N_ATOMS, target_l0: float | None = None
) -> Callable[[], object]:
    """Return our training step."""
    trainer = trainer_of(regularizer, n_atoms, target_l0)
    return lambda: trainer.step(x)


def step_with_dead_atoms(x: torch.Tensor, regularizer: Regularizer) -> Callable[[], object]:
    """Return our training step where half the atoms count as dead at every step, so that AuxK is at work."""
    trainer = trainer_of(regularizer, N_ATOMS)

    def step() -> object:
        trainer.model.unused_for[: N_ATOMS // 2] = 2 * trainer.dead_after
        return trainer.step(x)

    return step


def transform(x: torch.Tensor, regularizer: Regularizer) -> Callable[[], object]:
    """Return `transform` to CSR of an estimator after one step."""
    sae = ProxSAE(regularizer, N_ATOMS, n_steps=1, batch_size=BATCH, random_state=0, device="cpu").fit(x.numpy())
    return lambda: sae.transform(x.numpy())


def product(x: torch.Tensor, n_atoms: int) -> Callable[[], object]:
    """Return the product with all atoms, into memory that is there."""
    W, out = torch.randn(n_atoms, N_FEATURES), torch.empty(len(x), n_atoms)
    return lambda: torch.mm(x, W.T, out=out)


def print_table(n_atoms: int, contestants: Contestants, n_rounds: int) -> None:
    """Time the contestants in turns, the first of which is the unit."""
    for run in contestants.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    unit, *_ = seconds.values()
    print(
        f"\nbatch {BATCH}, {N_FEATURES} features, {n_atoms:,} atoms, k = {K}, float32, "
        f"{torch.get_num_threads()} threads, {n_rounds} rounds; the product took {statistics.median(unit):.3f} s"
    )
    for name, values in seconds.items():
        ratios = [value / one for value, one in zip(values, unit, strict=True)]
        print(f"{name:36s} {statistics.median(ratios):6.2f}   (from {min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Print the tables."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, N_FEATURES)
    topk, abstopk = NonNegative() + Cardinality(K), Cardinality(K)
    contestants: Contestants = {
        "one encoder product": product(x, N_ATOMS),
        "proxsae, AbsTopK": proxsae_step(x, abstopk),
        "proxsae, TopK": proxsae_step(x, topk),
        "proxsae, BatchTopK": proxsae_step(x, NonNegative() + Cardinality(K, "batch")),
        "proxsae, ReLU at L0 = 32": proxsae_step(x, L1() + NonNegative(), target_l0=K),
        "proxsae, JumpReLU at L0 = 32": proxsae_step(x, L0() + NonNegative(), target_l0=K),
        "proxsae, TopK, half the atoms dead": step_with_dead_atoms(x, topk),
        "proxsae, TopK, transform to CSR": transform(x, topk),
        "dense PyTorch with torch.topk": dense_step(x),
    }
    print_table(N_ATOMS, contestants, ROUNDS)
    del contestants
    many: Contestants = {"one encoder product": product(x, MANY), "proxsae, TopK": proxsae_step(x, topk, MANY)}
    print_table(MANY, many, FEW_ROUNDS)


if __name__ == "__main__":
    main()
