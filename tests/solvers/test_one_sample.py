"""What is prepared for a dictionary and R is kept from the last call, and never for another."""

import numpy as np
import pytest

from proxsae import solve
from proxsae.regularizers import L1, MCP
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
