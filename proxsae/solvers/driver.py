"""Run a pure step on a batch until every sample meets its tolerance; samples that do leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any, NamedTuple

import array_api_compat
from scipy.sparse import issparse, vstack

from proxsae.formulas.arrays import Array, dtype_name
from proxsae.solvers.algorithm import Algorithm, restricted
from proxsae.solvers.certificates import CertificateReport, Certify, fit_of, quick_fit_of
from proxsae.solvers.problem import Problem

STALLED = 4  # steps at rest, the last ones spent on rounding: the certificate cannot be met
NEAR = 2.0  # a quick certificate this close to the tolerance is worth a look through the features


class Outcome(NamedTuple):
    """The codes of a batch, their certificates, and whether they converged."""

    codes: Array  # (n_samples, n_components)
    objective: Array  # (n_samples,), float64
    certificate: Array  # (n_samples,), float64
    converged: Array  # (n_samples,), bool
    n_iter: Array  # (n_samples,), int64


def run(
    problem: Problem,
    algorithm: Algorithm,
    certify: Certify,
    codes: Array,
    *,
    tol: float,
    max_iter: int,
    on_finished: Callable[[int], object],
    stop: Event,
) -> Outcome:
    """Iterate from `codes` until :meth:`CertificateReport.meets` holds for every sample, or max_iter steps, or `stop`.

    At batch scope the samples are one problem, and stop together. Ctrl-C during a step sets `stop`; the codes returned
    are those before that step.
    """
    xp = array_api_compat.array_namespace(codes)
    rows = xp.arange(codes.shape[0], device=array_api_compat.device(codes))  # samples that are not done
    outcome, state, n_iter = _empty_outcome(codes), algorithm.start(problem, codes), 0
    while rows.shape[0]:
        is_last = n_iter == max_iter or stop.is_set()
        picked = _worth_a_look(problem, algorithm, state, certify, tol, everything=is_last)
        if picked.shape[0]:
            report = _report(problem, algorithm, state, certify, picked, tol)
            converged = report.meets(tol)
            finished = _finished(problem, algorithm, state, picked, converged, is_last=is_last)
            if bool(xp.any(finished)):
                ended = picked[finished]
                done = rows[ended]
                outcome.codes[done] = state.codes[ended]
                outcome.objective[done] = report.objective[finished]
                outcome.certificate[done] = report.certificate[finished]
                outcome.converged[done] = converged[finished]
                outcome.n_iter[done] = n_iter
                on_finished(int(done.shape[0]))
                stays = xp.ones_like(rows, dtype=xp.bool)
                stays[ended] = False
                rows, problem, state = rows[stays], problem.at(stays), restricted(algorithm, state, stays)
        if rows.shape[0]:
            try:
                for _ in range(min(algorithm.check_every, max_iter - n_iter)):
                    state = algorithm.update(problem, state)
                    n_iter += 1
            except KeyboardInterrupt:
                stop.set()
    return outcome


def _worth_a_look(
    problem: Problem, algorithm: Algorithm, state: Any, certify: Certify, tol: float, *, everything: bool
) -> Array:
    """Return which samples may be done.

    The algorithm names these samples; or, with a Gram matrix, they are those that seem done by the quick certificate
    through that matrix, which costs one step.
    """
    codes = state.codes
    xp = array_api_compat.array_namespace(codes)
    if algorithm.may_be_done is not None and not everything:
        return xp.nonzero(algorithm.may_be_done(problem, state, tol))[0]
    if problem.gram is not None and not everything:
        correlations = state.correlations if algorithm.needs_gram else None
        report = certify(problem, codes, quick_fit_of(problem, codes, correlations))
        return xp.nonzero(report._replace(rounding=NEAR * report.rounding).meets(NEAR * tol))[0]
    return xp.arange(codes.shape[0], device=array_api_compat.device(codes))


def _finished(
    problem: Problem, algorithm: Algorithm, state: Any, picked: Array, converged: Array, *, is_last: bool
) -> Array:
    """Return which of the picked samples leave: the converged ones, those at rest, and at the end all."""
    xp = array_api_compat.array_namespace(converged)
    finished = xp.ones_like(converged) if is_last else converged
    if algorithm.knows_rest:  # more steps would change nothing
        finished = finished | (state.at_rest[picked] >= STALLED)
    if problem.regularizer.scope == "batch":  # one problem
        is_done = picked.shape[0] == state.codes.shape[0] and bool(xp.all(finished))
        finished = xp.ones_like(finished) if is_done else xp.zeros_like(finished)
    return finished


def _report(
    problem: Problem, algorithm: Algorithm, state: Any, certify: Certify, picked: Array, tol: float
) -> CertificateReport:
    """Return what is known of some samples: in float64, through the features.

    Where the algorithm knows the fit in float32, the possible rounding error of the fit is added to the certificate;
    only samples for which this error decides whether they meet the tolerance are computed again.
    """
    if picked.shape[0] < state.codes.shape[0]:
        problem, state = problem.at(picked), restricted(algorithm, state, picked)
    if algorithm.fit is None:
        return certify(problem, state.codes, fit_of(problem, state.codes))
    report = certify(problem, state.codes, algorithm.fit(problem, state))
    if dtype_name(state.codes) == "float64":
        return report
    missed = report.certificate - report.rounding > tol * report.scale
    report = report._replace(certificate=report.certificate + report.rounding, rounding=0.0 * report.rounding)
    if (unsure := ~report.meets(tol) & ~missed).any():
        rest, codes = problem.at(unsure), state.codes[unsure]
        for known, looked_at in zip(report, certify(rest, codes, fit_of(rest, codes)), strict=True):
            known[unsure] = looked_at
    return report


def not_done(codes: Array) -> Outcome:
    """Return the outcome of samples that were not begun: their initial codes, with infinite certificates."""
    outcome = _empty_outcome(codes)
    outcome.objective[:], outcome.certificate[:] = float("inf"), float("inf")
    outcome.converged[:], outcome.n_iter[:] = False, 0
    return outcome._replace(codes=codes)


def joined(parts: list[Outcome]) -> Outcome:
    """Return the outcomes of several batches as one."""
    if len(parts) == 1:
        return parts[0]
    xp = array_api_compat.array_namespace(parts[0].objective)
    codes = [part.codes for part in parts]
    stacked = vstack(codes, format="csr") if issparse(codes[0]) else xp.concat(codes)
    return Outcome(stacked, *(xp.concat(list(arrays)) for arrays in zip(*(part[1:] for part in parts), strict=True)))


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
