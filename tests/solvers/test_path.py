"""The path of the lasso from the zero code, on which the active set of a convex R starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import lars_path_gram

from proxsae import solve
from proxsae.regularizers import L1, Box, NonNegative, SquaredL2
from proxsae.solvers import iterate
from proxsae.solvers.compiled_path import follow

N_SAMPLES = 30


def problem(seed, n_features=24, n_components=60, n_common=4):
    """Return samples and correlated atoms of length 1."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((n_components, n_features)) + 2 * rng.standard_normal((1, n_features))
    D[:n_common] = D[n_common] + 0.1 * rng.standard_normal((n_common, n_features))
    return rng.standard_normal((N_SAMPLES, n_features)), D / np.linalg.norm(D, axis=1, keepdims=True)


def end_of_path(G, q, below, above):
    """Return the codes at the end of the path."""
    p, most = len(q), min(len(q), np.linalg.matrix_rank(G))
    index, z, codes = np.empty(p, np.int64), np.empty(p), np.zeros(p)
    inverse_ends = np.stack((1.0 / below, 1.0 / above))
    scratch, wide = np.empty((most + 4, most)), np.empty((4, p), np.float32)
    m = follow(G, G.astype(np.float32), q, below, above, inverse_ends, index, z, scratch, wide)
    codes[index[:m]] = z[:m]
    return codes


@pytest.mark.parametrize("unit", [1e-40, 1.0, 1e40])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_it_ends_where_that_of_scikit_learn_does(share, unit):
    X, D = problem(0)
    G = D @ D.T
    for q in X @ D.T:
        end = np.full(len(D), share * abs(q).max())
        expected = lars_path_gram(q, G, n_samples=1, alpha_min=end[0], method="lasso", return_path=False)[2]
        codes = end_of_path(G, unit * q, -unit * end, unit * end)
        np.testing.assert_allclose(codes / unit, expected, atol=1e-9 * abs(expected).max())


R_OF_THE_PATH = {
    "weights": np.linspace(0.05, 0.3, 60) * L1(),
    "non-negative": 0.1 * L1() + NonNegative(),
    "elastic net": 0.1 * L1() + 0.2 * SquaredL2(),
    "box": 0.1 * L1() + Box(-0.2, 0.5),
    "none where a weight is zero": np.linspace(0.0, 0.3, 60) * L1(),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("R", R_OF_THE_PATH.values(), ids=R_OF_THE_PATH)
def test_codes_are_those_without_it(R, dtype, monkeypatch):
    X, D = (a.astype(dtype) for a in problem(1))
    with_path = solve(X, D, R, method="active_set")
    monkeypatch.setattr(iterate, "PATH_ATOMS", 0)
    without = solve(X, D, R, method="active_set")
    assert with_path.converged.all()
    np.testing.assert_allclose(with_path.objective, without.objective, rtol=1e-6 if dtype == np.float32 else 1e-12)


@given(
    seed=st.integers(0, 10_000),
    n_features=st.integers(1, 8),
    n_components=st.integers(1, 20),
    size=st.sampled_from([1e-25, 1.0, 1e25]),
    weight=st.sampled_from([1e-6, 0.01, 0.3, 10.0]),
    signed=st.booleans(),
)
def test_degenerate_dictionaries(seed, n_features, n_components, size, weight, signed):
    """Atoms that are equal, opposite, zero, sums of others or of integers, whose correlations tie."""
    rng = np.random.default_rng(seed)
    D = rng.integers(-2, 3, (n_components, n_features)).astype(float)
    D[rng.integers(n_components)] = D[0] + D[-1]
    D[rng.integers(n_components)] = -D[0]
    X = rng.integers(-3, 4, (N_SAMPLES, n_features)).astype(float)
    R = weight * L1() if signed else weight * L1() + NonNegative()
    s = solve(size * X, D, size * R if signed else size * weight * L1() + NonNegative(), method="active_set")
    assert s.converged.all()
    residual = size * X - s.codes @ D
    slack = (1 + 1e-6) * size * weight + 1e-6 * size * abs(X).max() * abs(D).max() * n_features
    correlations = residual @ D.T
    assert (correlations <= slack).all()
    assert not signed or (correlations >= -slack).all()


def assert_as_from_a_start_of_zeros(X, D, R):
    """Codes of the path have the F of those of a call that is told to start from zero, which follows none."""
    s, plain = solve(X, D, R), solve(X, D, R, init=np.zeros((len(X), len(D)), X.dtype))
    assert s.converged.all()
    assert plain.converged.all()
    eps = np.finfo(X.dtype).eps
    np.testing.assert_allclose(s.objective, plain.objective, rtol=max(1e-5, 100 * eps), atol=10 * eps * (X**2).sum())


def test_a_tie_of_twins_does_not_lead_beyond_the_next_point():
    """Where two equal atoms are at their end at once, the place of the next point is a quotient of two roundings."""
    rng = np.random.default_rng(77)
    p, d = int(rng.integers(5, 40)), int(rng.integers(5, 40))
    D, X = rng.normal(size=(p, d)), rng.normal(size=(6, d))
    D[1] = D[0]
    for dtype in (np.float64, np.float32):
        assert_as_from_a_start_of_zeros(X.astype(dtype), D.astype(dtype), 0.1 * L1() + NonNegative())


@given(
    seed=st.integers(0, 10_000),
    n_features=st.integers(2, 40),
    n_components=st.integers(2, 40),
    kind=st.sampled_from(["twins", "binary", "integers"]),
    weight=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_twins_and_patterns(seed, n_features, n_components, kind, weight):
    rng = np.random.default_rng(seed)
    D, X = rng.normal(size=(n_components, n_features)), rng.normal(size=(8, n_features))
    if kind == "twins":
        n = n_components // 2
        D[:n] = D[n : 2 * n]
    else:
        D = rng.integers(0 if kind == "binary" else -2, 2, D.shape).astype(float)
    assert_as_from_a_start_of_zeros(X, D, weight * L1() + NonNegative())
