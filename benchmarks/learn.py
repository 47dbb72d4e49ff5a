"""Dictionary learning: `ProxSAE(encoder="solved")` beside SPAMS and scikit-learn, by the objective that each reaches.

Run: python benchmarks/learn.py [--activations [STORE]] [--skip-scikit-learn] [--samples 100000] [--rounds 3]
Data are patches of scikit-learn's two photographs; with --activations the residual stream of the embedded language
model, or a store of it. The objective is the mean of 1/2 ||x - z D||^2 + 0.1 ||z||_1 over held-out rows of norm 1 whose
codes are solved for every dictionary alike, to a gap of 1e-6. SPAMS does 1,000 steps of 400 rows and scikit-learn four
passes (its own limit is a thousand); `proxsae` is run with more and more steps, and its time is that of the first
dictionary as good as the better of theirs. Contestants take turns; figures are medians of the rounds. Peers are
optional: pip install spams-bin.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import argparse
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.feature_extraction.image import extract_patches_2d

from proxsae import ProxSAE, solve
from proxsae.dictionary import Online
from proxsae.regularizers import L1

Array = Any
WEIGHT, N_HELD_OUT, BATCH_OF_SCIKIT_LEARN = 0.1, 4000, 512
STEPS = (20, 40, 60, 100, 120, 130, 140)
THREADS = numba.config.NUMBA_NUM_THREADS
HAS_SPAMS = importlib.util.find_spec("spams") is not None


def patches(n_samples: int) -> Array:
    """Return patches of 12 x 12 pixels."""
    grey = [image.mean(2) for image in load_sample_images().images]
    rows = [extract_patches_2d(image, (12, 12), max_patches=n_samples, random_state=0) for image in grey]
    return np.concatenate(rows).reshape(2 * n_samples, -1)


def activations(n_samples: int, folder: str | None) -> Array:
    """Return residuals after block 15 of the embedded model."""
    from proxsae.llm import ActivationStore, harvest, load_model

    if folder:
        store = ActivationStore(folder)
        return np.asarray(store[np.arange(len(store))], np.float64)
    with tempfile.TemporaryDirectory() as place:
        store = harvest(load_model(), block=15, n_tokens=n_samples, out=Path(place) / "store")
        return np.asarray(store[np.arange(len(store))], np.float64)


def prepared(rows: Array, n_samples: int) -> tuple[Array, Array]:
    """Return rows to learn from and rows held out: centred, of length 1, in a random order, in float32."""
    rows = np.random.default_rng(0).permutation(rows - rows.mean(axis=0))
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    seen = lengths > 1e-3 * lengths.max()
    rows = (rows[seen] / lengths[seen, None]).astype(np.float32)
    return rows[N_HELD_OUT : N_HELD_OUT + n_samples].copy(), rows[:N_HELD_OUT].copy()


def spams(X: Array, n_atoms: int) -> Callable[[], Array]:
    """Return a training by SPAMS, with the numbers of its documentation; its samples are columns."""
    from spams import trainDL

    columns = np.asfortranarray(X.T)
    options = {"K": n_atoms, "lambda1": WEIGHT, "mode": 2, "numThreads": THREADS, "batchsize": 400, "iter": 1000}
    return lambda: trainDL(columns, verbose=False, **options).T


def scikit_learn(X: Array, n_atoms: int) -> Callable[[], Array]:
    """Return a training by scikit-learn: four passes, unless its own rule ends it before."""
    options = {"batch_size": BATCH_OF_SCIKIT_LEARN, "max_iter": 4, "n_jobs": THREADS, "random_state": 0}
    learner = MiniBatchDictionaryLearning(n_atoms, alpha=WEIGHT, fit_algorithm="cd", **options)
    return lambda: learner.fit(X).components_


def ours(X: Array, n_atoms: int, n_steps: int, update: Online) -> Callable[[], Array]:
    """Return a training of so many steps."""
    sae = ProxSAE(WEIGHT * L1(), n_atoms, n_steps=n_steps, encoder="solved", update=update, random_state=0)
    return lambda: sae.fit(X).components_


def objective(X: Array, D: Array) -> float:
    """Return the mean of F over rows, with codes as good as float64 can tell; no intercept: the peers have none."""
    D = D.astype(np.float64)
    assert np.linalg.norm(D, axis=1).max() < 1 + 1e-5  # else the penalty could be evaded
    return float(solve(X.astype(np.float64), D, WEIGHT * L1(), sparse_output=True).objective.mean())


def compare(X: Array, X_new: Array, n_atoms: int, update: Online, rounds: int, *, skip_scikit_learn: bool) -> None:
    """Print where the peers end, and when `proxsae` is as good."""
    peers = {"SPAMS trainDL": spams(X, n_atoms)} if HAS_SPAMS else {}
    if not skip_scikit_learn or not peers:
        peers["scikit-learn MiniBatchDictionaryLearning"] = scikit_learn(X, n_atoms)
    ours(X[:1000], 50, 2, update)()  # compiles
    runs = {**peers, **{f"proxsae, {n} steps": ours(X, n_atoms, n, update) for n in STEPS}}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    reached: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            D = run()
            seconds[name].append(time.perf_counter() - start)
            reached[name].append(objective(X_new, D))
    times, values = ({name: statistics.median(d[name]) for name in runs} for d in (seconds, reached))
    best = min(peers, key=lambda name: values[name])
    print(f"{'':42s}{'seconds':>9}{'objective':>12}{'ratio':>8}")
    for name in runs:
        print(f"{name:42s}{times[name]:9.2f}{values[name]:12.5f}{times[name] / times[best]:8.2f}", flush=True)
    as_good = [name for name in runs if name not in peers and values[name] <= values[best]]
    first = min(as_good, key=lambda name: times[name], default=None)
    if first is None:
        print(f"the objective of {best} is not reached")
        return
    ratio = statistics.median(a / b for a, b in zip(seconds[first], seconds[best], strict=True))
    print(f"{first} are as good as {best}, in {ratio:.2f} of its time")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activations", nargs="?", const="", metavar="STORE", help="of a language model, too")
    parser.add_argument("--skip-scikit-learn", action="store_true", help="which takes many times as long as SPAMS")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sources: dict[str, tuple[Callable[[], Array], int, Online]] = {
        "patches": (lambda: patches(arguments.samples + N_HELD_OUT), 256, Online())
    }
    if arguments.activations is not None:
        n = arguments.samples + N_HELD_OUT
        sources["activations"] = lambda: activations(n, arguments.activations), 1024, Online(forgetting=6)
    for name, (source, n_atoms, update) in sources.items():
        X, X_new = prepared(source(), arguments.samples)
        print(f"\n{name}: {len(X)} samples, {n_atoms} atoms, {X.shape[1]} features, {THREADS} threads, {X.dtype}")
        print(update)
        compare(X, X_new, n_atoms, update, arguments.rounds, skip_scikit_learn=arguments.skip_scikit_learn)


if __name__ == "__main__":
    main()
