"""Pursuits in two precisions choose what float64 alone chooses, where atoms hardly differ and where they depend."""

import numpy as np
import pytest

from proxsae import solve
from proxsae.regularizers import Cardinality
from proxsae.solvers.pursuits import pursuit
from proxsae.solvers.pursuits.pursuit import Pursuit
from proxsae.solvers.pursuits.supports import room_for


def dictionary(rng, kind, p=200, d=40):
    D = rng.standard_normal((p, d))
    if kind == "correlated":
        D = D @ np.diag(np.logspace(0, -3, d)) + 0.01 * rng.standard_normal((p, d))
    if kind == "twins":
        D[1::2] = D[::2] + rng.choice([0.0, 1e-4, 1e-7, 1e-10], (p // 2, 1)) * rng.standard_normal((p // 2, d))
    if kind == "norms":
        D = D * np.logspace(-2, 2, p)[:, None]
        D[::17] = 0.0
    return D


def pursued(plan, X, *, coarse):
    plan.__dict__["coarse"] = plan.coarse if coarse else None
    found = room_for(len(X), plan.k, X.dtype)
    with plan.rows_of_gram() as G:
        plan._pursue(plan.method, X, (X * X).sum(1), G, found)
    return found


@pytest.mark.parametrize("method", ["omp", "ols"])
@pytest.mark.parametrize("kind", ["plain", "correlated", "twins", "norms"])
@pytest.mark.parametrize("exact_atoms", [2048, 0])  # with and without the Gram matrix in float64
def test_supports_are_those_of_float64(method, kind, exact_atoms, monkeypatch):
    monkeypatch.setattr(pursuit, "EXACT_ATOMS", exact_atoms)
    rng = np.random.default_rng(3)
    D, X = dictionary(rng, kind), rng.standard_normal((60, 40))
    X[:20] = rng.standard_normal((20, 4)) @ D[20:24]  # nothing is left after a few atoms
    X[20] = 0.0
    plan = Pursuit(method, D, Cardinality(16), 0.0)
    quick = pursued(plan, X, coarse=True)
    assert ("gram" in plan.__dict__) == bool(exact_atoms)
    sure = pursued(Pursuit(method, D, Cardinality(16), 0.0), X, coarse=False)
    np.testing.assert_array_equal(quick.counts[:21], sure.counts[:21])
    same = [set(a[:m]) == set(b[:m]) for a, b, m in zip(quick.atoms, sure.atoms, sure.counts, strict=True)]
    assert np.mean(same) >= (0.9 if kind == "twins" else 1.0)  # twins at 1e-10 are as good as one another


def test_float32_is_as_good_as_float64():
    rng = np.random.default_rng(4)
    D, X = dictionary(rng, "correlated"), rng.standard_normal((50, 40))
    single = solve(X.astype(np.float32), D.astype(np.float32), Cardinality(8), method="ols", tol=1e-4)
    double = solve(X, D, Cardinality(8), method="ols")
    assert single.objective.mean() <= 1.001 * double.objective.mean()
