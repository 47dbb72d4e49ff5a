"""The certificate against what other solvers reach, and against its own definition."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import sparse_encode

from proxsae.regularizers import (
    L1,
    Blocks,
    Box,
    GroupL2,
    Huber,
    KSupport,
    KSupportNorm,
    L1Ball,
    L2Ball,
    LInf,
    LInfBall,
    NonNegative,
    Simplex,
    SortedL1,
    SquaredL2,
    Tilt,
    Translated,
    parse,
)
from proxsae.solvers import solve
from proxsae.solvers.certificates import (
    certificate_of,
    duality_gap,
    fixed_point_residual,
    inward_direction,
    joint_duality_gap,
)
from proxsae.solvers.problem import Problem, lipschitz_constant
from proxsae.verification.oracles.convex import expression_of

WEIGHTS = np.linspace(0.05, 0.6, 12)

CONVEX = {
    "L1": 0.2 * L1(),
    "weighted L1": WEIGHTS * L1(),
    "nonnegative L1": 0.2 * L1() + NonNegative(),
    "ridge": 0.3 * SquaredL2(),
    "nonnegative ridge": 0.3 * SquaredL2() + NonNegative(),
    "elastic net": 0.2 * L1() + 0.1 * SquaredL2(),
    "elastic net with zero weights": (WEIGHTS * (WEIGHTS > 0.3)) * L1() + 0.1 * SquaredL2(),
    "nonnegative elastic net": 0.2 * L1() + 0.1 * SquaredL2() + NonNegative(),
    "box": Box(-0.2, 0.3),
    "box away from zero": Box(0.1, 0.3),
    "L1 in a box": 0.2 * L1() + Box(-WEIGHTS, 2 * WEIGHTS),
    "elastic net in a box": 0.1 * L1() + 0.1 * SquaredL2() + Box(-0.1, 0.2),
    "Huber": 0.2 * Huber(0.3),
    "nonnegative Huber with a tilt": 0.2 * Huber(0.3) + NonNegative() + Tilt(-0.1),
    "L1 with a tilt": WEIGHTS * L1() + Tilt(WEIGHTS[::-1] * WEIGHTS),
    "L1 from elsewhere": Translated(0.2 * L1(), WEIGHTS) + NonNegative(),
    "L-infinity ball": LInfBall(0.2) + Tilt(0.3),
}


JOINT = {
    "group lasso": 0.2 * GroupL2(3),
    "sparse group lasso": 0.1 * GroupL2(4) + WEIGHTS / 5 * L1(),
    "nonnegative group lasso with a ridge": 0.1 * GroupL2(3) + NonNegative() + 0.1 * SquaredL2(),
    "group lasso with a tilt": 0.2 * GroupL2(3) + Tilt(0.1 * WEIGHTS),
    "simplex": Simplex(),
    "L1 ball": L1Ball(0.7),
    "L2 ball": L2Ball(0.3) + 0.02 * L1(),
    "L-infinity norm": 0.4 * LInf() + NonNegative(),
    "sorted L1": SortedL1(WEIGHTS[::-1]),
    "k-support norm": 0.3 * KSupportNorm(3),
    "half its square": 0.3 * KSupport(3),
    "elsewhere": Translated(0.3 * KSupportNorm(2), WEIGHTS),
    "blocks": Blocks([(0.2 * L1() + NonNegative(), 5), (0.3 * LInf(), 4), (Simplex(), 3)]),
}


def data(n=5, p=12, d=8, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)), D / np.linalg.norm(D, axis=1, keepdims=True)


def optimum(x, D, R):
    """Minimise F with Clarabel, from the terms of R, and return min F."""
    z = cp.Variable(len(D))
    penalty, constraints = 0.0, []
    for term in R.terms:
        if isinstance(term, L1):
            penalty += cp.sum(cp.multiply(np.broadcast_to(term.weight, len(D)), cp.abs(z)))
        elif isinstance(term, SquaredL2):
            penalty += 0.5 * cp.sum(cp.multiply(np.broadcast_to(term.weight, len(D)), cp.square(z)))
        elif isinstance(term, NonNegative):
            constraints.append(z >= 0)
        elif isinstance(term, Box):
            constraints += [z >= term.lower, z <= term.upper]
        else:
            value, more = expression_of(term, z)
            penalty, constraints = penalty + value, constraints + more
    objective = cp.Minimize(0.5 * cp.sum_squares(x - z @ D) + penalty)
    accuracy = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    return cp.Problem(objective, constraints).solve(solver=cp.CLARABEL, **accuracy)


@pytest.mark.parametrize("name", [*CONVEX, *JOINT])
def test_optimal_by_clarabel(name):
    R = (CONVEX | JOINT)[name]
    X, D = data(n=3)
    s = solve(X, D, R, tol=1e-10, max_iter=20_000)
    assert s.certificate_kind == "duality gap"
    assert s.converged.all()
    best = np.array([optimum(x, D, R) for x in X])
    np.testing.assert_allclose(s.objective, best, atol=1e-8)
    np.testing.assert_allclose(s.objective, 0.5 * ((X - s.codes @ D) ** 2).sum(1) + R.value(s.codes), atol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.sampled_from(list(CONVEX)), st.integers(0, 10**6), st.floats(0, 3))
def test_the_gap_bounds_the_distance_to_the_optimum(name, seed, spread):
    """At any code of the domain, however far."""
    R = CONVEX[name]
    X, D = data(seed=seed % 3)
    best = solve(X, D, R, tol=1e-12, max_iter=50_000)
    problem = Problem(X, D, R, 0.1)
    Z = R.prox(best.codes + spread * np.random.default_rng(seed).standard_normal(best.codes.shape))
    report = duality_gap(problem, Z)
    assert np.all(report.certificate >= report.objective - best.objective - 1e-10)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.sampled_from(list(JOINT)), st.integers(0, 10**6), st.floats(0, 3))
def test_the_gap_of_a_joint_term_bounds_the_distance_to_the_optimum(name, seed, spread):
    R = JOINT[name]
    X, D = data(seed=seed % 3)
    best = solve(X, D, R, tol=1e-11, max_iter=50_000)
    Z = R.prox(best.codes + spread * np.random.default_rng(seed).standard_normal(best.codes.shape))
    report = joint_duality_gap(Problem(X, D, R, 0.1), Z)
    assert np.all(report.certificate >= report.objective - best.objective - 1e-9)
    assert np.isfinite(report.certificate).all()


def test_the_gap_is_primal_minus_dual():
    X, D = data()
    Z = (0.3 * L1()).prox(np.random.default_rng(0).standard_normal((5, 12)))
    report = duality_gap(Problem(X, D, 0.3 * L1(), 0.1), Z)
    residual = X - Z @ D
    theta = residual * np.minimum(1, 0.3 / abs(residual @ D.T).max(1, keepdims=True))
    primal = 0.5 * (residual**2).sum(1) + 0.3 * abs(Z).sum(1)
    dual = (theta * X).sum(1) - 0.5 * (theta**2).sum(1)  # R* is 0 on its domain
    np.testing.assert_allclose(report.certificate, primal - dual, rtol=1e-12)
    np.testing.assert_allclose(report.objective, primal, rtol=1e-14)


@pytest.mark.parametrize("algorithm", ["lasso_cd", "lasso_lars"])
def test_optimal_by_scikit_learn(algorithm):
    X, D = data(n=20, p=30, d=20)
    s = solve(X, D, 0.15 * L1(), tol=1e-11, max_iter=20_000)
    theirs = sparse_encode(X, D, algorithm=algorithm, alpha=0.15, max_iter=20_000)
    objective = 0.5 * ((X - theirs @ D) ** 2).sum(1) + 0.15 * abs(theirs).sum(1)
    assert np.all(s.objective <= objective + 1e-9)
    assert np.all(objective - s.objective <= duality_gap(Problem(X, D, 0.15 * L1(), 0.1), theirs).certificate + 1e-9)
    np.testing.assert_allclose(s.codes, theirs, atol=1e-3)


@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * GroupL2(2)], ids=str)
def test_no_size_excuses_codes_worse_than_zero(R):
    """The scale and the rounding of a gap grow with the codes; those that are worse than the zero code gain nothing."""
    rng = np.random.default_rng(0)
    D, X = rng.standard_normal((8, 5)), rng.standard_normal((3, 5))
    _, certify = certificate_of(R, D)
    for size in (1e3, 1e20, 1e100):
        report = certify(Problem(X, D, R, 0.1), size * rng.standard_normal((3, 8)))
        assert not report.meets(0.5).any()
    assert certify(Problem(X, D, R, 0.1), np.zeros((3, 8))).meets(1.0).all()


def test_infeasible_codes_have_an_infinite_gap():
    X, D = data()
    report = duality_gap(Problem(X, D, L1() + NonNegative(), 0.1), -np.ones((5, 12)))
    assert np.isinf(report.certificate).all()
    assert np.isfinite(report.scale).all()


@pytest.mark.parametrize("R", [Simplex(), 0.1 * GroupL2(3) + 0.05 * L1(), L1Ball(0.5)], ids=repr)
def test_float32_codes_of_a_joint_term_are_certified(R):
    X, D = (torch.from_numpy(a).float() for a in data())
    s = solve(X, D, R)
    assert s.certificate_kind == "duality gap"
    assert s.converged.all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_float32_codes_are_certified_in_float64(kind):
    """With the parameters as float32 rounds them: 0.3f exceeds 0.3, and is inside the box the solver saw."""
    X, D = (kind(a.astype(np.float32)) for a in data())
    s = solve(X, D, 0.1 * L1() + Box(-0.3, 0.3))
    assert float(s.codes.max()) > 0.3
    for values in (s.objective, s.certificate):
        assert "float64" in str(values.dtype)
        assert np.isfinite(np.asarray(values)).all()
    assert s.converged.all()


def test_nonnegative_least_squares_is_certified():
    """NonNegative alone: the dual point is moved into the cone along a direction inside it."""
    from scipy.optimize import nnls

    for seed, (p, d), positive in [(0, (6, 10), False), (1, (12, 8), True), (2, (14, 10), False)]:
        X, D = data(n=6, p=p, d=d, seed=seed)
        D = abs(D) if positive else D
        s = solve(X, D, NonNegative(), tol=1e-9, max_iter=50_000)
        assert s.certificate_kind == "duality gap"
        assert s.converged.all()
        best = np.array([0.5 * nnls(D.T, x)[1] ** 2 for x in X])
        np.testing.assert_allclose(s.objective, best, atol=1e-7)
        assert np.all(s.certificate >= s.objective - best - 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["active_set", "fista"])
def test_the_gap_of_atoms_that_reach_every_point_is_F(method, dtype):
    X, half = data(p=8, d=8)
    X, D = X.astype(dtype), np.vstack([half, -half]).astype(dtype)
    s = solve(X, D, NonNegative(), method=method, max_iter=20_000)
    assert s.certificate_kind == "duality gap"
    assert s.converged.all()
    assert (s.objective <= 1e-5 * (X**2).sum(1)).all()
    report = duality_gap(Problem(X, D, NonNegative(), 0.1), np.full((5, 16), 1e4, dtype))  # which D maps to 0
    np.testing.assert_allclose(report.certificate, report.objective)
    assert not report.meets(0.5).any()  # the size of the codes is no excuse


def test_some_atoms_unpenalised():
    X, D = data(n=4)
    weights = np.where(np.arange(12) % 3 == 0, 0.0, 0.2)
    R = weights * L1() + NonNegative()
    s = solve(X, D, R, tol=1e-9, max_iter=50_000)
    assert s.certificate_kind == "duality gap"
    np.testing.assert_allclose(s.objective, [optimum(x, D, R) for x in X], atol=1e-7)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6))
def test_inward_direction_exists_or_zero_is_in_the_hull(seed, p, d):
    atoms = np.random.default_rng(seed).standard_normal((p, d))
    direction = inward_direction(atoms)
    if direction is not None:
        assert np.all(atoms @ direction > 0)
        return
    weights = cp.Variable(p, nonneg=True)
    units = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    distance = cp.Problem(cp.Minimize(cp.norm(weights @ units)), [cp.sum(weights) == 1]).solve(solver=cp.CLARABEL)
    assert distance < 1e-3


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0.1*L1", "duality gap"),
        ("0.1*L1 + NonNegative", "duality gap"),
        ("Box(-1, 1)", "duality gap"),
        ("Zero", "fixed-point residual"),
        ("0.0*L1", "fixed-point residual"),
        ("NonNegative", "fixed-point residual"),
        ("0.1*L1 + Tilt(0.05)", "duality gap"),
        ("0.1*L1 + Tilt(-0.2)", "fixed-point residual"),
        ("0.1*L1 + Tilt(-0.2) + NonNegative", "fixed-point residual"),
        ("0.1*Huber", "duality gap"),
        ("0.1*GroupL2(3)", "duality gap"),
        ("0.1*LInf + Tilt(0.3)", "fixed-point residual"),
        ("0.0*LInf", "fixed-point residual"),
        ("GroupL2(3, [0, 1, 1, 1]) + 0.1*L1", "duality gap"),
        ("GroupL2(3, [0, 1, 1, 1])", "fixed-point residual"),
        ("Blocks([(Simplex, 6), (Zero, 6)])", "fixed-point residual"),
        ("TreeGroups([[0, 1], [0, 1, 2]])", "fixed-point residual"),
        ("0.1*L0", "fixed-point residual"),
        ("Cardinality(2)", "fixed-point residual"),
        ("0.1*L1 + Cardinality(2)", "fixed-point residual"),
    ],
)
def test_kind_of_certificate(text, kind):
    _, half = data(p=6)
    D = np.vstack([half, -half])  # 0 is in the hull of the atoms: no strictly feasible dual point without a penalty
    assert certificate_of(parse(text), D)[0] == kind


def test_fixed_point_residual_is_its_definition():
    X, D = data()
    R = parse("Cardinality(3)")
    t = 0.9 / lipschitz_constant(D)
    Z = R.prox(np.random.default_rng(0).standard_normal((5, 12)))
    report = fixed_point_residual(Problem(X, D, R, t), Z)
    move = np.linalg.norm(Z - R.prox(Z + t * (X - Z @ D) @ D.T, t), axis=1)
    size = np.maximum(np.linalg.norm(Z, axis=1), np.sqrt(t) * np.linalg.norm(X, axis=1))
    np.testing.assert_allclose(report.certificate, move / size, rtol=1e-10)
    np.testing.assert_allclose(report.objective, 0.5 * ((X - Z @ D) ** 2).sum(1), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("text", "method"), [("Zero", "fista"), ("0.1*MCP(3)", "ista"), ("0.1*MCP(3)", "cd")])
def test_a_far_start_is_not_taken_for_a_fixed_point(text, method, dtype):
    X, D = (A.astype(dtype) for A in data())
    far = (1e4 * np.random.default_rng(1).standard_normal((5, 12))).astype(dtype)
    s = solve(X, D, text, method=method, tol=1e-3, init=far, max_iter=100_000)
    assert s.converged.all()
    assert (s.objective <= (X * X).sum(1)).all()


@pytest.mark.parametrize(("text", "method"), [("Zero", "fista"), ("1e-9*MCP(3)", "ista"), ("1e-9*MCP(3)", "cd")])
def test_codes_of_zero_samples_become_zero(text, method):
    X, D = data()
    start = 1e-7 * np.random.default_rng(1).standard_normal((5, 12))
    s = solve(0 * X, D, text, method=method, init=start)
    assert s.converged.all()
    assert (s.objective < 1e-18).all()
