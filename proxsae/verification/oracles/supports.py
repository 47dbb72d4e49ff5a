"""Every support: a cardinality constraint against exhaustive enumeration, up to twelve coordinates."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.separable import Separable
from proxsae.verification.oracles.line import GRID, best_on_the_line
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check, counterexample

LENGTHS = (2, 5, 12)  # lengths of codes, where any length will do


def enumerate_supports(R: Cardinality, pair: Pair) -> Check:
    """Compare the prox with the best of all supports, the partner on each coordinate minimised by a search of the line.

    At batch scope the matrix of two rows is the code.
    """
    steps = pair.tried_steps
    lengths = LENGTHS if pair.is_free else (pair.n,)
    rows = 1 if R.scope == "sample" else 2
    covers = f"all supports of {rows} x {', '.join(map(str, lengths))} entries, t from {min(steps):g} to {max(steps):g}"
    method = "enumeration of supports"
    if not pair.is_free and pair.n * rows > 12:
        return Check(method, covers, "skipped", reason=f"codes of {pair.n} coordinates have too many supports")
    for n in lengths:
        for t in steps:
            found = _refute(R, _matrices(rows, min(n, 12 // rows)), t)
            if found is not None:
                return Check(method, covers, "failed", found, "another support is better")
    return Check(method, covers, "passed")


def _refute(R: Cardinality, matrices: Array, t: float) -> dict[str, object] | None:
    optima = _optima(R.partner, matrices, t)
    supports = _supports(
        matrices[0].size, min(R.k if R.scope == "sample" else R.k * len(matrices[0]), matrices[0].size)
    )
    for U, z, height in zip(matrices, *optima, strict=True):
        Z = R.prox(U, t)
        mine = 0.5 * ((Z - U) ** 2).sum() + t * R.value(Z).sum()
        pinned = 0.5 * U.ravel() ** 2
        free = 0.5 * (z - U).ravel() ** 2 + t * height.ravel()
        totals = pinned.sum() - supports @ (pinned - free)
        best = int(np.argmin(totals))
        if not mine <= totals[best] + 1e-10 * (1.0 + pinned.sum() + abs(totals[best])):
            better = np.where(supports[best].reshape(U.shape) > 0, z, 0.0)
            return counterexample(U, t, Z, better, (mine, totals[best]))
    return None


def _optima(partner: Separable, matrices: Array, t: float) -> tuple[Array, Array]:
    """Return the best z of each entry left free, and the partner's value there."""
    if partner.is_uniform:
        return _searched(partner, matrices, t)
    searched = [_searched(partner.at(np.array([j])), matrices[..., j], t) for j in range(matrices.shape[-1])]
    return np.stack([z for z, _ in searched], axis=-1), np.stack([height for _, height in searched], axis=-1)


def _searched(r: Separable, U: Array, t: float) -> tuple[Array, Array]:
    def value(z: Array) -> Array:
        return np.asarray(r.value(z[:, None]))

    z, height = best_on_the_line(value, GRID, value(GRID), U.ravel(), t)
    return z.reshape(U.shape), height.reshape(U.shape)


def _supports(n: int, k: int) -> Array:
    """Return all 0-1 vectors of length n with at most k ones."""
    chosen = [support for size in range(k + 1) for support in combinations(range(n), size)]
    vectors = np.zeros((len(chosen), n))
    for vector, support in zip(vectors, chosen, strict=True):
        vector[list(support)] = 1.0
    return vectors


def _matrices(rows: int, n: int) -> Array:
    rng = np.random.default_rng(rows * n)
    random = rng.normal(size=(3, rows, n)) * np.array([0.5, 1.0, 3.0])[:, None, None]
    ties = rng.integers(-2, 3, size=(1, rows, n)).astype(float)
    return np.concatenate([random, ties, np.ones((1, rows, n)), -np.abs(random[:1])])
