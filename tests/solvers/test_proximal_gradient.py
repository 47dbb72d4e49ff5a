"""The pure steps: the encoder they unroll into, descent, acceleration, restart, step size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.regularizers import parse
from proxsae.solvers import problem as problem_module
from proxsae.solvers.certificates import duality_gap, fixed_point_residual
from proxsae.solvers.problem import Problem, default_step, gram_is_cheaper, lipschitz_constant
from proxsae.solvers.proximal_gradient import (
    FistaState,
    fista_start,
    fista_update,
    ista_start,
    ista_update,
)

EVERY_KIND = [
    "0.2*L1",
    "0.2*L1 + NonNegative",
    "0.1*L1 + 0.3*SquaredL2",
    "Box(-0.1, 0.4)",
    "0.1*L0",
    "0.1*L0 + NonNegative",
    "Cardinality(3)",
    "NonNegative + Cardinality(3)",
    "0.1*L1 + Cardinality(3)",
    'Cardinality(3, "batch")',
    "0.05*L0 + Box(-0.3, 0.2) + 0.1*SquaredL2",
]


def data(n=6, p=12, d=8, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)).astype(dtype), (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("text", EVERY_KIND)
def test_one_step_from_zero_is_the_amortized_encoder(text, gram):
    """z = prox_{tR}(x W^T + b_e) with W = t D and b_e = -t D b."""
    R = parse(text)
    X, D = (torch.from_numpy(a) for a in data())
    b = torch.linspace(-1, 1, X.shape[1], dtype=X.dtype)
    t = 1 / lipschitz_constant(D)
    W = t * D
    encoder = R.prox(X @ W.T - W @ b, t)
    extra = (D @ D.T, (X - b) @ D.T) if gram else ()
    problem = Problem(X - b, D, R, t, *extra)
    zero = torch.zeros_like(encoder)
    for state in (ista_update(problem, ista_start(problem, zero)), fista_update(problem, fista_start(problem, zero))):
        torch.testing.assert_close(state.codes, encoder, rtol=1e-12, atol=1e-14)
        assert torch.equal(state.codes, R.prox(t * ((X - b) @ D.T), t))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sampled_from(EVERY_KIND), st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_ista_never_increases_the_objective(text, seed, share):
    R = parse(text)
    X, D = data(seed=seed)
    problem = Problem(X, D, R, share / lipschitz_constant(D))
    state = ista_start(problem, R.prox(np.random.default_rng(seed).standard_normal((len(X), len(D)))))
    total = "batch" in text
    before = np.inf
    for _ in range(25):
        objective = fixed_point_residual(problem, state.codes).objective
        now = objective.sum() if total else objective
        assert np.all(now <= before + 1e-12)
        before = now
        state = ista_update(problem, state)


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if "batch" not in text])
def test_the_gradient_is_the_same_by_either_way(text):
    X, D = data()
    Z = np.random.default_rng(1).standard_normal((len(X), len(D)))
    plain = Problem(X, D, parse(text), 0.1)
    with_gram = Problem(X, D, parse(text), 0.1, D @ D.T, X @ D.T)
    np.testing.assert_allclose(plain.gradient(Z), with_gram.gradient(Z), atol=1e-12)
    rows = np.array([True, False, True, False, False, True])
    for problem in (plain, with_gram):
        np.testing.assert_allclose(problem.at(rows).proximal_step(Z[rows]), problem.proximal_step(Z)[rows], atol=1e-12)


def test_the_gradient_is_the_derivative():
    X, D = (torch.from_numpy(a) for a in data())
    Z = torch.randn(6, 12, dtype=X.dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (0.5 * (X - Z @ D) ** 2).sum().backward()
    torch.testing.assert_close(Problem(X, D, parse("L1"), 0.1).gradient(Z.detach()), Z.grad)


def test_gram_matrix_where_it_costs_less():
    assert gram_is_cheaper(n_samples=10_000, n_components=512, n_features=576)
    assert not gram_is_cheaper(n_samples=10_000, n_components=4608, n_features=576)
    assert not gram_is_cheaper(n_samples=1, n_components=900, n_features=576)  # p^2 d would not pay


@pytest.mark.parametrize("text", ["0.02*L1", "0.02*L1 + NonNegative", "0.02*L1 + 0.02*SquaredL2"])
def test_fista_needs_fewer_steps_than_ista(text):
    X, D = data(n=4, p=30, d=20)
    problem = Problem(X, D, parse(text), 1 / lipschitz_constant(D))
    slow, fast = ista_start(problem, np.zeros((4, 30))), fista_start(problem, np.zeros((4, 30)))
    for _ in range(400):
        slow, fast = ista_update(problem, slow), fista_update(problem, fast)
    gaps = [duality_gap(problem, state.codes).certificate.max() for state in (slow, fast)]
    assert gaps[1] < 0.05 * gaps[0]


def test_restart_makes_fista_converge_linearly():
    """Without restart the momentum of FISTA ripples; one sample restarts without touching another."""
    X, D = data(n=4, p=10, d=20)
    problem = Problem(X, D, parse("0.01*L1 + 0.001*SquaredL2"), 1 / lipschitz_constant(D))
    state, plain = fista_start(problem, np.zeros((4, 10))), fista_start(problem, np.zeros((4, 10)))
    restarts = np.zeros((4, 1), int)
    alone = False
    for _ in range(150):
        state = fista_update(problem, state)
        restarts += state.momentum == 1
        alone |= 0 < (state.momentum == 1).sum() < 4
        theta = (1 + np.sqrt(1 + 4 * plain.momentum**2)) / 2
        codes = problem.proximal_step(plain.point)
        plain = FistaState(codes, codes + (plain.momentum - 1) / theta * (codes - plain.codes), theta)
    assert (restarts >= 2).all()
    assert alone
    gaps = [duality_gap(problem, s.codes).certificate.max() for s in (state, plain)]
    assert gaps[0] < 1e-3 * gaps[1]


@pytest.mark.parametrize("update", [ista_update, fista_update])
def test_steps_unroll_under_autograd(update):
    X, D = (torch.from_numpy(a) for a in data(n=3, p=6, d=4))
    start = ista_start if update is ista_update else fista_start

    def unrolled(D, X):
        problem = Problem(X, D, parse("0.05*L1 + 0.1*SquaredL2"), 0.2)
        state = start(problem, torch.zeros(3, 6, dtype=X.dtype))
        for _ in range(4):
            state = update(problem, state)
        return state.codes

    assert torch.autograd.gradcheck(unrolled, (D.requires_grad_(), X.requires_grad_()))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (1, 5), (5, 1)])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_lipschitz_constant_is_the_squared_spectral_norm(shape, kind):
    D = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    exact = np.linalg.norm(D.astype(np.float64), 2) ** 2
    assert lipschitz_constant(kind(D)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_lanczos_bound_is_above_and_close(monkeypatch, kind):
    monkeypatch.setattr(problem_module, "EXACT_SIZE", 10)
    for seed in range(5):  # many eigenvalues near the largest: Lanczos stops before it has resolved them
        D = np.random.default_rng(seed).standard_normal((300, 250)) / 100 + np.eye(300, 250)
        exact = np.linalg.norm(D, 2) ** 2
        assert exact <= lipschitz_constant(kind(D)) <= 1.002 * exact


def test_the_default_step():
    assert default_step(4.0, parse("L1")) == 0.25
    assert default_step(4.0, parse("L0")) == 0.99 / 4
    assert default_step(lipschitz_constant(np.zeros((3, 2))), parse("L1")) == 1.0
