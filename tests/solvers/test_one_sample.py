"""What is prepared for a dictionary and R is kept from the last call, and never for another."""

import numpy as np
import pytest

from proxsae import solve
from proxsae.regularizers import L1, MCP, NonNegative, SquaredL2
from proxsae.solvers import prepared


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    D = rng.standard_normal((40, 12))
    return rng.standard_normal((1, 12)), D / np.linalg.norm(D, axis=1, keepdims=True)


def counted(monkeypatch):
    calls, prepare = [], prepared._prepare
    monkeypatch.setattr(prepared, "_prepare", lambda *given: calls.append(given) or prepare(*given))
    monkeypatch.setattr(prepared, "_last", None)
    return calls


@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * MCP(3.0)])
def test_prepared_once(problem, R, monkeypatch):
    X, D = problem
    calls = counted(monkeypatch)
    codes = [solve(x * X, D.copy(), repr(R)).codes for x in (1.0, 1.0, 0.5)]
    assert len(calls) == 1
    np.testing.assert_array_equal(codes[0], codes[1])


@pytest.mark.parametrize("change", ["dictionary", "weight", "method", "dtype"])
def test_prepared_again(problem, change, monkeypatch):
    X, D = problem
    calls = counted(monkeypatch)
    R, method = np.full(40, 0.1) * L1(), "auto"
    solve(X, D, R)
    if change == "dictionary":
        D[3] *= 2.0  # in place
    elif change == "weight":
        R.weight[3] = 0.3  # in place
    elif change == "method":
        method = "cd"
    else:
        X, D = X.astype(np.float32), D.astype(np.float32)
    again = solve(X, D, R, method=method)
    assert len(calls) == 2
    monkeypatch.setattr(prepared, "_last", None)
    np.testing.assert_array_equal(again.codes, solve(X, D, R, method=method).codes)


@pytest.mark.parametrize("method", ["active_set", "cd"])
def test_the_gram_matrix_is_kept_for_the_same_dictionary_alone(problem, method, monkeypatch):
    _, D = problem
    X = np.random.default_rng(1).standard_normal((300, 12))
    counts, gram_of = [], prepared.gram_of
    monkeypatch.setattr(prepared, "gram_of", lambda atoms: counts.append(1) or gram_of(atoms))
    monkeypatch.setattr(prepared, "_last", None)
    for weight in (0.1, 0.2, 0.1):
        kept = solve(X, D.copy(), weight * L1(), method=method).codes
    assert len(counts) == 1
    monkeypatch.setattr(prepared, "_last", None)
    np.testing.assert_array_equal(kept, solve(X, D, 0.1 * L1(), method=method).codes)
    D[3] *= 2.0  # in place
    changed = solve(X, D, 0.1 * L1(), method=method).codes
    assert len(counts) == 3
    monkeypatch.setattr(prepared, "_last", None)
    np.testing.assert_array_equal(changed, solve(X, D, 0.1 * L1(), method=method).codes)


def test_the_method_is_chosen_again_where_a_weight_has_changed_in_place(problem):
    X, D = problem
    R = np.full(40, 0.1) * L1()
    assert solve(X, D, R).method == "active_set"
    R.weight[3] = 0.0  # a code that is never at rest at zero
    assert solve(X, D, R).method == "fista"
    R.weight[3] = 0.1
    assert solve(X, D, R).method == "active_set"
    assert solve(X, D[:30], 0.1 * L1()).method == "active_set"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * L1() + NonNegative(), 0.1 * L1() + 0.05 * SquaredL2(), 0.1 * MCP(3.0)])
def test_a_sample_alone_has_the_codes_that_it_has_among_many(problem, R, dtype):
    _, D = problem
    D = D.astype(dtype)
    X = np.random.default_rng(1).standard_normal((300, 12)).astype(dtype)  # with a Gram matrix, and without
    together = solve(X, D, R, method="active_set")
    for i in range(5):
        alone = solve(X[i : i + 1], D, R, method="active_set")
        assert alone.converged.all()
        np.testing.assert_allclose(alone.objective, together.objective[i : i + 1], rtol=1e-6)
        if R.is_convex:
            np.testing.assert_allclose(alone.codes[0], together.codes[i], atol=1e-5 if dtype == np.float32 else 1e-9)
