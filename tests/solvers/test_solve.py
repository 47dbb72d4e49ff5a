"""`solve`: optimal or a fixed point, sample by sample, the same on NumPy and Torch, and clear about bad input."""

import itertools
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event, current_thread, main_thread

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from proxsae.regularizers import L0, L1, Box, Cardinality, NonNegative, SquaredL2, parse
from proxsae.solvers import inputs, iterate, solve, threads
from proxsae.solvers.methods import ALGORITHMS
from proxsae.solvers.problem import lipschitz_constant
from proxsae.solvers.threads import gram_of, n_threads

CONVEX = ["0.1*L1", "0.1*L1 + NonNegative", "0.1*L1 + 0.2*SquaredL2", "Box(-0.2, 0.3)", "0.1*L1 + Box(0.0, 0.3)"]
NONCONVEX = [
    "0.1*L0",
    "0.1*L0 + NonNegative",
    "Cardinality(3)",
    "NonNegative + Cardinality(3)",
    "0.1*L1 + Cardinality(3)",
]


def data(n=8, p=20, d=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)).astype(dtype), (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(dtype)


def objective(X, D, R, Z):
    return 0.5 * ((X - Z @ D) ** 2).sum(1) + R.value(Z)


@pytest.mark.parametrize("text", CONVEX)
def test_fista_reaches_a_gap_of_1e_10(text):
    X, D = data()
    scale = 0.5 * (X**2).sum(1)
    s = solve(X, D, text, method="fista", tol=1e-10, max_iter=20_000)
    assert s.converged.all()
    assert np.all(s.certificate <= 1e-10 * scale)
    np.testing.assert_allclose(s.objective, objective(X, D, parse(text), s.codes), rtol=1e-12)


@pytest.mark.parametrize("text", CONVEX)
def test_ista_and_fista_agree(text):
    X, D = data(p=10)
    ista, fista = (solve(X, D, text, method=m, tol=1e-8, max_iter=50_000) for m in ("ista", "fista"))
    np.testing.assert_allclose(ista.codes, fista.codes, atol=1e-3)
    np.testing.assert_allclose(ista.objective, fista.objective, atol=1e-6)
    assert ista.n_iter.sum() > fista.n_iter.sum()


@pytest.mark.parametrize("text", NONCONVEX)
def test_nonconvex_solutions_are_fixed_points(text):
    X, D = data()
    R = parse(text)
    s = solve(X, D, R, method="ista", tol=1e-9, max_iter=20_000)
    assert s.certificate_kind == "fixed-point residual"
    assert s.converged.all()
    t = 0.99 / lipschitz_constant(D)
    np.testing.assert_allclose(R.prox(s.codes + t * (X - s.codes @ D) @ D.T, t), s.codes, atol=1e-7)
    assert np.all(s.objective <= 0.5 * (X**2).sum(1))


def fits_on_all_supports(x, D, k, *, nonnegative):
    """Enumerate the supports of at most k atoms, with (non-negative) least squares on each; return the codes."""
    from scipy.optimize import nnls

    codes = [np.zeros(len(D))]
    for size in range(1, k + 1):
        for support in itertools.combinations(range(len(D)), size):
            A = D[list(support)].T
            codes.append(np.zeros(len(D)))
            codes[-1][list(support)] = nnls(A, x)[0] if nonnegative else np.linalg.lstsq(A, x)[0]
    return np.array(codes)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("R", [Cardinality(2), 0.08 * L0()])
def test_exhaustive_enumeration(R, nonnegative):
    """Fixed points are local: from wherever it starts it goes down, never below the global optimum, which it keeps."""
    X, D = data(n=3, p=6, d=4, seed=1)
    R = R + NonNegative() if nonnegative else R
    rng = np.random.default_rng(0)
    for x in X:
        candidates = fits_on_all_supports(x, D, 2 if "Cardinality" in repr(R) else 4, nonnegative=nonnegative)
        best = objective(x, D, R, candidates).min()
        starts = np.vstack([candidates, R.prox(2 * rng.standard_normal((30, 6)))])
        s = solve(np.tile(x, (len(starts), 1)), D, R, init=starts, tol=1e-8, max_iter=20_000)
        assert s.converged.all()
        assert np.all(s.objective <= objective(x, D, R, starts) + 1e-12)
        assert s.objective.min() == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("text", [*CONVEX, *NONCONVEX, 'Cardinality(3, "batch")'])
def test_exact_for_orthonormal_atoms(text):
    """There F separates: the code is prox_R((x - b) D^T), globally optimal."""
    rng = np.random.default_rng(0)
    D = np.linalg.qr(rng.standard_normal((12, 8)))[0].T
    X, b = rng.standard_normal((6, 12)), rng.standard_normal(12)
    R = parse(text)
    s = solve(X, D, R, intercept=b, tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(s.codes, R.prox((X - b) @ D.T), atol=1e-5)


def test_batch_scope_is_solved_as_one_problem():
    X, D = data(n=6, p=8)
    R = Cardinality(2, "batch")
    s = solve(X, D, R, tol=1e-9, max_iter=20_000)
    assert (s.codes != 0).sum() == 12
    assert set((s.codes != 0).sum(1)) != {2}
    assert len(set(s.n_iter)) == 1
    assert s.converged.all()
    t = 0.99 / lipschitz_constant(D)
    np.testing.assert_allclose(R.prox(s.codes + t * (X - s.codes @ D) @ D.T, t), s.codes, atol=1e-7)


@pytest.mark.parametrize("text", [CONVEX[0], CONVEX[2], NONCONVEX[0], NONCONVEX[2]])
def test_a_sample_does_not_depend_on_its_batch(text, monkeypatch):
    X, D = data(n=10)
    X[3] *= 1e-3
    X[7] = 0
    together = solve(X, D, text, tol=1e-9, max_iter=20_000)
    assert len(set(together.n_iter)) >= 2  # samples leave when they are done
    assert together.n_iter[7] <= 1  # the active set takes a step to see that nothing moves
    alone = [solve(x[None], D, text, tol=1e-9, max_iter=20_000) for x in X]
    np.testing.assert_allclose(together.codes, np.concatenate([s.codes for s in alone]), atol=1e-4)
    np.testing.assert_allclose(together.objective, np.concatenate([s.objective for s in alone]), atol=1e-7)
    monkeypatch.setattr(iterate, "CACHE_ENTRIES", 3 * len(D))
    monkeypatch.setattr(iterate, "MIN_ROWS", 3)
    monkeypatch.setattr(inputs, "CHUNK_ENTRIES", 3 * len(D))
    chunked = solve(X, D, text, tol=1e-9, max_iter=20_000)
    np.testing.assert_allclose(chunked.codes, together.codes, atol=1e-4)
    assert chunked.codes.shape == together.codes.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", [*CONVEX, *NONCONVEX, 'Cardinality(3, "batch")'])
def test_torch_is_numpy(text, dtype):
    X, D = data(dtype=dtype)
    on_numpy = solve(X, D, text, max_iter=5000, tol=1e-5)
    on_torch = solve(torch.from_numpy(X).requires_grad_(), torch.from_numpy(D), text, max_iter=5000, tol=1e-5)
    assert on_numpy.codes.dtype == dtype
    assert on_torch.codes.dtype == torch.from_numpy(X).dtype
    assert not on_torch.codes.requires_grad
    assert on_torch.converged.all()
    assert on_numpy.converged.all()
    for s in (on_numpy, on_torch):
        assert tuple(s.codes.shape) == (8, 20)
        for values, name in [
            (s.objective, "float64"),
            (s.certificate, "float64"),
            (s.converged, "bool"),
            (s.n_iter, "int64"),
        ]:
            assert tuple(values.shape) == (8,)
            assert str(values.dtype).removeprefix("torch.") == name
    np.testing.assert_allclose(on_torch.objective, on_numpy.objective, rtol=2e-5)
    np.testing.assert_array_equal(on_torch.codes.numpy() != 0, on_numpy.codes != 0)


@pytest.mark.parametrize("text", CONVEX)
def test_other_units_give_the_same_codes_in_other_units(text):
    X, D = data()
    R = parse(text)
    plain, scaled = (solve(s * X, D, R.rescaled(s), tol=1e-8, max_iter=20_000) for s in (1.0, 1024.0))
    np.testing.assert_array_equal(scaled.codes, 1024 * plain.codes)  # powers of two do not round
    np.testing.assert_array_equal(scaled.n_iter, plain.n_iter)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.sampled_from([*CONVEX, *NONCONVEX]), st.integers(0, 10**6))
def test_a_warm_start_is_no_worse(text, seed):
    X, D = data(n=3, seed=seed)
    R = parse(text)
    first = solve(X, D, R, tol=1e-5, max_iter=20_000)
    again = solve(X, D, R, tol=1e-5, init=first.codes)
    assert again.n_iter.max() == 0
    np.testing.assert_allclose(again.codes, first.codes, rtol=1e-14)
    assert again.codes is not first.codes


def test_the_intercept_and_a_large_penalty():
    X, D = data()
    b = X.mean(0)
    shifted, plain = solve(X, D, "0.1*L1", intercept=b), solve(X - b, D, "0.1*L1")
    np.testing.assert_array_equal(shifted.codes, plain.codes)
    zero = solve(X, D, abs(X @ D.T).max() * L1())
    assert not zero.codes.any()
    assert zero.n_iter.max() <= 1


def test_per_coordinate_weights_select_atoms():
    X, D = data()
    weights = np.where(np.arange(20) < 10, 0.05, 1e6)
    s = solve(X, D, weights * L1(), tol=1e-8, max_iter=20_000)
    np.testing.assert_allclose(
        s.codes[:, :10], solve(X, D[:10], 0.05 * L1(), tol=1e-8, max_iter=20_000).codes, atol=1e-3
    )
    assert not s.codes[:, 10:].any()


def test_near_duplicate_atoms():
    """Where LARS fails; the gap still certifies."""
    X, D = data(n=5, p=10)
    D = np.vstack([D, D + 1e-9])
    s = solve(X, D, "0.1*L1", tol=1e-8, max_iter=20_000)
    assert s.converged.all()
    np.testing.assert_allclose(s.objective, solve(X, D[:10], "0.1*L1", tol=1e-8, max_iter=20_000).objective, atol=1e-6)


@pytest.mark.parametrize("zeros", [np.zeros, lambda shape: torch.zeros(shape, dtype=torch.float64)])
@pytest.mark.parametrize("text", ["0.1*L1", "0.1*L0", "Cardinality(2)", 'Cardinality(2, "batch")', "0.1*SquaredL2"])
def test_empty_and_zero_input(text, zeros):
    for n in (0, 2):
        s = solve(zeros((n, 3)), zeros((4, 3)), text)
        assert tuple(s.codes.shape) == (n, 4)
        assert tuple(s.certificate.shape) == (n,)
        assert s.converged.all()
        assert not (s.codes != 0).any()


def test_read_only_non_contiguous_integer_and_list_input():
    X, D = data()
    plain = solve(X, D, "0.1*L1").codes
    wide = np.zeros((16, 24))
    wide[::2, ::2] = X
    view = wide[::2, ::2]
    view.flags.writeable = False
    D.flags.writeable = False
    np.testing.assert_allclose(solve(view, np.asfortranarray(D), "0.1*L1").codes, plain, atol=1e-9)
    np.testing.assert_allclose(solve([[3, -1]], np.eye(2), "L1").codes, [[2, 0]])


def test_warns_when_it_has_not_converged():
    X, D = data()
    with pytest.warns(
        ConvergenceWarning, match=r"8 of 8 samples .* after 3 steps; the largest duality gap is"
    ) as caught:
        s = solve(X, D, "0.01*L1", method="fista", max_iter=3, tol=1e-12)
    assert caught[0].filename == __file__
    assert not s.converged.any()
    assert (s.n_iter == 3).all()
    assert np.isfinite(s.certificate).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(X, D, "0.1*L1", max_iter=1000, tol=1e-4)


def test_zero_steps_certify_the_codes_given():
    X, D = data()
    Z = (0.3 * L1()).prox(X @ D.T)
    with pytest.warns(ConvergenceWarning):
        s = solve(X, D, "0.3*L1", init=Z, max_iter=0)
    np.testing.assert_array_equal(s.codes, Z)
    np.testing.assert_allclose(s.objective, objective(X, D, 0.3 * L1(), Z), rtol=1e-12)


def test_no_progress_bar_unless_asked_for_on_a_terminal(capsys, monkeypatch):
    X, D = data()
    solve(X, D, "0.1*L1", verbose=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    solve(X, D, "0.1*L1")
    assert capsys.readouterr().err == ""
    solve(X, D, "0.1*L1", verbose=True)
    assert "8/8" in capsys.readouterr().err


@pytest.mark.parametrize("R", [0.1 * L1(), Cardinality(3), SquaredL2(), Box(0.0, 1.0)])
def test_one_over_the_lipschitz_constant_is_accepted(R):
    X, D = data(dtype=np.float32)
    step = float(np.float32(1 / np.linalg.norm(D, 2) ** 2))
    assert solve(X, D, R, step=step, tol=1e-3).converged.all()


def test_threads_are_counted_where_the_system_tells_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert n_threads() == numba.config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("method", ["active_set", "cd", "fista", "omp"])
def test_ctrl_c_returns_what_is_done(method, monkeypatch):
    """The blocks that are done have their codes, the others their start and an infinite certificate."""
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((20, 6)), rng.standard_normal((9, 6))
    R = "Cardinality(2)" if method == "omp" else "0.5*L1"
    whole = solve(X, D, R, method=method)
    monkeypatch.setattr(iterate, "CACHE_ENTRIES", 0)
    monkeypatch.setattr(iterate, "MIN_ROWS", 5)
    monkeypatch.setattr(inputs, "CHUNK_ENTRIES", 45)
    monkeypatch.setattr(threads, "n_threads", lambda: 1)
    read = inputs.Inputs.targets

    def interrupted(self, part):
        if part.start == 10:
            raise KeyboardInterrupt
        return read(self, part)

    monkeypatch.setattr(inputs.Inputs, "targets", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted: 10 of 20 samples"):
        s = solve(X, D, R, method=method)
    np.testing.assert_allclose(s.codes[:10], whole.codes[:10], rtol=1e-12)
    assert not s.codes[10:].any()
    assert np.isinf(s.certificate[10:]).all()
    assert s.converged.tolist() == 10 * [True] + 10 * [False]


def test_ctrl_c_during_a_step_keeps_the_codes_before_it(monkeypatch):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((5, 6)), rng.standard_normal((9, 6))
    steps = itertools.count()
    fista = ALGORITHMS["fista"]

    def update(problem, state):
        if next(steps) == 7:
            raise KeyboardInterrupt
        return fista.update(problem, state)

    monkeypatch.setitem(ALGORITHMS, "fista", fista._replace(update=update))
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        s = solve(X, D, "0.5*L1", method="fista", tol=1e-12)
    assert s.n_iter.max() == 7
    monkeypatch.undo()
    with pytest.warns(ConvergenceWarning, match="not converged"):
        np.testing.assert_array_equal(s.codes, solve(X, D, "0.5*L1", method="fista", tol=1e-12, max_iter=7).codes)


def test_threads_are_kept_and_an_error_leaves_none_at_work(monkeypatch):
    monkeypatch.setattr(threads, "n_threads", lambda: 2)
    blocks, begun, ended = threads.blocks_of(40, 1), [], []

    def work(block):
        begun.append(block.start)
        if block.start == 1:
            raise ValueError("the second block")
        ended.append(current_thread())

    with pytest.raises(ValueError, match="the second block"):
        threads.in_threads(work, blocks)
    assert len(ended) == len(begun) - 1
    assert 1 in begun
    inner = threads.in_threads(lambda _: threads.in_threads(lambda _: current_thread(), blocks), blocks[:2])
    assert all(len(set(of_one)) == 1 for of_one in inner)
    of_calls = [set(threads.in_threads(lambda _: current_thread(), blocks)) for _ in range(20)]
    assert len(set.union(*of_calls)) <= 2


def test_ctrl_c_before_all_blocks_are_handed_out(monkeypatch):
    submit, calls, heard = ThreadPoolExecutor.submit, itertools.count(), Event()

    def interrupted(pool, work, block):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return submit(pool, work, block)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    monkeypatch.setattr(threads, "n_threads", lambda: 2)
    blocks = threads.blocks_of(10, 2)
    assert threads.in_threads(lambda block: (block, heard.wait(60)), blocks, heard.set) == [(b, True) for b in blocks]
    calls = itertools.count()
    with pytest.raises(KeyboardInterrupt):
        threads.in_threads(lambda block: block, blocks)


def test_ctrl_c_while_threads_work(monkeypatch):
    """The main thread waits for the others when it comes: of the samples begun, the other thread's may be cut short."""
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((40, 6)), rng.standard_normal((9, 6))
    monkeypatch.setattr(iterate, "CACHE_ENTRIES", 0)
    monkeypatch.setattr(iterate, "MIN_ROWS", 1)
    monkeypatch.setattr(threads, "n_threads", lambda: 2)
    read, in_threads, heard = inputs.Inputs.targets, iterate.in_threads, Event()

    def interrupting(self, part):
        if part.start == 12:
            signal.pthread_kill(main_thread().ident, signal.SIGINT)  # as the system does
        if part.start >= 12:
            assert heard.wait(60)
        return read(self, part)

    def listening(work, blocks, on_interrupt):
        return in_threads(work, blocks, lambda: (on_interrupt(), heard.set()))

    monkeypatch.setattr(iterate, "in_threads", listening)
    monkeypatch.setattr(inputs.Inputs, "targets", interrupting)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        s = solve(X, D, "0.5*L1", method="active_set")
    assert s.converged[:12].sum() >= 11
    assert not s.n_iter[13:].any()


@pytest.mark.parametrize("n_atoms", [1, 127, 128, 300])
def test_the_gram_matrix_of_blocks_is_symmetric_to_the_bit(n_atoms):
    atoms = np.random.default_rng(n_atoms).normal(size=(n_atoms, 37))
    G = gram_of(atoms)
    np.testing.assert_allclose(G, atoms @ atoms.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(G, G.T)
