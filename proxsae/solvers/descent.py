"""Coordinate descent on the Gram matrix, compiled, for every separable R with a formula."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.certificates import roundings
from proxsae.solvers.problem import Problem
from proxsae.solvers.scalar import lacks_formula, resting_slopes, scalar_prox, squared_norms, steps_of


class DescentState(NamedTuple):
    """The state of coordinate descent between two steps."""

    codes: Array  # z_k, (n_samples, n_components)
    correlations: Array  # (y - z_k D) D^T, (n_samples, n_components)
    moves: Array  # the coordinate-wise residual of z_k, not divided by anything, (n_samples,)


def start_descent(problem: Problem, codes: Array) -> DescentState:
    """Return the state at given codes; any sample may be done already."""
    correlations = -problem.gradient(codes) if codes.any() else np.array(problem.correlations)
    return DescentState(codes, correlations, np.zeros(len(codes)))


def descend(problem: Problem, state: DescentState) -> DescentState:
    r"""Return the state after a sweep over all coordinates and then sweeps over the non-zeros until they settle.

    :math:`z_j^+ = \mathrm{prox}_{t_j r_j}(z_j + t_j (y - zD)d_j)` with its own step :math:`t_j = 1 / \|d_j\|^2`: the
    best value of z_j with the others held, for every separable R, convex or not. The step of one coordinate does not
    depend on 1 / L, so that the method stays fast where 1 / L is tiny.

    References
    ----------
    Friedman, Hastie and Tibshirani (2010), J. Stat. Softw. 33; Mazumder, Friedman and Hastie (2011), SparseNet:
    coordinate descent with nonconvex penalties, J. Amer. Statist. Assoc. 106.
    """
    from proxsae.solvers import compiled_descent

    G, C, moves = problem.gram, problem.correlations, np.empty(len(state.codes))
    Z, Q = state.codes.copy(), np.empty_like(C)
    compiled_descent.descend(Z.dtype)(*problem.tools[:2], G, *problem.tools[2:], C, Z, Q, moves)
    return DescentState(Z, Q, moves)


def may_have_settled(problem: Problem, state: DescentState, tol: float) -> Array:
    """Return which rows may have a coordinate-wise residual of at most tol, or of rounding."""
    assert problem.gram is not None
    Z, lengths = state.codes, np.sqrt(problem.gram.diagonal())
    size, reach = np.linalg.norm(Z * lengths, axis=1), np.linalg.norm(problem.targets, axis=1)
    noise = roundings(Z) * ((reach + abs(Z) @ lengths) * np.sqrt((Z != 0).sum(1) + 1) + size)
    done: Array = state.moves <= tol * np.maximum(size, reach) + noise
    return done


def prepare(R: Regularizer, D: Array) -> tuple[Any, ...]:
    """Return the scalar prox, its parameters, 1 / ||d_j||^2, and the correlations between which a zero surely stays."""
    norms2 = squared_norms(D)
    prox, parameters = scalar_prox(R, D.dtype, np.dtype(np.float64))
    return prox, parameters, steps_of(norms2), *resting_slopes(R, prox, parameters, norms2)


CD = Algorithm(
    start_descent,
    descend,
    lacks_formula,
    ("codes", "correlations", "moves"),
    1,
    is_compiled=True,
    by_coordinates=True,
    prepare=prepare,
    needs_gram=True,
    may_be_done=may_have_settled,
)
