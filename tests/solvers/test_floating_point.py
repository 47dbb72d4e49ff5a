"""What the dtype can hold: the stopping rule knows it, and units do not matter."""

import numpy as np
import pytest

from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    Box,
    Cardinality,
    GroupL2,
    Huber,
    L1Ball,
    LInf,
    LogSum,
    Lq,
    NonNegative,
    Simplex,
    SortedL1,
    SquaredL2,
    Translated,
)
from proxsae.solvers import Problem, driver, solve
from proxsae.solvers.certificates import (
    CertificateReport,
    certificate_of,
    duality_gap,
    fit_of,
    joint_duality_gap,
    quick_fit_of,
)
from proxsae.solvers.methods import ALGORITHMS

WEIGHTS = np.linspace(0.05, 0.6, 20)
EVERY_KIND = [
    0.1 * L1(),
    0.1 * L1() + NonNegative(),
    WEIGHTS * L1() + 0.1 * SquaredL2(),
    NonNegative(),
    0.2 * SquaredL2(),
    Box(-0.2, 0.3),
    0.1 * Huber(0.3),
    Translated(0.2 * L1(), WEIGHTS),
    0.1 * L0(),
    Cardinality(3),
    0.1 * L1() + Cardinality(3),
    0.1 * MCP(2.0),
    0.1 * Lq(0.5),
    0.3 * LogSum(1.0),
    0.1 * GroupL2(4),
    Simplex(),
    L1Ball(0.7),
    0.4 * LInf(),
    0.1 * SortedL1(WEIGHTS[::-1]),
]


def data(n=5, p=20, d=12, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)), D / np.linalg.norm(D, axis=1, keepdims=True)


@pytest.mark.parametrize("spread", [1.0, 0.3])
def test_float32_converges_where_float64_does(spread):
    """Atoms around one vector: rounding a code in float32 moves its gap by 1e-5 to 1e-3 of the scale."""
    rng = np.random.default_rng(0)
    D = 1 + spread * rng.standard_normal((200, 64))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    X = rng.standard_normal((20, 64))
    wide = solve(X, D, 0.1 * L1(), max_iter=20_000)
    narrow = solve(X.astype(np.float32), D.astype(np.float32), 0.1 * L1(), max_iter=20_000)
    assert wide.converged.all()
    assert narrow.converged.all()
    scale = 0.5 * (X**2).sum(1)
    assert np.all(narrow.certificate <= 1e-2 * scale)
    assert np.all(narrow.objective - wide.objective <= 1e-5 * scale)
    assert np.all(wide.certificate <= 1.001e-6 * scale)  # in float64 the tolerance is what is met


@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("R", [0.1 * L1(), WEIGHTS[:4].repeat(50) * L1() + NonNegative(), 0.1 * Huber(0.3)], ids=repr)
@pytest.mark.parametrize("spread", [3.0, 0.3])
def test_certificates_of_float32_are_bounds_in_float64(R, tol, spread):
    """Where they rest on float32 products, they hold what rounding may hide there."""
    rng = np.random.default_rng(1)
    D = 1 + spread * rng.standard_normal((200, 64))
    D[::7] = D[1::7][: len(D[::7])]
    D = (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float32)
    X = rng.standard_normal((50, 64)).astype(np.float32)
    s = solve(X, D, R, method="active_set", tol=tol)
    assert s.converged.all()
    _, certify = certificate_of(R, D)
    problem = Problem(X, D, R, 0.1)
    exact = certify(problem, s.codes, fit_of(problem, s.codes))
    assert np.all(exact.certificate <= s.certificate * (1 + 1e-9) + 1e-12)
    assert np.all(s.certificate <= tol * exact.scale + exact.rounding)
    np.testing.assert_allclose(s.objective, exact.objective, rtol=3e-7)


def test_rounding_says_nothing_of_codes_that_are_wrong():
    X, D = (a.astype(np.float32) for a in data())
    s = solve(X, D, 0.1 * L1())
    wrong = s.codes * np.float32(1.01)
    _, certify = certificate_of(0.1 * L1(), D)
    problem = Problem(X, D, 0.1 * L1(), 0.1)
    assert certify(problem, s.codes, fit_of(problem, s.codes)).meets(1e-6).all()
    assert not certify(problem, wrong, fit_of(problem, wrong)).meets(1e-6).any()


@pytest.mark.parametrize("R", EVERY_KIND, ids=repr)
def test_units_do_not_matter(R):
    """With X times a and D times b, the codes are a / b times as large, and the objective a squared times."""
    X, D = data()
    plain = solve(X, D, R, tol=1e-8, max_iter=20_000)
    assert plain.converged.all()
    for a, b in [(1e-30, 1.0), (1e30, 1.0), (1.0, 1e-30), (1.0, 1e30), (1e-30, 1e30), (1e30, 1e-30), (1e30, 1e30)]:
        s = solve(a * X, b * D, (b * b) * R.rescaled(a / b), tol=1e-8, max_iter=20_000)
        assert s.certificate_kind == plain.certificate_kind
        assert s.converged.all()
        exact = np.eye(len(D)) if R != NonNegative() else D  # whose codes are not unique, only what they explain
        np.testing.assert_allclose(s.codes * (b / a) @ exact, plain.codes @ exact, atol=1e-4)
        np.testing.assert_allclose(s.objective / (a * a), plain.objective, rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize(
    ("method", "R"),
    [
        ("active_set", 0.1 * L1()),
        ("cd", 0.1 * L1() + NonNegative()),
        ("cd", 0.1 * L0()),
        ("fista", 0.1 * L1()),
        ("ista", 0.1 * L1() + 0.1 * SquaredL2()),
        ("ista", 0.1 * L0()),
        ("adaptive", 0.1 * L1()),
        ("iht", Cardinality(3)),
        ("cosamp", NonNegative() + Cardinality(3)),
        ("swap", 0.1 * L1() + Cardinality(3)),
        ("exact", 0.1 * L1() + Cardinality(2)),
    ],
    ids=str,
)
def test_every_method_in_any_units(method, R):
    """By powers of ten from 1e-30 to 1e30: X, D and the weight, each alone where R allows it, and together."""
    X, D = data()
    options = {"method": method, "tol": 1e-6, "max_iter": 20_000}
    plain = solve(X, D, R, **options)
    assert plain.converged.all()
    for size in (1e-30, 1e-10, 1e10, 1e30):
        for a, b in [(size, 1.0), (1.0, size), (size, size)]:
            s = solve(a * X, b * D, (b * b) * R.rescaled(a / b), **options)
            assert s.converged.all()
            np.testing.assert_allclose(s.codes * (b / a), plain.codes, atol=1e-3)
            np.testing.assert_allclose(s.objective / (a * a), plain.objective, rtol=1e-4)
            if s.certificate_kind == "duality gap":
                assert (s.certificate <= 1.01e-6 * a * a * 0.5 * (X**2).sum(1).max()).all()


@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * L0(), Cardinality(3), 0.1 * GroupL2(4)], ids=repr)
def test_float32_in_other_units_is_computed_in_float64(R):
    X, D = data()
    method = "fista" if R.is_convex else "ista"
    plain = solve(X, D, R, method=method, tol=1e-5, max_iter=20_000)
    for a, b in [(1e-25, 1.0), (1e25, 1.0), (1e-10, 1e-10), (1e25, 1e25)]:
        scaled = (b * b) * R.rescaled(a / b)
        s = solve(
            (a * X).astype(np.float32), (b * D).astype(np.float32), scaled, method=method, tol=1e-5, max_iter=20_000
        )
        assert s.codes.dtype == np.float32
        assert s.converged.all()
        np.testing.assert_allclose(s.codes * (b / a), plain.codes, atol=1e-2)


@pytest.mark.parametrize(("a", "b"), [(1e25, 1e-25), (1e-25, 1e25)])
def test_codes_beyond_float32_are_refused(a, b):
    X, D = data()
    with pytest.raises(ValueError, match="which float32 cannot hold; pass float64"):
        solve((a * X).astype(np.float32), (b * D).astype(np.float32), Cardinality(3))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_certificate_that_is_not_finite_never_converges():
    s = solve([[1e155, 1e155]], np.eye(2), L1())
    np.testing.assert_array_equal(s.codes, [[1e155, 1e155]])
    assert not s.converged.any()
    for part in range(4):
        numbers = [np.zeros(1), np.zeros(1), np.ones(1), np.zeros(1)]
        assert CertificateReport(*numbers).meets(1e-6).all()
        for bad in (np.inf, np.nan):
            numbers[part] = np.array([bad])
            assert part == 0 or not CertificateReport(*numbers).meets(1e-6).any()


@pytest.mark.parametrize("size", [2049, 2])
def test_dictionaries_of_zero_atoms(size):
    s = solve(np.ones((2, size)), np.zeros((size, size)), "L1")
    assert s.converged.all()
    assert not s.codes.any()


@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * L1() + 0.3 * SquaredL2(), 0.3 * LInf(), Simplex()], ids=repr)
def test_the_gap_through_the_gram_matrix(R):
    """The same to rounding as the one through the features, at any code."""
    X, D = data()
    gap = duality_gap if R.is_separable else joint_duality_gap
    problem = Problem(X, D, R, 0.1, D @ D.T, X @ D.T)
    for spread in (0, 0.1, 10):
        Z = R.prox(spread * np.random.default_rng(1).standard_normal((5, 20)))
        slow, fast = gap(problem, Z), gap(problem, Z, quick_fit_of(problem, Z))
        for a, b in zip(slow, fast, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)


def test_certificates_cost_little_with_a_gram_matrix(monkeypatch):
    """Two looks through the features a sample, whatever the number of steps."""
    seen = []
    monkeypatch.setattr(driver, "fit_of", lambda problem, Z: seen.append(len(Z)) or fit_of(problem, Z))
    X, D = data(n=50, p=10, d=40)
    s = solve(X, D, 0.001 * L1(), method="fista", tol=1e-10, max_iter=20_000)
    assert s.n_iter.max() >= 40
    assert s.converged.all()
    assert sum(seen) <= 2 * len(X)


def test_float32_rows_are_looked_at_in_float64_where_that_decides(monkeypatch):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((50, 30)).astype(np.float32), rng.standard_normal((400, 30)).astype(np.float32)
    looked, steps, update = [], [], ALGORITHMS["active_set"].update
    monkeypatch.setattr(driver, "fit_of", lambda problem, Z: looked.append(len(Z)) or fit_of(problem, Z))
    counted = ALGORITHMS["active_set"]._replace(update=lambda *state: steps.append(1) or update(*state))
    monkeypatch.setitem(ALGORITHMS, "active_set", counted)
    for tol, most in ((1e-3, 0), (1e-6, 50)):  # float32 tells of the first, and of the second that it may be met
        looked.clear()
        assert solve(X, D, L1(), method="active_set", tol=tol, gram_limit=0).converged.all()
        assert sum(looked) <= most
    assert sum(looked) > 0
    assert len(steps) > 4
