"""Memory of `fit`: on 10 GB of activations on disk beside a few batches of them, and of steps with 65,536 atoms.

Run: python benchmarks/memory.py
The file is sparse (its rows are zeros, and take no disk); what counts is how much of it the process ever holds. Pages
of the mapped file belong to the page cache, which the system takes back at will: they are not counted, what the process
allocates is.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from training_step import trainer_of

from proxsae import ProxSAE
from proxsae.regularizers import Cardinality

N_FEATURES, BATCH = 576, 2048
N_ROWS = 10 * 2**30 // (4 * N_FEATURES)
MANY = 65_536  # atoms


def allocated() -> float:
    """Return the anonymous memory of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def peak_of(run: Callable[[], object]) -> float:
    """Return the largest allocation seen while something runs, in MiB."""
    peak, done = [allocated()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return peak[0]


def fit(X: np.ndarray, n_components: int = 2304, n_steps: int = 30) -> ProxSAE:
    """Train for some steps."""
    return ProxSAE(Cardinality(32), n_components, n_steps=n_steps, batch_size=BATCH, random_state=0).fit(X)


def steps(x: torch.Tensor) -> None:
    """Do four steps with many atoms."""
    trainer = trainer_of(Cardinality(32), MANY)
    for _ in range(4):
        trainer.step(x)


def main() -> None:
    """Print the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.npy"
        big = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(N_ROWS, N_FEATURES))
        small = big[: 4 * BATCH]
        fit(small)  # compiles and allocates what any fit does
        few, many = peak_of(lambda: fit(small)), peak_of(lambda: fit(big))
        batch = BATCH * N_FEATURES * 4 / 2**20
        size, order = path.stat().st_size / 2**30, N_ROWS * 8 / 2**20
        print(f"file {size:.1f} GiB, a batch {batch:.1f} MiB, the order of its rows {order:.0f} MiB")
        print(f"peak allocation: {few:.0f} MiB with 4 batches of data, {many:.0f} MiB with the whole file")
    x, idle = torch.randn(4 * BATCH, N_FEATURES), allocated()
    held = 3 * 4 * (2 * MANY * N_FEATURES + MANY + N_FEATURES) / 2**20  # W, D, b_e, b and two moments of each
    of_steps = (peak_of(lambda: steps(x[:BATCH])) - idle) / held
    of_fit = (peak_of(lambda: fit(x.numpy(), MANY, n_steps=4)) - idle) / held
    print(
        f"{MANY:,} atoms, in units of parameters and the state of Adam ({held:.0f} MiB): {of_steps:.2f} of steps, "
        f"{of_fit:.2f} of a fit, which also returns the model in the units of the data"
    )


if __name__ == "__main__":
    main()
