"""Methods that move one coordinate at a time, on the Gram matrix and compiled: coordinate descent and an active set.

The scalar formula of R is read by the compiled reader, so that each works for every separable R with a formula. Blocks
of samples run in threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.problem import Problem

BLOCKS_PER_THREAD = 4  # samples take different times


class CoordinateState(NamedTuple):
    """What both methods carry from one step to the next."""

    codes: Array  # z_k, (n_samples, n_components)
    correlations: Array  # (y - z_k D) D^T, (n_samples, n_components)


def start(problem: Problem, codes: Array) -> CoordinateState:
    """Return the state at given codes."""
    return CoordinateState(codes, -problem.gradient(codes))


def descend(problem: Problem, state: CoordinateState) -> CoordinateState:
    r"""Return a sweep over all coordinates and up to ten over those that are not zero.

    :math:`z_j^+ = \mathrm{prox}_{t_j r_j}(z_j + t_j (y - zD)d_j)` with its own step :math:`t_j = 1 / \|d_j\|^2`: the
    best value of z_j with the others held, for every separable R, convex or not. No step of all coordinates is needed,
    so that it does not crawl where 1 / L is tiny.

    References
    ----------
    Friedman, Hastie and Tibshirani (2010), J. Stat. Softw. 33; Mazumder, Friedman and Hastie (2011), SparseNet:
    coordinate descent with nonconvex penalties, J. Amer. Statist. Assoc. 106.
    """
    from proxsae.solvers import compiled_descent

    R, G, C = problem.regularizer, problem.gram, problem.correlations
    assert G is not None
    assert C is not None
    prox, parameters = scalar_prox(R, G.dtype, G.dtype)
    steps = steps_of(G)
    Z, Q = state.codes.copy(), np.empty_like(state.correlations)
    by_blocks(lambda rows: compiled_descent.descend(prox, parameters, G, steps, C[rows], Z[rows], Q[rows]), len(Z))
    return CoordinateState(Z, Q)


def grow(problem: Problem, state: CoordinateState) -> CoordinateState:
    r"""Return the codes of a larger active set: the atoms that promise most enter, and F is minimised on them all.

    On the active set a few passes of coordinate descent settle which coordinates rest at a kink or a bound of r; then
    a Newton step solves for the others on the quadratic pieces that they are on, cut where the first piece ends. Where
    r is piecewise quadratic the codes are then exact, and a few steps end with the optimum to rounding. R is convex and
    the prox of 0 is 0.

    References
    ----------
    Osborne, Presnell and Turlach (2000), IMA J. Numer. Anal. 20; Li, Sun and Toh (2018), A highly efficient semismooth
    Newton augmented Lagrangian method for solving lasso problems, SIAM J. Optim. 28.
    """
    from proxsae.solvers import compiled_active_set

    R, G, C = problem.regularizer, problem.gram, problem.correlations
    assert G is not None
    assert C is not None
    prox, parameters = scalar_prox(R, G.dtype, np.dtype(np.float64))
    below, above = resting_slopes(R, G.diagonal())
    below, above = below.astype(G.dtype), above.astype(G.dtype)
    Z, Q = state.codes.copy(), state.correlations.copy()

    def step(rows: slice) -> None:
        compiled_active_set.step(prox, parameters, G, C[rows], below, above, Z[rows], Q[rows])

    by_blocks(step, len(Z))
    return CoordinateState(Z, Q)


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


def steps_of(G: Array) -> Array:
    """Return 1 / G_jj; for a zero atom, whose step does not matter to the minimum, that of an average atom."""
    diagonal = G.diagonal()
    average = diagonal.mean() or 1.0
    return (1.0 / np.where(diagonal > 0, diagonal, average)).astype(G.dtype)


def resting_slopes(R: Regularizer, diagonal: Array) -> tuple[Array, Array]:
    """Return the ends of the subdifferential of every r_j at 0, of a convex r_j that rests there.

    They are the dead zone of the prox at any step, over the step; a power of two near those of the atoms is taken.
    """
    assert isinstance(R, Separable)
    average = float(diagonal.mean()) or 1.0
    step = 2.0 ** -round(math.log2(average))
    zone = R.dead_zone(len(diagonal), "float64", step)
    assert zone is not None
    return zone[0] / step, zone[1] / step


def by_blocks(work: Callable[[slice], None], n_rows: int) -> None:
    """Call `work` on slices of the rows, in as many threads as Numba may use."""
    import numba

    n_threads = min(numba.config.NUMBA_NUM_THREADS, len(os.sched_getaffinity(0)))
    size = max(1, -(-n_rows // (BLOCKS_PER_THREAD * n_threads)))
    blocks = [slice(first, first + size) for first in range(0, n_rows, size)]
    if n_threads == 1 or len(blocks) == 1:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, blocks))


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


CD = Algorithm(start, descend, _lacks_formula, ("codes", "correlations"), 2, is_compiled=True)
ACTIVE_SET = Algorithm(start, grow, _lacks_rest, ("codes", "correlations"), 4, is_compiled=True)
