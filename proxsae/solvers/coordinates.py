"""Methods that move one coordinate at a time, on the Gram matrix and compiled: coordinate descent and an active set.

The scalar formula of R is read by the compiled reader, so that each works for every separable R with a formula. Blocks
of samples run in threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.certificates import Fit, roundings
from proxsae.solvers.problem import Problem

HOPEFUL = 4.0  # times the tolerance: a gap that is guessed to be below is worth a certificate
REST = 1e-11  # of the largest correlation: what moves less rests, or less than 32 roundings


class DescentState(NamedTuple):
    """What coordinate descent carries from one step to the next."""

    codes: Array  # z_k, (n_samples, n_components)
    correlations: Array  # (y - z_k D) D^T, (n_samples, n_components)
    moves: Array  # the coordinate-wise residual of z_k, not divided by anything, (n_samples,)


def start_descent(problem: Problem, codes: Array) -> DescentState:
    """Return the state at given codes, any of which may be done."""
    correlations = -problem.gradient(codes) if codes.any() else np.array(problem.correlations)
    return DescentState(codes, correlations, np.zeros(len(codes)))


def descend(problem: Problem, state: DescentState) -> DescentState:
    r"""Return a sweep over all coordinates, and then those that are not zero once they have settled.

    :math:`z_j^+ = \mathrm{prox}_{t_j r_j}(z_j + t_j (y - zD)d_j)` with its own step :math:`t_j = 1 / \|d_j\|^2`: the
    best value of z_j with the others held, for every separable R, convex or not. No step of all coordinates is needed,
    so that it does not crawl where 1 / L is tiny.

    References
    ----------
    Friedman, Hastie and Tibshirani (2010), J. Stat. Softw. 33; Mazumder, Friedman and Hastie (2011), SparseNet:
    coordinate descent with nonconvex penalties, J. Amer. Statist. Assoc. 106.
    """
    from proxsae.solvers import compiled_descent

    G, C, moves = problem.gram, problem.correlations, np.empty(len(state.codes))
    Z, Q = state.codes.copy(), np.empty_like(C)
    compiled_descent.descend(*problem.tools[:2], G, *problem.tools[2:], C, Z, Q, moves)
    return DescentState(Z, Q, moves)


def may_have_settled(problem: Problem, state: DescentState, tol: float) -> Array:
    """Return which rows may have a coordinate-wise residual of at most tol, or of rounding."""
    assert problem.gram is not None
    Z, lengths = state.codes, np.sqrt(problem.gram.diagonal())
    size, reach = np.linalg.norm(Z * lengths, axis=1), np.linalg.norm(problem.targets, axis=1)
    noise = roundings(Z) * ((reach + abs(Z) @ lengths) * np.sqrt((Z != 0).sum(1) + 1) + size)
    done: Array = state.moves <= tol * np.maximum(size, reach) + noise
    return done


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
    r"""Return the codes of a larger active set: the zeros nearest to leave enter, and F is minimised on them all.

    The correlations of all atoms are one dense product a step; with a Gram matrix they follow the codes, and the set
    grows until every zero rests. On the active set a few passes of coordinate descent
    settle which coordinates rest at a kink or a bound of r; then a Newton step solves for the others on the quadratic
    pieces that they are on, cut where the first piece ends. Where r is piecewise quadratic the codes are then exact,
    and a few steps end with the optimum to rounding. R is convex and the prox of 0 is 0.

    References
    ----------
    Osborne, Presnell and Turlach (2000), IMA J. Numer. Anal. 20; Li, Sun and Toh (2018), A highly efficient semismooth
    Newton augmented Lagrangian method for solving lasso problems, SIAM J. Optim. 28.
    """
    from proxsae.solvers import compiled_active_set

    prox, parameters, weights, lengths, below, above = problem.tools
    Y, D = np.ascontiguousarray(problem.targets), np.ascontiguousarray(problem.dictionary)
    G = np.empty((0, 0)) if problem.gram is None else problem.gram
    Z, E, at_rest = state.codes.copy(), state.residuals.copy(), state.at_rest.copy()
    rounding = max(REST, 32 * float(np.finfo(D.dtype).eps))
    compiled_active_set.step(
        prox, parameters, Y, D, G, weights, lengths, below, above, rounding, state.correlations, Z, E, at_rest
    )
    return _measured(problem, Z, E, at_rest)


def _measured(problem: Problem, Z: Array, E: Array, at_rest: Array) -> ActiveSetState:
    from proxsae.solvers import compiled_active_set

    _, _, _, lengths, below, above = problem.tools
    Q, beyond = E @ problem.dictionary.T, np.empty(len(Z))
    compiled_active_set.measure(Q, Z, below, above, lengths, beyond)
    return ActiveSetState(Z, E, Q, beyond, at_rest)


def may_be_done(problem: Problem, state: ActiveSetState, tol: float) -> Array:
    """Return which rows may have a gap of at most tol: moving a zero lowers F by about half the square of its lack."""
    energy = (problem.targets * problem.targets).sum(-1)
    done: Array = (state.at_rest > 0) | (state.beyond * state.beyond <= HOPEFUL * tol * energy)
    return done


def fit_of_active_set(problem: Problem, state: ActiveSetState) -> Fit:
    """Return the fit in float64, which the state of a float64 problem knows."""
    E, Y, Q = state.residuals, problem.targets, state.correlations
    if E.dtype != np.float64:
        D, Y = problem.dictionary.astype(np.float64), Y.astype(np.float64)
        E = Y - csr_array(state.codes).astype(np.float64) @ D
        Q = E @ D.T
    residual, explained, target = ((a * a).sum(-1) for a in (E, Y - E, Y))
    return Fit(Q, residual, explained, target)


def scalar_prox(R: Regularizer, rounded: Any, dtype: Any) -> tuple[Any, Any]:
    """Return the prox of R compiled for a dtype, and its parameters as another rounds them.

    The parameters are a row for all coordinates, or one for each.
    """
    import numba

    from proxsae.formulas.numba import compiled, parameter_values

    assert isinstance(R, Separable)
    prox = compiled(R, "prox", dtype.name)
    number = getattr(numba, dtype.name)
    prox.compile((number, number, number[::1]))
    values = np.broadcast_arrays(*(np.atleast_1d(to_numpy(value)) for value in parameter_values(R)), [0.0])
    return prox, np.stack(values, axis=1).astype(rounded).astype(dtype)


def prepare_descent(R: Regularizer, D: Array) -> tuple[Any, ...]:
    """Return the scalar prox, its parameters, 1 / ||d_j||^2, and the correlations between which a zero surely stays.

    For a zero atom the step of an average one will do.
    """
    from proxsae.solvers.compiled_active_set import dead_zones

    norms2 = squared_norms(D)
    steps = 1.0 / np.where(norms2 > 0, norms2, norms2.mean() or 1.0)
    prox, parameters = scalar_prox(R, D.dtype, np.dtype(np.float64))
    ends = np.empty((len(D), 2))
    dead_zones(prox, parameters, steps, ends)
    surely = (1.0 - 16 * float(np.finfo(D.dtype).eps)) * np.ascontiguousarray(ends.T) / steps
    return prox, parameters, steps, *surely


def prepare_active_set(R: Regularizer, D: Array) -> tuple[Any, ...]:
    """Return the scalar prox, its parameters, 1 / ||d_j||^2 and its root, and the slopes where zeros rest.

    A zero atom has 0 and 1, and rests wherever it is.
    """
    from proxsae.solvers.compiled_active_set import FREE

    norms2 = squared_norms(D)
    weights = np.divide(1.0, norms2, out=np.zeros_like(norms2), where=norms2 > 0)
    lengths = np.where(weights > 0, np.sqrt(weights), 1.0)
    prox, parameters = scalar_prox(R, D.dtype, np.dtype(np.float64))
    below, above = resting_slopes(prox, parameters, norms2)
    below, above = np.where(norms2 > 0, below, -FREE), np.where(norms2 > 0, above, FREE)
    return prox, parameters, weights, lengths, below.clip(-FREE), above.clip(max=FREE)


def squared_norms(D: Array) -> Array:
    """Return ||d_j||^2 of every atom, in float64."""
    return (D.astype(np.float64) ** 2).sum(1)


def resting_slopes(prox: Any, parameters: Array, diagonal: Array) -> tuple[Array, Array]:
    """Return the ends of the subdifferential of every r_j at 0, of a convex r_j that rests there.

    They are the dead zone of the prox at any step, over the step; a power of two near those of the atoms is taken.
    """
    from proxsae.solvers.compiled_active_set import dead_zones

    average = float(diagonal.mean()) or 1.0
    step = 2.0 ** -round(math.log2(average))
    ends = np.empty((len(parameters), 2))
    dead_zones(prox, parameters, np.array([step]), ends)
    below, above = np.broadcast_to(ends.T, (2, len(diagonal)))
    return below / step, above / step


def _lacks_formula(R: Regularizer) -> str | None:
    if not isinstance(R, Separable):
        return f"needs a separable regularizer, and {R} is not"
    if not R.has_formula:
        return f"needs a formula that can be compiled, and {R} has none"
    return None


def _lacks_rest(R: Regularizer) -> str | None:
    if (lack := _lacks_formula(R)) is not None:
        return lack
    if not R.is_convex:
        return f"needs a convex regularizer, and {R} is not convex"
    if not rests_at_zero(R):
        return f"needs an R that is least at 0, and {R} is not"
    return None


def rests_at_zero(R: Regularizer) -> bool:
    """Whether a convex R is least at 0: then it is no less anywhere on a ray."""
    assert isinstance(R, Separable)
    sizes = np.logspace(-150, 150, 61)[:, None]
    rays = np.concatenate([-sizes, 0.0 * sizes[:1], sizes])
    values = R.penalties(rays)
    return bool(np.isfinite(values[len(sizes)]).all() and (values >= (1 - 1e-9) * values[len(sizes)]).all())


CD = Algorithm(
    start_descent,
    descend,
    _lacks_formula,
    ("codes", "correlations", "moves"),
    1,
    is_compiled=True,
    prepare=prepare_descent,
    needs_gram=True,
    may_be_done=may_have_settled,
)
ACTIVE_SET = Algorithm(
    start_active_set,
    grow,
    _lacks_rest,
    ("codes", "residuals", "correlations", "beyond", "at_rest"),
    1,
    is_compiled=True,
    prepare=prepare_active_set,
    knows_rest=True,
    may_be_done=may_be_done,
    fit=fit_of_active_set,
)
