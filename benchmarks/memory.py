"""Memory of `fit` on 10 GB of activations on disk, beside that of the same fit on a few batches.

Run: python benchmarks/memory.py
The file is sparse (its rows are zeros, and take no disk); what counts is how much of it the process ever holds. Pages
of the mapped file belong to the page cache, which the system takes back at will: they are not counted, what the process
allocates is.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np

from proxsae import ProxSAE
from proxsae.regularizers import Cardinality

N_FEATURES, BATCH = 576, 2048
N_ROWS = 10 * 2**30 // (4 * N_FEATURES)


def allocated() -> float:
    """Return the anonymous memory of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def peak_of_fit(X: np.ndarray) -> float:
    """Return the largest allocation seen during a short fit, in MiB."""
    peak, done = [allocated()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    ProxSAE(Cardinality(32), 2304, n_steps=30, batch_size=BATCH, random_state=0).fit(X)
    done.set()
    watcher.join()
    return peak[0]


def main() -> None:
    """Print the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.npy"
        big = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(N_ROWS, N_FEATURES))
        small = big[: 4 * BATCH]
        peak_of_fit(small)  # compiles and allocates what any fit does
        few, many = peak_of_fit(small), peak_of_fit(big)
        batch = BATCH * N_FEATURES * 4 / 2**20
        size, order = path.stat().st_size / 2**30, N_ROWS * 8 / 2**20
        print(f"file {size:.1f} GiB, a batch {batch:.1f} MiB, the order of its rows {order:.0f} MiB")
        print(f"peak allocation: {few:.0f} MiB with 4 batches of data, {many:.0f} MiB with the whole file")


if __name__ == "__main__":
    main()
