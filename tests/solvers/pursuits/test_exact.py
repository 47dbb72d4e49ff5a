"""All supports: against another enumeration, a search, and degenerate dictionaries."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from all_supports import QUADRATIC, best_with
from pursuit_problems import with_at_most
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from proxsae import solve
from proxsae.regularizers import Cardinality
from proxsae.solvers.pursuits import enumeration, exact
from proxsae.solvers.pursuits.pursuit import Pursuit


def data(n=6, p=10, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((p, d))


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("text", QUADRATIC)
def test_it_is_the_best_of_all_supports(text, k):
    X, D = data()
    s = solve(X, D, with_at_most(k, text), method="exact")
    np.testing.assert_allclose(s.objective, best_with(X, D, text, k)[0], rtol=1e-10)
    assert s.certificate_kind == "globally optimal"
    assert s.converged.all()
    swap = solve(X, D, with_at_most(k, text), method="swap")
    assert (s.objective <= swap.objective + 1e-12).all()


@pytest.mark.parametrize("kind", ["duplicates", "zero", "scales", "one"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_dictionaries(kind, dtype):
    X, D = data(d=4)
    D = {
        "duplicates": np.concatenate([D[:5], D[:5], -D[:2]]),
        "zero": np.concatenate([D[:4], np.zeros((3, 4))]),
        "scales": D * 10.0 ** np.linspace(-6, 6, 10)[:, None],
        "one": D[:1],
    }[kind]
    s = solve(X.astype(dtype), D.astype(dtype), Cardinality(2), method="exact")
    assert s.codes.dtype == dtype
    assert np.isfinite(s.codes).all()
    np.testing.assert_allclose(s.objective, best_with(X, D, "Zero", 2)[0], rtol=1e-4 if dtype == np.float32 else 1e-8)


def test_atoms_of_zeros_are_not_counted_among_the_supports():
    X, D = data()
    padded = np.concatenate([np.zeros((500, D.shape[1])), D])
    s = solve(X, padded, Cardinality(3), method="exact")
    np.testing.assert_allclose(s.objective, best_with(X, D, "Zero", 3)[0], rtol=1e-10)
    assert not s.codes[:, :500].any()


@pytest.mark.parametrize("text", ["0.01*Huber(0.1)", "0.001*L1 + Box(-0.5, 0.7)"])
def test_more_atoms_than_features(text):
    X, D = data(n=8, p=8, d=3, seed=5)
    s = solve(4 * X, D, with_at_most(8, text), method="exact")
    assert (s.objective <= solve(4 * X, D, text, method="fista", max_iter=5000).objective + 1e-8).all()
    assert s.certificate_kind == "globally optimal"
    fewer = solve(4 * X, D, with_at_most(5, text), method="exact")
    swap = solve(4 * X, D, with_at_most(5, text), method="swap")
    assert (fewer.objective <= swap.objective + 1e-9).all()


def test_atoms_that_are_nearly_equal_have_what_is_certain_as_their_certificate():
    """The codes of such a pair may be huge, and F of a support is then known to few digits."""
    n_uncertain = 0
    for seed in range(10):
        X, D = data(n=3, p=6, d=5, seed=seed)
        D[3] = D[1] + 1e-7 * np.random.default_rng(seed + 100).standard_normal(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            s = solve(X, D, Cardinality(3), method="exact")
        swap = solve(X, D, Cardinality(3), method="swap")
        assert (s.objective - s.certificate <= swap.objective + 1e-9).all()
        n_uncertain += int((~s.converged).sum())
    assert n_uncertain > 0


@pytest.fixture
def search(monkeypatch):
    """No support is few enough to be looked at."""
    pytest.importorskip("pyscipopt")
    monkeypatch.setattr(exact, "MOST_SUPPORTS", 0)


SEARCHED = ["Zero", "NonNegative", "0.3*L1 + NonNegative", "0.2*L1 + 0.5*SquaredL2 + Box(-0.2, 0.3)"]


@pytest.mark.parametrize("text", SEARCHED)
def test_the_search_finds_the_best_of_all_supports(text, monkeypatch):
    pytest.importorskip("pyscipopt")
    X, D = data(n=2, p=8, d=5 if "L1" in text else 9, seed=2)
    D = D * np.logspace(-3, 3, 8)[:, None] if text == "Zero" else D
    D[4] *= "L1" not in text
    R = with_at_most(3, text)
    best = solve(X, D, R, method="exact")
    monkeypatch.setattr(exact, "MOST_SUPPORTS", 0)
    starts = {x.tobytes(): solve(x[None], D, with_at_most(2, text), method="swap") for x in X}  # to be bettered
    starts = {x: replace(start, codes=csr_array(start.codes)) for x, start in starts.items()}
    monkeypatch.setattr(Pursuit, "run", lambda self, Y, *_: starts[Y.tobytes()])
    s = solve(X, D, R, method="exact")
    np.testing.assert_allclose(s.objective, best.objective, rtol=1e-9)
    assert s.certificate_kind == "globally optimal"
    assert s.converged.all()
    assert (s.objective - s.certificate <= best.objective + 1e-9).all()


def test_a_search_that_ends_early_has_its_bound(search):
    X, D = data(n=1, p=7, d=9, seed=3)
    X32, D32 = X.astype(np.float32), D.astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="not converged"):
        early = solve(X32, D32, Cardinality(3), method="exact", max_iter=0)
    s = solve(X32, D32, Cardinality(3), method="exact")
    assert s.codes.dtype == np.float32
    assert s.converged.all()
    assert (early.objective - early.certificate <= s.objective).all()
    np.testing.assert_allclose(s.objective, best_with(X, D, "Zero", 3)[0], rtol=1e-4)
    assert not solve(0 * X, D, Cardinality(3), method="exact").codes.any()


def test_refusals_are_one_sentence(monkeypatch):
    X, D = data()
    with pytest.raises(ValueError, match=r"'exact' needs a convex partner, and 0.1\*L0\(\) is not convex"):
        solve(X, D, "0.1*L0 + Cardinality(2)", method="exact")
    with pytest.raises(ValueError, match="'exact' needs a Cardinality of each sample"):
        solve(X, D, "0.1*L1", method="exact")
    many = np.random.default_rng(0).standard_normal((60, 6))
    with pytest.raises(
        ValueError,
        match=r"1,000,000 supports at most, and there are 4.19e\+15 of 20 among 60 atoms that are not zero; a search",
    ):
        solve(X, many, Cardinality(20), method="exact")
    monkeypatch.setattr(exact, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match='pip install pyscipopt to search them, or use "swap"'):
        solve(X, many, "0.1*L1 + Cardinality(20)", method="exact")


def test_ctrl_c_waits_for_few_samples(monkeypatch):
    """What takes long is done in small blocks, so that those before the one that was interrupted are returned."""
    X, D = data(n=40, p=40)
    monkeypatch.setattr(enumeration, "SUPPORTS_AT_ONCE", 5 * 780)  # five samples
    monkeypatch.setattr(enumeration, "n_threads", lambda: 1)
    run = enumeration.Enumeration.run

    def interrupted(self, Y, *rest):
        if (X[20] == Y).all(1).any():
            raise KeyboardInterrupt
        return run(self, Y, *rest)

    whole = solve(X, D, Cardinality(2), method="exact")
    monkeypatch.setattr(enumeration.Enumeration, "run", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted: 20 of 40"):
        s = solve(X, D, Cardinality(2), method="exact")
    np.testing.assert_array_equal(s.codes[:20], whole.codes[:20])
    assert np.isinf(s.certificate[20:]).all()
