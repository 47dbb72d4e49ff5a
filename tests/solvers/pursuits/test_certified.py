"""What the pursuits certify holds, and degenerate dictionaries, odd sizes and scales have defined answers."""

import warnings

import numpy as np
import pytest
import torch
from all_supports import QUADRATIC, best_exchange, best_with
from hypothesis import given, settings
from hypothesis import strategies as st
from pursuit_problems import TEXTS, data, with_at_most
from scipy.sparse import csr_array, issparse
from sklearn.exceptions import ConvergenceWarning

from proxsae.regularizers import Cardinality, Numeric, parse
from proxsae.solvers import solve
from proxsae.solvers.pursuits.pursuit import PURSUITS


def test_what_is_called_globally_optimal_is():
    X, D = data(n=10, p=6, d=9, seed=4)
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 6)))[0].T * np.arange(1.0, 7)[:, None]
    orthogonal = solve(X, Q, Cardinality(2), method="swap")
    single = solve(X, D, with_at_most(1, "0.3*L1 + NonNegative"), method="swap")
    everything = solve(X, D, with_at_most(6, "0.3*L1"), method="ols")
    explained = solve(X @ D.T @ D, D, Cardinality(6), method="omp")
    for s in (orthogonal, single, everything, explained):
        assert set(s.certificate_kinds) == {"globally optimal"}
        assert s.certificate_kind == "globally optimal"
        assert s.converged.all()
    np.testing.assert_allclose(orthogonal.objective, best_with(X, Q, "Zero", 2)[0])
    np.testing.assert_allclose(single.objective, best_with(X, D, "0.3*L1 + NonNegative", 1)[0])
    np.testing.assert_allclose(everything.objective, best_with(X, D, "0.3*L1", 6)[0])
    assert "globally optimal" not in solve(X, D, Cardinality(2), method="swap").certificate_kinds


def test_an_exchange_that_is_priced_with_the_others_held_is_not_called_optimal():
    """Where r is not convex an exchange may pay only once the codes that stay have followed."""
    X, D = data(n=40, p=8, d=4, seed=1)
    X, r = 1.5 * X, parse("0.5*MCP(3.0)")
    s = solve(X, D, r + Cardinality(3), method="swap")
    assert s.converged.all()
    assert set(s.certificate_kinds) <= {"fixed point", "globally optimal"}
    n_beaten = 0
    for x, z, objective in zip(X, s.codes, s.objective, strict=True):
        used = np.flatnonzero(z)
        tries = [[*used[used != out], j] for out in used for j in np.flatnonzero(z == 0)]
        starts = [np.append(z[T[:-1]], 0.0)[None] for T in tries]
        found = [solve(x[None], D[T], r, method="cd", init=start) for T, start in zip(tries, starts, strict=True)]
        n_beaten += any(one.objective[0] < objective - 1e-6 for one in found)
    assert n_beaten > 0


def test_exact_recovery_is_certified():
    rng = np.random.default_rng(0)
    D = data(p=40, d=30)[1]
    Z = np.zeros((20, 40))
    np.put_along_axis(Z, rng.permuted(np.tile(np.arange(40), (20, 1)), axis=1)[:, :3], rng.uniform(1, 2, (20, 3)), 1)
    for method in ("omp", "ols", "swap"):
        s = solve(Z @ D, D, Cardinality(3), method=method)
        exact = s.certificate_kinds == "globally optimal"
        assert exact.sum() >= 18
        np.testing.assert_allclose(s.codes[exact], Z[exact], atol=1e-9)


@st.composite
def degenerate_problems(draw):
    """Duplicates, negatives, zeros, collinear atoms, norms from 1e-6 to 1e6, more atoms than features or fewer."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p, d, n = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    D = rng.standard_normal((p, d))
    for j in range(1, p):
        kind = draw(st.sampled_from(["fresh", "fresh", "copy", "minus", "near", "zero", "sum"]))
        if kind in ("copy", "minus", "near"):
            D[j] = (-1 if kind == "minus" else 1) * D[j - 1] + (1e-9 if kind == "near" else 0) * rng.standard_normal(d)
        elif kind == "zero":
            D[j] = 0
        elif kind == "sum":
            D[j] = D[:j].sum(0)
    if draw(st.booleans()):
        D *= 10.0 ** rng.integers(-6, 7, (p, 1))
    X = rng.standard_normal((n, d))
    if draw(st.booleans()):
        X = X @ D.T @ D / max(np.abs(D).max(), 1e-300) ** 2
    return X, D


@settings(max_examples=100)
@given(
    degenerate_problems(), st.sampled_from(TEXTS), st.sampled_from(list(PURSUITS)), st.sampled_from([0, 1, 2, 5, 50]),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_degenerate_dictionaries_have_defined_answers(problem, text, method, k, dtype):
    X, D = (a.astype(dtype) for a in problem)
    R = with_at_most(k, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        s = solve(X, D, R, method=method, max_iter=200)
    Z = s.codes.astype(np.float64)
    assert s.codes.dtype == dtype
    assert np.isfinite(Z).all()
    assert ((Z != 0).sum(1) <= k).all()
    assert (Z >= 0).all() or not R.is_nonnegative
    F = 0.5 * ((X - Z @ D.astype(np.float64)) ** 2).sum(1) + R.partner.value(Z)
    scale = 0.5 * (X.astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(s.objective, F, rtol=1e-9, atol=1e-12 * scale.max())
    if dtype == np.float64:
        assert (s.objective <= scale * (1 + 1e-9)).all()
        if method not in ("mp", "htp", "iht"):
            assert s.converged.all()
        if method == "swap" and text in QUADRATIC and k < 3:
            for x, z, objective, half in zip(X, Z, s.objective, scale, strict=True):
                assert best_exchange(x, D, z, text, k) >= objective - 1e-6 * half


@pytest.mark.parametrize("method", list(PURSUITS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(method, dtype):
    X, D = data(dtype=dtype)
    none = solve(X, D, Cardinality(0), method=method, sparse_output=True)
    assert issparse(none.codes)
    assert none.codes.nnz == 0
    assert not solve(0 * X, D, Cardinality(3), method=method).codes.any()
    assert not solve(X, 0 * D, Cardinality(3), method=method).codes.any()
    assert solve(X[:0], D, Cardinality(3), method=method).codes.shape == (0, 16)
    one = solve(X[:1], D[:1], Cardinality(3), method=method)
    np.testing.assert_allclose(one.codes, X[:1] @ D[:1].T / (D[:1] ** 2).sum(), rtol=1e-5)
    more = solve(X, D, Cardinality(100), method=method, max_iter=3000, tol=1e-4)
    assert more.converged.all()
    assert set(more.certificate_kinds) == {"globally optimal"}
    dense = solve(X, D, Cardinality(3), method=method)
    sparse = solve(csr_array(X), D, Cardinality(3), method=method, sparse_output=True)
    np.testing.assert_array_equal(sparse.codes.toarray(), dense.codes)
    tensors = solve(torch.from_numpy(X), torch.from_numpy(D), Cardinality(3), method=method)
    np.testing.assert_array_equal(tensors.codes.numpy(), dense.codes)
    assert tensors.converged.dtype == torch.bool
    half = solve(X.astype(np.float16), D, Cardinality(3), method=method)
    assert half.codes.dtype == dtype


@pytest.mark.parametrize("method", ["omp", "ols", "swap"])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e9, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_the_problem_scales_the_codes(method, scale, dtype):
    X, D = data(dtype=dtype)
    s = solve(X, D, Cardinality(3), method=method)
    stretched = solve((X * scale).astype(dtype), D, Cardinality(3), method=method)
    np.testing.assert_allclose(stretched.codes / scale, s.codes, rtol=1e-3 if dtype == np.float32 else 1e-9)
    assert stretched.converged.all()
    shrunk = solve(X, (D * scale).astype(dtype), Cardinality(3), method=method)
    np.testing.assert_allclose(shrunk.codes * scale, s.codes, rtol=1e-3 if dtype == np.float32 else 1e-9)
    assert shrunk.converged.all()


def test_refusals_are_one_sentence():
    X, D = data()
    for R in ("0.1*L1", 'Cardinality(3, "batch")', "GroupL2(2)"):
        with pytest.raises(ValueError, match=r"'ols' needs a Cardinality of each sample"):
            solve(X, D, R, method="ols")
    table = Numeric(lambda z: np.abs(z) ** 1.5) + Cardinality(3)
    with pytest.raises(ValueError, match="formula that can be compiled"):
        solve(X, D, table, method="swap")
    with pytest.raises(ValueError, match="'omp' starts from zero and takes no codes to start from"):
        solve(X, D, Cardinality(3), method="omp", init=np.zeros((12, 16)))
    with pytest.raises(ValueError, match="at most 3 non-zeros"):
        solve(X, D, Cardinality(3), method="swap", init=np.ones((12, 16)))
    with pytest.warns(ConvergenceWarning, match="not converged"):
        s = solve(X, D, Cardinality(3), method="swap", max_iter=0, tol=1e-9)
    assert not s.converged.all()


@pytest.mark.parametrize("method", ["exact", *PURSUITS])
def test_bounds_that_float32_rounds_up_are_met(method):
    bound = 0.8824925965060328
    assert float(np.float32(bound)) > bound
    random = np.random.default_rng(0)
    X, D = (random.normal(size=(n, 7)).astype(np.float32) for n in (60, 6))
    for text in (f"Box(-0.88, {bound}) + Cardinality(3)", f"LInfBall({bound}) + Cardinality(6)"):
        assert solve(3 * X, D, parse(text), method=method).converged.all()
