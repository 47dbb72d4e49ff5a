"""Run a pure step on a batch until every sample has its certificate; the samples that have it leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.solvers.certificates import Report
from proxsae.solvers.problem import Problem
from proxsae.solvers.proximal_gradient import Algorithm

CHECK_EVERY = 10  # steps between certificates; one costs about as much as a step


class Outcome(NamedTuple):
    """Where the samples of a batch ended."""

    codes: Array  # (n_samples, n_components)
    objective: Array  # (n_samples,), float64
    certificate: Array  # (n_samples,), float64
    converged: Array  # (n_samples,), bool
    n_iter: Array  # (n_samples,), int64


def run(
    problem: Problem,
    algorithm: Algorithm,
    certify: Callable[[Problem, Array], Report],
    codes: Array,
    *,
    tol: float,
    max_iter: int,
    on_finished: Callable[[int], object],
) -> Outcome:
    """Iterate from `codes` until certificate <= tol * scale, sample by sample, or max_iter steps.

    At batch scope the samples are one problem, and stop together.
    """
    xp = array_api_compat.array_namespace(codes)
    rows = xp.arange(codes.shape[0], device=array_api_compat.device(codes))
    outcome = _empty_outcome(codes)
    state = algorithm.start(codes)
    n_iter = 0
    while rows.shape[0]:
        report = certify(problem, state.codes)
        converged = report.certificate <= tol * report.scale
        if n_iter == max_iter:
            finished = xp.ones_like(converged)
        elif problem.regularizer.scope == "batch":
            finished = converged & xp.all(converged)
        else:
            finished = converged
        if bool(xp.any(finished)):
            done = rows[finished]
            outcome.codes[done] = state.codes[finished]
            outcome.objective[done] = report.objective[finished]
            outcome.certificate[done] = report.certificate[finished]
            outcome.converged[done] = converged[finished]
            outcome.n_iter[done] = n_iter
            on_finished(int(done.shape[0]))
            rows, problem = rows[~finished], problem.at(~finished)
            state = state._make(part[~finished] for part in state)
        if rows.shape[0]:
            steps = min(CHECK_EVERY, max_iter - n_iter)
            for _ in range(steps):
                state = algorithm.update(problem, state)
            n_iter += steps
    return outcome


def joined(parts: list[Outcome]) -> Outcome:
    """Return the outcomes of several batches as one."""
    xp = array_api_compat.array_namespace(parts[0].codes)
    return parts[0] if len(parts) == 1 else Outcome(*(xp.concat(list(arrays)) for arrays in zip(*parts, strict=True)))


def _empty_outcome(codes: Array) -> Outcome:
    xp, device = array_api_compat.array_namespace(codes), array_api_compat.device(codes)
    n = codes.shape[0]
    return Outcome(
        xp.empty_like(codes),
        xp.empty(n, dtype=xp.float64, device=device),
        xp.empty(n, dtype=xp.float64, device=device),
        xp.empty(n, dtype=xp.bool, device=device),
        xp.empty(n, dtype=xp.int64, device=device),
    )
