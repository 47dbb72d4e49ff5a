"""The pursuits of `solve`: the codes of their peers, the best codes on a support, swaps that no exchange betters."""

import warnings

import numpy as np
import pytest
from all_supports import QUADRATIC, best_exchange, best_on, best_with
from pursuit_problems import TEXTS, data, with_at_most
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import orthogonal_mp_gram

from proxsae.regularizers import Cardinality
from proxsae.solvers import solve
from proxsae.solvers.pursuits.pursuit import PURSUITS


@pytest.mark.parametrize("norms", [1.0, 3.0])
def test_omp_has_the_codes_of_scikit_learn(norms):
    X, D = data(n=40, p=60, d=20)
    D = D * np.random.default_rng(1).uniform(1.0 / norms, norms, (60, 1))
    s = solve(X, D, Cardinality(8), method="omp")
    expected = orthogonal_mp_gram(D @ D.T, D @ X.T, n_nonzero_coefs=8).T
    np.testing.assert_allclose(s.codes, expected, atol=1e-12)
    assert s.converged.all()
    assert set(s.certificate_kinds) == {"local minimum"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ols_has_the_codes_of_spams(dtype):
    spams = pytest.importorskip("spams")
    X, D = data(n=40, p=60, d=20, dtype=dtype)
    s = solve(X, D, Cardinality(8), method="ols")
    expected = spams.omp(np.asfortranarray(X.T), np.asfortranarray(D.T), L=8, eps=0.0).toarray().T
    np.testing.assert_allclose(s.codes, expected, atol=1e-12 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("text", ["Zero", "NonNegative"])
def test_ols_takes_the_atom_that_lowers_the_error_most(text):
    X, D = data(n=15, p=25, d=10)
    D = D * np.random.default_rng(1).uniform(0.3, 3, (25, 1))
    s = solve(X, D, with_at_most(4, text), method="ols")
    if text == "Zero":
        for x, z in zip(X, s.codes, strict=True):
            support = []
            for _ in range(4):
                tries = [[*support, j] for j in range(25) if j not in support]
                support = min(tries, key=lambda t: best_on(x[None], D, text, [t])[0][0])
            np.testing.assert_allclose(z, best_on(x[None], D, text, [support])[1][0], atol=1e-12)
    signed = solve(X, np.concatenate([D, -D]), with_at_most(1, text), method="ols")
    np.testing.assert_allclose(signed.objective, best_with(X, np.concatenate([D, -D]), text, 1)[0], rtol=1e-12)


@pytest.mark.parametrize("method", ["omp", "ols", "htp", "cosamp", "swap"])
@pytest.mark.parametrize("text", QUADRATIC)
def test_codes_are_the_best_on_their_support(method, text):
    X, D = data()
    s = solve(X, D, with_at_most(3, text), method=method)
    assert s.converged.all()
    for x, z, objective in zip(X, s.codes, s.objective, strict=True):
        F, expected = best_on(x[None], D, text, [np.flatnonzero(z)])
        assert objective == pytest.approx(F[0], abs=1e-10)
        np.testing.assert_allclose(z, expected[0], atol=1e-7)


@pytest.mark.parametrize("text", QUADRATIC)
def test_swap_ends_where_no_exchange_helps(text):
    X, D = data(n=25, p=24)
    s = solve(X, D, with_at_most(3, text), method="swap")
    assert s.converged.all()
    assert s.n_iter.max() > 0 or text == "0.5*SquaredL2"
    assert set(s.certificate_kinds) <= {"swap-optimal", "globally optimal"}
    for x, z, objective in zip(X, s.codes, s.objective, strict=True):
        assert best_exchange(x, D, z, text, 3) >= objective - 1e-9


def test_a_code_that_falls_to_zero_when_an_atom_leaves_may_come_back_with_another():
    D, x = np.array([[-1, 0.9, 0.2], [1, 0, 0], [-1, 0.5, 0]]), np.array([[-1.0, 1, 0]])
    for text in ("NonNegative", "0.001*L1 + NonNegative", "Box(0, 5)"):
        s = solve(x, D, with_at_most(2, text), method="swap")
        np.testing.assert_allclose(s.codes, [[0, 1, 2]], atol=0.01)


def test_no_exchange_lowers_the_error_of_non_negative_codes_in_few_dimensions():
    rng = np.random.default_rng(1)
    n_exchanges = 0
    for X, D in zip(rng.standard_normal((10, 20, 3)), rng.standard_normal((10, 12, 3)), strict=True):
        s = solve(X, D, "NonNegative + Cardinality(2)", method="swap")
        assert s.converged.all()
        for x, z, objective in zip(X, s.codes, s.objective, strict=True):
            used, rest = np.flatnonzero(z), np.flatnonzero(z == 0)
            for support in ([*used[used != out], j] for out in used for j in rest):
                assert 0.5 * nnls(D[support].T, x)[1] ** 2 >= objective - 1e-9
                n_exchanges += 1
    assert n_exchanges > 3000


@pytest.mark.parametrize("text", TEXTS)
def test_swap_is_never_above_the_others(text):
    X, D = data(n=60, p=30, d=10, seed=2)
    swap, omp, ols = (solve(X, D, with_at_most(3, text), method=m).objective for m in ("swap", "omp", "ols"))
    assert (swap <= omp + 1e-12).all()
    assert (swap <= ols + 1e-12).all()
    assert swap.mean() < min(omp.mean(), ols.mean()) or text.startswith("MCP")


@pytest.mark.parametrize("text", QUADRATIC)
def test_swap_against_all_supports(text):
    X, D = data(n=50, p=12, d=8, seed=3)
    s = solve(X, D, with_at_most(3, text), method="swap")
    best = best_with(X, D, text, 3)[0]
    assert (s.objective >= best - 1e-9).all()
    assert np.mean(s.objective <= best + 1e-9) > 0.5
    is_global = s.certificate_kinds == "globally optimal"
    np.testing.assert_allclose(s.objective[is_global], best[is_global], atol=1e-6)


@pytest.mark.parametrize("text", ["Zero", "0.2*L1 + NonNegative"])
@pytest.mark.parametrize("method", list(PURSUITS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_the_gram_matrix_on_demand(method, text, dtype):
    """With room for the rows of a single support, and blocks of samples that share it."""
    X, D = data(n=12, p=30, d=12, dtype=dtype)
    expected = solve(X, D, with_at_most(3, text), method=method, tol=1e-4)
    s = solve(X, D, with_at_most(3, text), method=method, tol=1e-4, gram_limit=2)
    np.testing.assert_allclose(s.codes, expected.codes, atol=1e-4 if dtype == np.float32 else 1e-9)
    assert s.method == method
    assert solve(X, D, with_at_most(3, text), gram_limit=2).method == "swap"


def test_warm_starts_are_kept_or_bettered():
    X, D = data(n=30, p=40, d=12)
    best = solve(X, D, Cardinality(4), method="swap")
    again = solve(X, D, Cardinality(4), method="swap", init=csr_array(best.codes))
    assert (again.objective <= best.objective + 1e-12).all()
    random = np.where(np.random.default_rng(0).random((30, 40)) < 0.05, 1.0, 0.0)
    random[(random != 0).sum(1) > 4] = 0
    s = solve(X, D, "NonNegative + Cardinality(4)", method="htp", init=random)
    assert s.converged.all()


@pytest.mark.parametrize("method", ["htp", "iht", "cosamp", "swap"])
def test_codes_of_atoms_of_zeros_are_left_out_of_a_start(method):
    X, D, start = np.array([[1.0, 2]]), np.array([[1.0, 0], [0, 0], [0, 1]]), np.array([[0, 1.0, 1]])
    s = solve(X, D, Cardinality(2), method=method, init=start, max_iter=10)
    np.testing.assert_allclose(s.codes, [[1, 0, 2]])
    assert s.converged.all()


def test_iht_never_rises_and_ends_at_a_fixed_point_of_its_last_step():
    X, D = data(n=20, p=30, d=12, seed=5)
    D = D * np.random.default_rng(1).uniform(0.5, 2.0, (30, 1))
    for text in ("Zero", "0.3*L1 + NonNegative"):
        R = with_at_most(4, text)
        paths = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            paths = [solve(X, D, R, method="iht", max_iter=n).objective for n in range(12)]
        assert (np.diff(paths, axis=0) <= 1e-12).all()
        s = solve(X, D, R, method="iht", max_iter=5000, tol=1e-9)
        assert s.converged.all()
        t = 0.99 / np.linalg.eigvalsh(D @ D.T)[-1]
        np.testing.assert_allclose(R.prox(s.codes + t * (X - s.codes @ D) @ D.T, t), s.codes, atol=1e-4)


def test_cosamp_recovers_what_is_there():
    rng = np.random.default_rng(0)
    D = data(p=60, d=40)[1]
    Z = np.zeros((20, 60))
    np.put_along_axis(Z, rng.permuted(np.tile(np.arange(60), (20, 1)), axis=1)[:, :4], rng.uniform(1, 2, (20, 4)), 1)
    s = solve(Z @ D, D, Cardinality(4), method="cosamp")
    exact = abs(s.codes - Z).max(1) < 1e-9
    assert exact.sum() >= 18
    assert set(s.certificate_kinds[exact]) == {"globally optimal"}
