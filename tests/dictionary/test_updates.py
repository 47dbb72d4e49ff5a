"""Dictionary steps: none increases what it minimises, and together they find a known dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_array

from proxsae import solve
from proxsae.dictionary import (
    KSVD,
    MOD,
    Learned,
    Online,
    Statistics,
    descend_atoms,
    initial_atoms,
    ksvd_atoms,
    least_squares_atoms,
    match_atoms,
    matched_cosine,
    sparse_signals,
    sphere_atoms,
    updates,
)
from proxsae.dictionary.replacement import doubles, with_replacements
from proxsae.regularizers import L0, L1, Cardinality, GroupL2, L1Ball, NonNegative, SquaredL2


def problem(n=40, p=12, d=6, seed=0, density=0.3, nonnegative=False):
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, p)) * (rng.random((n, p)) < density)
    Z[:, rng.integers(p)] = 0.0
    D = rng.standard_normal((p, d))
    D, Y = (np.abs(a) if nonnegative else a for a in (D, rng.standard_normal((n, d))))
    return csr_array(np.abs(Z) if nonnegative else Z), Y, D / np.linalg.norm(D, axis=1, keepdims=True)


def error(Z, Y, D):
    return 0.5 * ((Y - Z @ D) ** 2).sum()


def sums(Z, Y):
    return (Z.T @ Z).toarray(), Z.T @ Y


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["sphere", "ball"]), st.booleans(), st.sampled_from([0.02, 0.3, 1.0]))
def test_descent_never_increases_the_error_and_keeps_atoms_admissible(seed, atoms, nonnegative, density):
    Z, Y, D = problem(seed=seed, density=density, nonnegative=nonnegative)
    before = error(Z, Y, D)
    for _ in range(3):
        new = descend_atoms(D, *sums(Z, Y), atoms=atoms, nonnegative=nonnegative)
        assert error(Z, Y, new) <= before * (1 + 1e-12)
        D, before = new, error(Z, Y, new)
    norms = np.linalg.norm(D, axis=1)
    assert (norms <= 1 + 1e-12).all()
    assert atoms == "ball" or (norms >= 1 - 1e-12).all()
    assert not nonnegative or (D >= 0).all()


@pytest.mark.parametrize("pull", [[-1.0, -0.1], [-1.0, 0.0], [-0.2, -0.1]])
def test_a_nonnegative_atom_without_a_positive_pull_is_still_the_best(pull):
    D, A, B = np.array([[1.0, 0.0]]), np.ones((1, 1)), np.array([pull])
    angles = np.linspace(0, np.pi / 2, 101)
    best = max((np.cos(angle) * pull[0] + np.sin(angle) * pull[1]) for angle in angles)
    found = descend_atoms(D, A, B, nonnegative=True)
    np.testing.assert_array_equal(found, [[0.0, 1.0]])
    assert (found @ pull).item() == pytest.approx(best)
    np.testing.assert_array_equal(descend_atoms(D, A, 0 * B, nonnegative=True), D)


def test_descent_in_blocks_is_descent_atom_by_atom(monkeypatch):
    Z, Y, D = problem(n=200, p=30, density=0.5)
    A, B = sums(Z, Y)
    plain = D.copy()
    for j in range(30):
        if A[j, j] > 0:
            u = plain[j] + (B[j] - A[j] @ plain) / A[j, j]
            plain[j] = u / np.linalg.norm(u)
    np.testing.assert_allclose(descend_atoms(D, A, B), plain, rtol=1e-10)
    monkeypatch.setattr(updates, "BLOCK", 7)
    np.testing.assert_allclose(descend_atoms(D, A, B), plain, rtol=1e-10)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_descent_in_the_ball_ends_at_the_minimum(nonnegative):
    Z, Y, D = problem(p=5, d=3, density=1.0)
    A, B = sums(Z, Y)
    ours = np.abs(D)
    for _ in range(3000):
        ours = descend_atoms(ours, A, B, atoms="ball", nonnegative=nonnegative)
    best = minimize(
        lambda v: error(Z, Y, v.reshape(5, 3)),
        0.1 * np.abs(D).ravel(),
        jac=lambda v: (A @ v.reshape(5, 3) - B).ravel(),
        method="SLSQP",
        bounds=[(0 if nonnegative else None, None)] * 15,
        constraints={"type": "ineq", "fun": lambda v: 1 - (v.reshape(5, 3) ** 2).sum(1)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert error(Z, Y, ours) == pytest.approx(best.fun, rel=1e-7)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["sphere", "ball"]), st.sampled_from([0.02, 0.3, 1.0]), st.booleans())
def test_least_squares_is_that_of_numpy(seed, atoms, density, few):
    Z, Y, D = problem(n=7 if few else 40, seed=seed, density=density)
    new, scale = least_squares_atoms(D, *sums(Z, Y), atoms=atoms)
    best = np.linalg.lstsq(Z.toarray(), Y)[0]
    rescaled = Z.multiply(scale[None, :])
    assert error(rescaled, Y, new) == pytest.approx(error(Z, Y, best), rel=1e-7, abs=1e-9)
    assert (np.linalg.norm(new, axis=1) <= 1 + 1e-12).all()
    unused = np.diff(Z.tocsc().indptr) == 0
    assert unused.any()
    np.testing.assert_allclose(new[unused], D[unused])


def objective(Z, Y, D, R):
    return error(Z, Y, D) + R.value(Z.toarray()).sum()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from(
        [
            Cardinality(4),
            0.3 * L1() + Cardinality(4),
            0.2 * L1(),
            0.1 * L0(),
            0.2 * L1() + NonNegative(),
            0.1 * L1() + 0.2 * SquaredL2(),
            0.3 * GroupL2(4),
            L1Ball(2.0),
        ]
    ),
)
def test_ksvd_never_increases_the_objective(seed, R):
    Z, Y, D = problem(seed=seed)
    Z = csr_array(R.prox(Z.toarray()))
    given = Z.tocsc()  # whose columns are those that are worked on
    new, codes = ksvd_atoms(D, given, Y, R)
    assert (given != Z).nnz == 0
    assert objective(codes, Y, new, R) <= objective(Z, Y, D, R) * (1 + 1e-12)
    assert ((codes != 0) > (Z != 0)).nnz == 0
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1)


def test_ksvd_of_one_atom_ends_at_the_singular_pair():
    rng = np.random.default_rng(0)
    Y, D, Z = rng.standard_normal((30, 5)), np.eye(5)[:1], csr_array(rng.standard_normal((30, 1)))
    for _ in range(200):
        D, Z = ksvd_atoms(D, Z, Y, Cardinality(1))
    U, s, V = np.linalg.svd(Y)
    np.testing.assert_allclose(np.abs(D @ V[0]), 1, rtol=1e-8)
    np.testing.assert_allclose(np.abs(Z.toarray()[:, 0] @ U[:, 0]), s[0], rtol=1e-8)
    positive, _ = ksvd_atoms(np.abs(D), Z, Y, Cardinality(1), nonnegative=True)
    assert (positive >= 0).all()


def test_statistics_give_the_best_intercept():
    Z, X, D = problem()
    X = X + 3.0
    S = Statistics.zeros(12, 6).plus(Z[:25], X[:25]).plus(Z[25:], X[25:])
    b = S.intercept(D)
    np.testing.assert_allclose(b, (X - Z @ D).mean(0))
    A, B = S.centred
    centred = Z.toarray() - Z.toarray().mean(0)
    np.testing.assert_allclose(A, centred.T @ centred, atol=1e-10)
    np.testing.assert_allclose(B, centred.T @ (X - X.mean(0)), atol=1e-10)
    old = Statistics.zeros(12, 6).plus(Z, X).plus(Z[:5], X[:5], keep=0.25)
    np.testing.assert_allclose(old.gram, 0.25 * S.gram + (Z[:5].T @ Z[:5]).toarray())
    assert old.weight == 15


# --- atoms at the start and anew -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["data", "k-means++", "random"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_initial_atoms_are_distinct_and_of_norm_one(how, nonnegative):
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((50, 8))
    Y = np.vstack([Y, -3 * Y, np.zeros((4, 8))])
    for n in (5, 30, 70):
        D = initial_atoms(Y, n, how, np.random.default_rng(1), nonnegative=nonnegative)
        assert D.shape == (n, 8)
        np.testing.assert_allclose(np.linalg.norm(D, axis=1), 1)
        assert not doubles(D, np.ones(n), signed=True).any() or nonnegative or n == 70
        assert not nonnegative or (D >= 0).all()
    for degenerate in (np.zeros((3, 8)), np.ones((3, 8))):
        D = initial_atoms(degenerate, 4, how, np.random.default_rng(1))
        np.testing.assert_allclose(np.linalg.norm(D, axis=1), 1)


def test_k_means_takes_every_cluster():
    rng = np.random.default_rng(0)
    centres = sphere_atoms(10, 20, random_state=0)
    sizes = np.array([2000, *[20] * 9])
    Y = np.repeat(centres, sizes, axis=0) * rng.uniform(1, 2, (sizes.sum(), 1))
    Y += 1e-3 * rng.standard_normal(Y.shape)
    assert matched_cosine(initial_atoms(Y, 10, "k-means++", np.random.default_rng(0)), centres) > 0.99


def test_the_less_used_of_two_alike_is_double():
    D = np.array([[1, 0, 0], [0, 1, 0], [1, 0.01, 0], [0, -1, 0], [0, 0, 1.0]])
    usage = np.array([1.0, 5, 2, 5, 0])
    assert doubles(D, usage, signed=True).tolist() == [True, False, False, True, False]
    assert doubles(D, usage, signed=False).tolist() == [True, False, False, False, False]


def test_dead_atoms_become_the_worst_residuals():
    D, random = np.eye(4), np.random.default_rng(0)
    residual = np.array([[1, 1, 0, 0], [9, 0, 0.1, 0], [2, 2, 0, 0], [0, 0, 3, 3], [0, 0, 0, 0.0]])
    new = with_replacements(D, np.array([False, False, True, True]), residual, random)
    np.testing.assert_array_equal(new[:2], D[:2])
    np.testing.assert_allclose(new[2:], np.array([[0, 0, 1, 1], [1, 1, 0, 0]]) / 2**0.5)
    assert with_replacements(D, np.zeros(4, bool), residual, random) is D
    random_atom = with_replacements(D, np.array([True, False, False, False]), 0 * residual, random)
    np.testing.assert_allclose(np.linalg.norm(random_atom, axis=1), 1)


# --- learning ---------------------------------------------------------------------------------------------------------


def learned(X, R, update, p, n_epochs=8, batch=200):
    random = np.random.default_rng(0)
    state = Learned.start(X, p, update, random)
    for _ in range(n_epochs):
        order = random.permutation(len(X))
        for first in range(0, len(X), batch):
            x = X[order[first : first + batch]]
            codes = solve(x, state.atoms, R, intercept=state.intercept, tol=1e-3, sparse_output=True).codes
            state = state.step(x, csr_array(codes), R, update, random, dead_after=len(X))
    return state


@pytest.mark.parametrize("update", [Online(), MOD(), KSVD(), Online(init="k-means++"), MOD(atoms="ball")])
def test_a_known_dictionary_is_found(update):
    D = sphere_atoms(24, 16, random_state=0)
    data = sparse_signals(2000, D, 2, exact=True, noise=0.01, random_state=1)
    state = learned(data.X + 5.0, 0.4 * L1(), update, 24)
    assert matched_cosine(state.atoms, D) > 0.99
    np.testing.assert_allclose(state.intercept, 5, atol=0.1)


def test_without_an_intercept_a_step_is_that_of_uncentred_codes():
    Z, Y, D = problem()
    X, random = Y + 5.0, np.random.default_rng(0)
    before = Learned(D, np.zeros(6), Statistics.zeros(*D.shape), np.zeros(12, dtype=np.int64), 0)
    mod, online = (before.step(X, Z, L1(), kind(intercept=False), random) for kind in (MOD, Online))
    used = Z.toarray().any(axis=0)
    best = np.linalg.lstsq(Z.toarray()[:, used], X)[0]
    np.testing.assert_allclose(mod.atoms[used], best / np.linalg.norm(best, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(online.atoms, descend_atoms(D, *sums(Z, X)), atol=1e-12)
    start = Learned.start(X, 12, Online(intercept=False), random)
    for state in (mod, online, start):
        np.testing.assert_array_equal(state.intercept, np.zeros(6))
    assert np.isclose(start.atoms @ X.T, np.linalg.norm(X, axis=1)).any(axis=1).all()  # rows as they are


def test_nonnegative_atoms_are_found():
    D = np.abs(sphere_atoms(24, 24, random_state=0)) ** 3
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    data = sparse_signals(2000, D, 2, exact=True, bipolar=0.0, random_state=1)
    state = learned(data.X, 0.1 * L1() + NonNegative(), Online(nonnegative=True), 24)
    assert (state.atoms >= 0).all()
    assert matched_cosine(state.atoms, D, signed=False) > 0.99


def test_a_dictionary_begun_with_doubles_and_dead_atoms_recovers():
    D = sphere_atoms(20, 16, random_state=0)
    data = sparse_signals(2000, D, 2, exact=True, random_state=1)
    random, update, R = np.random.default_rng(0), Online(), 0.3 * L1()
    start = Learned.start(data.X, 20, update, random)
    atoms = start.atoms.copy()
    atoms[5:] = atoms[0]
    atoms[5:10] += 1e-3 * random.standard_normal((5, 16))
    state = start._replace(atoms=atoms)
    for first in [*range(0, 2000, 100)] * 3:
        x = data.X[first : first + 100]
        codes = solve(x, state.atoms, R, intercept=state.intercept, tol=1e-3, sparse_output=True).codes
        state = state.step(x, csr_array(codes), R, update, random, dead_after=2000)
    assert (match_atoms(state.atoms, D).cosine > 0.95).sum() >= 18
    assert not doubles(state.atoms, np.ones(20), signed=True).any()


@pytest.mark.parametrize("update", [Online(), MOD(), KSVD(), Online(atoms="ball", nonnegative=True)])
@pytest.mark.parametrize("X", [np.zeros((5, 3)), np.ones((5, 3)), np.eye(3)[[0] * 5], np.eye(3)[:1]])
def test_constant_double_and_few_rows_have_a_finite_answer(update, X):
    state = learned(X, 10.0 * L1(), update, 8, n_epochs=11, batch=5)  # no code is free of 0
    for part in (state.atoms, state.intercept, *state.statistics):
        assert np.isfinite(part).all()
    assert (np.linalg.norm(state.atoms, axis=1) > 0.99).all()
    np.testing.assert_allclose(state.intercept, X.mean(0), atol=0.6)
    state = learned(X, 0.1 * L1(), update, 8, n_epochs=11, batch=5)
    assert np.isfinite(state.atoms).all()


def test_a_batch_of_no_samples_changes_nothing():
    X = np.random.default_rng(0).normal(size=(20, 3))
    before = Learned.start(X, 4, Online(), np.random.default_rng(0))
    after = before.step(X[:0], csr_array((0, 4)), L1(), Online(), np.random.default_rng(0))
    assert after is before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Online(init="zeros"), "init must be one of data, k-means\\+\\+, random, got 'zeros'"),
        (lambda: Online(atoms="cube"), "atoms must be one of sphere, ball, got 'cube'"),
        (lambda: Online(forgetting=-1), "forgetting must be finite and >= 0, got -1"),
        (lambda: Online(forgetting="all"), "forgetting must be finite and >= 0, got 'all'"),
        (lambda: Online(nonnegative="x"), "nonnegative must be True or False, got 'x'"),
        (lambda: Online(intercept=None), "intercept must be True or False, got None"),
        (
            lambda: initial_atoms(np.full((3, 3), np.nan), 3, "data", np.random.default_rng(0)),
            "Y must be finite, got NaN or infinity",
        ),
        (lambda: MOD(nonnegative=True), 'for nonnegative atoms take "online" or "ksvd"'),
        (lambda: KSVD(atoms="ball"), 'for those in the ball take "online" or "mod"'),
        (
            lambda: descend_atoms(np.eye(3), np.eye(2), np.eye(3)),
            r"shapes \(3, 3\) and \(3, 3\) .* got \(2, 2\), \(3, 3\)",
        ),
        (lambda: descend_atoms(np.eye(3), np.eye(3), np.eye(3), atoms="cube"), "atoms must be one of .* got 'cube'"),
        (lambda: least_squares_atoms(np.eye(3), np.eye(3), np.eye(2)), "A and B must have shapes"),
        (lambda: ksvd_atoms(np.eye(3), csr_array(np.eye(2)), np.eye(3), L1()), "D, Z and Y must have shapes"),
        (lambda: initial_atoms(np.eye(3), 3, "rows", np.random.default_rng(0)), "how must be one of .* got 'rows'"),
        (lambda: initial_atoms(np.ones(3), 3, "data", np.random.default_rng(0)), r"Y must be a matrix .* shape \(3,\)"),
    ],
)
def test_bad_options_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_intercept_of_light_samples_is_their_mean():
    sums = Statistics.zeros(3, 6).plus(csr_array((2, 3)), np.ones((2, 6)), weights=np.array([0.05, 0.05]))
    np.testing.assert_allclose(sums.intercept(np.zeros((3, 6))), 1.0)
