"""Sparse codes over a fixed dictionary: `solve` beside scikit-learn, SPAMS and celer, with the largest gap of each.

Run: python benchmarks/solve.py [--activations | --methods]
Data are patches of scikit-learn's two photographs over atoms that are other patches; with --activations also the
residual stream of the embedded language model. Contestants take turns; each figure is the median of the rounds. Peers
are optional: pip install spams-bin celer. With --methods, those of `solve` alone, by CPU time.
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
from scipy.sparse import csc_matrix
from sklearn.datasets import load_sample_images
from sklearn.decomposition import sparse_encode
from sklearn.feature_extraction.image import extract_patches_2d

from proxsae import solve
from proxsae.regularizers import L0, L1, MCP, Cardinality, GroupL2, NonNegative, Regularizer, SquaredL2

Array = Any
WEIGHT, K, ROUNDS, FEW = 0.1, 32, 5, 50
THREADS = numba.config.NUMBA_NUM_THREADS
HAS_SPAMS, HAS_CELER = (importlib.util.find_spec(name) is not None for name in ("spams", "celer"))


def patches(n_samples: int, n_atoms: int) -> tuple[Array, Array]:
    """Return patches of 16 x 16 pixels without mean and of length 1, and atoms that are others."""
    grey = [image.mean(2) for image in load_sample_images().images]
    n = n_samples + n_atoms
    rows = np.concatenate([extract_patches_2d(image, (16, 16), max_patches=n, random_state=0) for image in grey])
    return split(rows.reshape(2 * n, -1), n_samples, n_atoms)


def activations(n_samples: int, n_atoms: int) -> tuple[Array, Array]:
    """Return residuals after block 15 of the embedded model, centred and of length 1, and atoms that are others."""
    from proxsae.llm import harvest, load_model

    with tempfile.TemporaryDirectory() as folder:
        store = harvest(load_model(), block=15, n_tokens=2 * (n_samples + n_atoms), out=Path(folder) / "store")
        rows = np.asarray(store[np.arange(len(store))], np.float64)
    return split(rows, n_samples, n_atoms)


def split(rows: Array, n_samples: int, n_atoms: int) -> tuple[Array, Array]:
    """Return samples and atoms, in a random order."""
    rows = np.random.default_rng(0).permutation(rows - rows.mean(axis=0))
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    rows = (rows[lengths > 1e-3 * lengths.max()] / lengths[lengths > 1e-3 * lengths.max(), None]).copy()
    return rows[:n_samples].copy(), rows[n_samples : n_samples + n_atoms].copy()


def spams_rows(name: str, X: Array, D: Array, **options: Any) -> Callable[[], Array]:
    """Return a call of SPAMS, whose samples are columns."""
    import spams

    columns, atoms = np.asfortranarray(X.T), np.asfortranarray(D.T)
    return lambda: getattr(spams, name)(columns, atoms, numThreads=THREADS, **options).T.tocsr()


def celer_rows(X: Array, D: Array) -> Callable[[], Array]:
    """Return a call of celer for every sample by itself."""
    from celer import Lasso

    model = Lasso(alpha=WEIGHT / D.shape[1], fit_intercept=False, tol=1e-6)
    return lambda: np.stack([model.fit(D.T, x).coef_.copy() for x in X])


def lasso(X: Array, D: Array) -> None:
    """Print seconds and gaps of lasso codes."""
    R, (X32, D32) = WEIGHT * L1(), (X.astype(np.float32), D.astype(np.float32))

    def ours(X: Array, D: Array, **options: Any) -> Callable[[], Array]:
        return lambda: solve(X, D, R, sparse_output=True, **options).codes

    contestants = {
        "proxsae, active_set": ours(X, D),
        "proxsae, active_set, float32 to 1e-4": ours(X32, D32, tol=1e-4, method="active_set"),
    }
    if HAS_SPAMS:
        contestants["SPAMS lasso (LARS)"] = spams_rows("lasso", X, D, lambda1=WEIGHT, cholesky=True)
        start = csc_matrix((len(D), len(X)))
        contestants["SPAMS cd"] = spams_rows("cd", X, D, A0=start, lambda1=WEIGHT, itermax=1000, tol=1e-6)
    contestants["scikit-learn lasso_cd"] = lambda: sparse_encode(
        X, D, algorithm="lasso_cd", alpha=WEIGHT, n_jobs=THREADS, max_iter=10_000
    )
    contestants[f"proxsae, cd, {FEW} samples"] = ours(X[:FEW], D, method="cd")
    contestants[f"proxsae, fista, {FEW} samples"] = ours(X[:FEW], D, method="fista", max_iter=10_000)
    if HAS_CELER:
        contestants[f"celer, {FEW} samples"] = celer_rows(X[:FEW], D)
    energy = 0.5 * (X * X).sum(1)
    print("\nlasso                                        seconds  largest relative gap  above 1e-6")
    for name, (seconds, codes) in timed(contestants).items():
        n = codes.shape[0]
        gaps = certificates(X[:n], D, R, codes) / energy[:n]
        print(f"{name:42s} {seconds:9.3f}  {gaps.max():20.1e}  {(gaps > 1e-6).mean():10.1%}")


def others(X: Array, D: Array) -> None:
    """Print seconds of other regularizers, relative to the lasso."""
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(D)) * WEIGHT
    regularizers = {
        "lasso": WEIGHT * L1(),
        "elastic net": WEIGHT * L1() + 0.05 * SquaredL2(),
        "non-negative lasso": WEIGHT * L1() + NonNegative(),
        "weighted lasso": weights * L1(),
        "MCP": WEIGHT * MCP(3.0),
        "L0": 0.5 * WEIGHT**2 * L0(),
        "group lasso, groups of 4, cd": 0.6 * WEIGHT * GroupL2(4),
    }
    contestants = {name: solution(X, D, R) for name, R in regularizers.items()}
    results = timed(contestants)
    print("\nother R                            seconds  lassos  converged  non-zeros")
    for name, (seconds, s) in results.items():
        share, count = s.converged.mean(), s.codes.nnz / len(X)
        print(f"{name:32s} {seconds:9.3f}  {seconds / results['lasso'][0]:6.2f}  {share:9.1%}  {count:9.1f}")


def solution(X: Array, D: Array, R: Regularizer, **options: Any) -> Callable[[], Any]:
    """Return a call of `solve`."""
    return lambda: solve(X, D, R, sparse_output=True, **options)


def greedy(X: Array, D: Array) -> None:
    """Print seconds and squared errors of pursuits with K atoms."""
    X32, D32, R = X.astype(np.float32), D.astype(np.float32), Cardinality(K)
    contestants: dict[str, Callable[[], Array]] = {}
    for name, data in {"": (X, D), ", float32": (X32, D32)}.items():
        for method in ("omp", "ols"):
            run = solution(*data, R, method=method, tol=1e-4)
            contestants[f"proxsae, {method}{name}"] = lambda run=run: run().codes
        if HAS_SPAMS:
            contestants[f"SPAMS omp (takes as ols does){name}"] = spams_rows("omp", *data, L=K)
    swap = solution(X, D, R, method="swap")
    contestants["proxsae, swap"] = lambda: swap().codes
    contestants["scikit-learn omp"] = lambda: sparse_encode(X, D, algorithm="omp", n_nonzero_coefs=K, n_jobs=THREADS)
    results = timed(contestants)
    errors = {name: ((X - codes @ D) ** 2).sum(1) for name, (_, codes) in results.items()}
    print(f"\nk = {K}                                       seconds  squared error  worse than omp")
    for name, (seconds, _) in results.items():
        worse = (errors[name] > errors["proxsae, omp"] * (1 + 1e-9)).mean()
        print(f"{name:42s} {seconds:9.3f}  {errors[name].mean():13.5f}  {worse:14.1%}")


def sizes(X: Array, D: Array) -> None:
    """Print the time a sample for more and more samples, and that of a call for one."""
    print("\nsamples                                seconds   us a sample")
    for n in (1_000, 10_000, 100_000):
        rows = X[np.arange(n) % len(X)]
        seconds = timed({"": solution(rows, D, WEIGHT * L1())}, rounds=1 if n > 10_000 else 3)[""][0]
        print(f"{n:10,d} {seconds:35.3f} {1e6 * seconds / n:13.1f}")
    seconds = timed({"": solution(X[:1], D, WEIGHT * L1())}, rounds=9)[""][0]
    print(f"{1:10,d} {seconds:35.4f} {1e6 * seconds:13.1f}")


def methods(few: tuple[Array, Array], many: tuple[Array, Array]) -> None:
    """Print the CPU time of the methods that `auto` takes, of others, and what they reach: one round each."""
    few = few[0].astype(np.float32), few[1].astype(np.float32)
    contests = [
        ("lasso, float32", few, WEIGHT * L1(), ("active_set", "fista")),
        ("MCP, float32", few, WEIGHT * MCP(3.0), ("active_set", "cd", "ista")),
        ("L0, float32", few, 0.5 * WEIGHT**2 * L0(), ("active_set", "cd", "ista")),
        (f"{K} atoms, float32", few, Cardinality(K), ("swap", "ols", "omp", "ista")),
        (f"lasso, {len(many[1]):,} atoms", many, WEIGHT * L1(), ("active_set", "fista")),
        (f"L0, {len(many[1]):,} atoms", many, 0.5 * WEIGHT**2 * L0(), ("active_set", "ista")),
        (f"{K} of {len(many[1]):,} atoms", many, Cardinality(K), ("swap", "ols", "omp", "ista")),
    ]
    print("\nmethods,,CPU time,mean F,converged,largest certificate")
    for name, (X, D), R, contestants in contests:
        unit = None
        for method in contestants:
            solve(X[:1], D[:100], R, method=method, max_iter=1)  # compiles
            start = time.process_time()
            s = solve(X, D, R, method=method, sparse_output=True)
            seconds = time.process_time() - start
            unit = unit or seconds
            print(
                f'"{name}",``{method}``,{seconds / unit:.2g},{s.objective.mean():.5f},'
                f"{s.converged.mean():.0%},{s.certificate.max():.1e}",
                flush=True,
            )


def certificates(X: Array, D: Array, R: Regularizer, codes: Array) -> Array:
    """Return the duality gap of given codes."""
    return solve(X, D, R, init=codes.astype(np.float64), max_iter=0).certificate


def timed(contestants: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, tuple[float, Any]]:
    """Return the median seconds and the result of each; they take turns, after a first call each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    results = {name: run() for name, run in contestants.items()}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: (statistics.median(seconds[name]), results[name]) for name in contestants}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activations", action="store_true", help="codes of a language model over 8,192 atoms, too")
    parser.add_argument("--methods", action="store_true", help="the methods of `solve` beside one another, and no more")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--atoms", type=int, default=1024, help="of patches (default: 1024)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # peers and tight tolerances; what has converged is in the tables
    if arguments.methods:
        methods(patches(200, 1024), patches(8, 40_000))
        return
    sources = {"patches": (patches, arguments.atoms)} | (
        {"activations": (activations, 8192)} if arguments.activations else {}
    )
    for name, (source, n_atoms) in sources.items():
        X, D = source(arguments.samples, n_atoms)
        print(f"\n{name}: {len(X)} samples, {len(D)} atoms, {D.shape[1]} features, {THREADS} threads, float64")
        lasso(X, D)
        others(X, D)
        greedy(X, D)
        if name == "patches":
            sizes(X, D)


if __name__ == "__main__":
    main()
