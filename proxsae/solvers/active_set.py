"""The active-set method, compiled: for every separable R that is least at 0, convex or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, dtype_name
from proxsae.regularizers import Regularizer, Separable
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.certificates import FitTerms
from proxsae.solvers.problem import Problem
from proxsae.solvers.scalar import LONGEST, lacks_formula, resting_slopes, scalar_prox, squared_norms

HOPEFUL = 4.0  # times the tolerance: a gap that is guessed to be below is worth a certificate
WATCHED = 24  # zeros in the active set beside the non-zeros, and twice as many from the zero code; or up to twice that
FEWER_WATCHED = 12  # where R is not convex: the zeros that enter first decide the minimum
REST = 1e-11  # of the largest correlation: a coordinate that moves less, or less than 32 roundings, rests


class ActiveSetState(NamedTuple):
    """What the active-set method carries from one step to the next."""

    codes: Array  # z_k, (n_samples, n_components)
    residuals: Array  # y - z_k D, (n_samples, n_features)
    correlations: Array  # (y - z_k D) D^T, (n_samples, n_components)
    beyond: Array  # how far a zero is from rest at most: what its correlation is too large, over ||d_j||, (n_samples,)
    at_rest: Array  # how many steps in a row have found nothing to change, (n_samples,)


def start_active_set(problem: Problem, codes: Array) -> ActiveSetState:
    """Return the state at given codes."""
    explained = codes @ problem.dictionary if codes.any() else 0.0
    residuals = np.ascontiguousarray(problem.targets - explained)
    return _measured(problem, codes, residuals, np.zeros(len(codes), np.int8))


def grow(problem: Problem, state: ActiveSetState) -> ActiveSetState:
    r"""Return codes that minimise F on a larger active set, which the zeros nearest to leaving zero enter.

    A zero rests where its correlation lies in the subdifferential of r at 0. The correlations of all atoms are one
    dense product a step; with a Gram matrix they are updated with the codes, and the active set grows until every zero
    rests. On the active set a few passes of coordinate descent settle which coordinates rest at a kink or a bound of r;
    then a Newton step solves for the others on their quadratic pieces, cut where the first piece ends. Where r is
    convex and piecewise quadratic the codes on the active set are then exact, and a few steps end with the optimum to
    rounding. Where r is not convex no change of one coordinate improves the codes; since the zeros with most to gain
    enter first, F is less than after a sweep in the order of the dictionary.

    Over up to 1,024 atoms, with a Gram matrix and a convex R, a zero code is replaced by the end of a lasso path: see
    :mod:`proxsae.solvers.compiled_path`. For L1 the end of the path is the optimum already.

    References
    ----------
    Osborne, Presnell and Turlach (2000), IMA J. Numer. Anal. 20; Li, Sun and Toh (2018), A highly efficient semismooth
    Newton augmented Lagrangian method for solving lasso problems, SIAM J. Optim. 28.
    """
    from proxsae.solvers import compiled_active_set

    prox, parameters, weights, lengths, below, above = problem.tools
    Y, D = np.ascontiguousarray(problem.targets), np.ascontiguousarray(problem.dictionary)
    G = np.empty((0, 0)) if problem.gram is None else problem.gram
    coarse = np.empty((0, 0), np.float32) if problem.coarse is None else problem.coarse
    knows = len(G) > 0 and not state.codes.any()
    V = np.empty_like(state.correlations) if knows else np.empty((0, 0), D.dtype)
    Z, E, at_rest = state.codes.copy(), state.residuals.copy(), state.at_rest.copy()
    rounding, watched = resting_move(D), WATCHED if problem.regularizer.is_convex else FEWER_WATCHED
    compiled_active_set.step(D.dtype)(
        prox, parameters, Y, D, G, weights, lengths, below, above, coarse, rounding, watched,
        state.correlations, Z, E, V, at_rest,
    )  # fmt: skip
    return _measured(problem, Z, E, at_rest, V if knows else None)


def _measured(
    problem: Problem, Z: Array, E: Array, at_rest: Array, correlations: Array | None = None
) -> ActiveSetState:
    from proxsae.solvers import compiled_active_set

    _, _, _, lengths, below, above = problem.tools
    Q = E @ problem.dictionary.T if correlations is None else correlations
    beyond = np.empty(len(Z))
    compiled_active_set.measure(Q.dtype)(Q, Z, below, above, lengths, beyond)
    return ActiveSetState(Z, E, Q, beyond, at_rest)


def resting_move(D: Array) -> float:
    """Return the move, relative to the largest correlation, below which a coordinate rests, in the dtype of D."""
    return max(REST, 32 * float(np.finfo(dtype_name(D)).eps))


def may_be_done(problem: Problem, state: ActiveSetState, tol: float) -> Array:
    """Return which rows may be done: F falls by about half the square of how far a zero is beyond its ends."""
    energy = (problem.targets * problem.targets).sum(-1)
    done: Array = (state.at_rest > 0) | (state.beyond * state.beyond <= HOPEFUL * tol * energy)
    return done


def fit_of_active_set(problem: Problem, state: ActiveSetState) -> FitTerms:
    """Return the fit that the state knows, its sums in float64."""
    E, Y = state.residuals.astype(np.float64), problem.targets.astype(np.float64)
    residual, explained, target = (np.einsum("ij,ij->i", a, a) for a in (E, Y - E, Y))
    return FitTerms(state.correlations, residual, explained, target)


def prepare(R: Regularizer, D: Array) -> tuple[Any, ...]:
    """Return the scalar prox, its parameters, 1 / ||d_j||^2 and its root, and the slopes where zeros rest.

    A zero atom has the numbers 0 and 1, and its code rests at any value.
    """
    from proxsae.solvers.compiled_active_set import FREE

    norms2 = squared_norms(D)
    weights = np.divide(1.0, norms2, out=np.zeros_like(norms2), where=norms2 > 0)
    lengths = np.where(weights > 0, np.sqrt(weights), 1.0)
    prox, parameters = scalar_prox(R, D.dtype, np.dtype(np.float64))
    below, above = resting_slopes(R, prox, parameters, norms2)
    below, above = np.where(norms2 > 0, below, -FREE), np.where(norms2 > 0, above, FREE)
    return prox, parameters, weights, lengths, below.clip(-FREE), above.clip(max=FREE)


def lacks_rest(R: Regularizer) -> str | None:
    """Return in one sentence what the method lacks for R, or None."""
    if (lack := lacks_formula(R)) is not None:
        return lack
    return None if rests_at_zero(R) else f"needs an R that is least at 0, and {R} is not"


def rests_at_zero(R: Regularizer) -> bool:
    """Whether R is least at 0: by its values on a grid of sizes, which decides for a convex R, and by its prox."""
    assert isinstance(R, Separable)
    if R.prox_unchecked(np.zeros((1, R.width or 1)), LONGEST).any():
        return False
    sizes = np.logspace(-150, 150, 61)[:, None]
    rays = np.concatenate([-sizes, 0.0 * sizes[:1], sizes])
    values = R.penalties(rays)
    return bool(np.isfinite(values[len(sizes)]).all() and (values >= (1 - 1e-9) * values[len(sizes)]).all())


ACTIVE_SET = Algorithm(
    start_active_set,
    grow,
    lacks_rest,
    ("codes", "residuals", "correlations", "beyond", "at_rest"),
    1,
    is_compiled=True,
    by_coordinates=True,
    prepare=prepare,
    knows_rest=True,
    may_be_done=may_be_done,
    fit=fit_of_active_set,
)
