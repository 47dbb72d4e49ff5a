"""A convex solver as oracle: the prox problem written in cvxpy, solved by Clarabel."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.verification.pairs import width_of
from proxsae.verification.report import Check, counterexample

STEPS = (0.2, 1.0, 6.0)
TOLERANCE = 1e-6  # of the sizes of the terms: what an interior-point method gives


def compare_with_solver(R: Regularizer) -> Check:
    """Compare the prox of a convex R with Clarabel's solution of min 1/2 ||z - u||^2 + t R(z).

    The expression of R in cvxpy is written apart from its value: each convex class has ``cvxpy_value(z)``, which
    returns the expression and the constraints. So the value is checked too.

    Parameters
    ----------
    R : Regularizer
        Convex.
    """
    n = width_of(R) or 5
    covers = (
        f"{len(STEPS) * 6} points u of length {n}, t from {min(STEPS)} to {max(STEPS)}; objective, minimiser, value"
    )
    method = "convex solver (cvxpy, Clarabel)"
    if not _is_written(R, n):
        return Check(method, covers, "skipped", reason=f"{type(R).__name__} is not written for cvxpy")
    rng = np.random.default_rng(n)
    for t in STEPS:
        for scale in (0.3, 1.0, 1.0, 3.0, 3.0, 10.0):
            u = scale * rng.normal(size=n)
            found = _refute(R, u, t)
            if found is not None:
                return Check(method, covers, "failed", *found)
    return Check(method, covers, "passed")


def _refute(R: Regularizer, u: Array, t: float) -> tuple[dict[str, Any], str] | None:
    claimed = R.prox(u, t)
    mine = 0.5 * ((claimed - u) ** 2).sum() + t * R.value(claimed)
    z, solved = _solve(R, u, t)
    scale = 1.0 + 0.5 * u @ u + abs(solved)
    numbers = counterexample(u, t, claimed, z, (mine, solved))
    if not mine <= solved + TOLERANCE * scale:
        return numbers, "the solver found a better z"
    if mine < solved - TOLERANCE * scale:
        return numbers, "the objective is below the solver's optimum: value and cvxpy_value are not the same function"
    # Strong convexity: 1/2 ||z - p||^2 <= F(z) - F(p).
    if not ((z - claimed) ** 2).sum() <= 10.0 * TOLERANCE * scale:
        return numbers, "the minimiser is unique, and it is another one"
    return None


def _is_written(R: Any, n: int) -> bool:
    import cvxpy as cp

    try:
        R.cvxpy_value(cp.Variable(n))
    except (AttributeError, NotImplementedError):
        return False
    return True


def _solve(R: Any, u: Array, t: float) -> tuple[Array, float]:
    import cvxpy as cp

    z = cp.Variable(len(u))
    value, constraints = R.cvxpy_value(z)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * value), constraints)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return np.asarray(z.value), float(problem.value)
