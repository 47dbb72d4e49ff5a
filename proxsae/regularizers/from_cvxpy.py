"""Any convex R that cvxpy can express, solved problem by problem: for checking and for small codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import isfinite
from numbers import Real
from threading import RLock
from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy
from proxsae.regularizers.nonseparable import NonSeparable

GAP = 1e-12  # gap of the solver: 1/2 ||z - prox||^2 is at most F(z) - min F, by strong convexity
RESIDUAL = 1e-9  # of the solver's equations: at large steps it cannot meet 1e-12, and would stop far from the prox
FEASIBLE = 1e-6  # how far a point may be from a constraint, relative to 1 + its largest modulus

_using = RLock()  # threads share the problems that are kept, with their parameters and variables


class FromCvxpy(NonSeparable):
    r"""R given by a cvxpy expression; each prox is a problem for Clarabel.

    Clarabel closes the duality gap of the objective F to 1e-12 of 1 + abs(F), with residuals of 1e-9, and cvxpy warns
    where it does not. As F is strongly convex, the prox is then right to :math:`\sqrt{2 \cdot 10^{-12} (1 + |F|)}`,
    which is less than `tolerance`, 2e-6, times :math:`1 + \|u\|` where R(0) = 0.

    Parameters
    ----------
    build : callable
        ``build(z)`` returns a convex scalar expression of the cvxpy variable z of shape (n_components,), or a finite
        number, or a pair of either and its constraints. Written ``from_cvxpy(lambda z: cp.norm1(cp.diff(z)))``.

    Raises
    ------
    ValueError
        By :meth:`value` and :meth:`prox`, if there is no such expression, or it is not convex by cvxpy's rules, or the
        solver fails.
    TypeError
        If a Torch tensor asks for a gradient: there is none.
    """

    build: Callable[[Any], Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.build):
            raise TypeError(f"FromCvxpy takes a function of a cvxpy variable, got {self.build!r}")

    is_convex = True
    has_gradient = False
    tolerance = 2e-6

    @property
    def value_latex(self) -> str:
        return rf"\mathrm{{{getattr(self.build, '__name__', 'R').strip('<>')}}}(z)"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return the value of the expression, minimised over its other variables; infinity outside the constraints."""
        with _using:
            return xp.asarray(np.array([_value(self.build, row) for row in _rows(Z)], dtype=np.float64))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        rows = _rows(U)
        steps = np.broadcast_to(to_numpy(t).reshape(-1), (len(rows),))
        with _using:
            solutions = [_solve(self.build, row, float(step)) for row, step in zip(rows, steps, strict=True)]
        return xp.asarray(np.array(solutions).reshape(tuple(U.shape)))


def from_cvxpy(build: Callable[[Any], Any]) -> FromCvxpy:
    """Return the regularizer of a convex cvxpy expression; see :class:`FromCvxpy`."""
    return FromCvxpy(build)


def _rows(Z: Array) -> Any:
    if array_api_compat.is_torch_array(Z) and Z.requires_grad:
        raise TypeError("a regularizer from cvxpy has no gradient; pass a detached tensor")
    return to_numpy(Z).astype(np.float64).reshape(-1, Z.shape[-1])


def built(build: Callable[[Any], Any], z: Any) -> tuple[Any, list[Any]]:
    """Return the scalar expression of a variable z and its constraints, or raise TypeError where there is none."""
    import cvxpy as cp

    result = build(z)
    value, constraints = result if isinstance(result, tuple) and len(result) == 2 else (result, [])
    constraints = list(constraints) if isinstance(constraints, Iterable) else constraints
    is_number = not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
    is_scalar = is_number or (isinstance(value, cp.Expression) and value.size == 1)
    are_constraints = isinstance(constraints, list) and all(isinstance(c, cp.Constraint) for c in constraints)
    if not (is_scalar and are_constraints):
        raise TypeError(
            "it must be a scalar expression or a finite number, or a pair of either and a list of constraints, "
            f"got {result!r}"
        )
    return cp.sum(value), constraints


@lru_cache(maxsize=32)
def _problem(build: Callable[[Any], Any], n_components: int) -> tuple[Any, Any, Any, Any]:
    """Return the problem of a prox, its variable, and its parameters u and t."""
    import cvxpy as cp

    z, expression, constraints = _expression(build, n_components)
    u, t = cp.Parameter(n_components), cp.Parameter(nonneg=True)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * expression), constraints), z, u, t


@lru_cache(maxsize=32)
def _expression(build: Callable[[Any], Any], n_components: int) -> tuple[Any, Any, list[Any]]:
    import cvxpy as cp

    z = cp.Variable(n_components)
    try:
        expression, constraints = built(build, z)
    except Exception as error:  # cvxpy raises several kinds where shapes do not fit
        raise ValueError(f"from_cvxpy: no expression for codes of {n_components} components: {error}") from error
    if not (expression.is_convex() and all(constraint.is_dcp() for constraint in constraints)):
        raise ValueError("from_cvxpy: the expression is not convex by cvxpy's rules")
    return z, expression, constraints


def _solve(build: Callable[[Any], Any], row: Any, step: float) -> Any:
    import cvxpy as cp

    problem, z, u, t = _problem(build, len(row))
    u.value, t.value = row, step
    # A warm start would keep the scaling of the problem before, which fails at other steps, and depend on it.
    try:
        problem.solve(solver=cp.CLARABEL, warm_start=False, tol_gap_abs=GAP, tol_gap_rel=GAP, tol_feas=RESIDUAL)
    except cp.SolverError as error:
        raise ValueError(f"from_cvxpy: the solver failed at u = {row}, step = {step}") from error
    if z.value is None:
        raise ValueError(f"from_cvxpy: the solver gave no solution, its status is {problem.status}")
    return z.value


def _value(build: Callable[[Any], Any], row: Any) -> float:
    import cvxpy as cp

    z, expression, constraints = _expression(build, len(row))
    slack = FEASIBLE * (1 + np.abs(row).max(initial=0.0))
    others = {v.id for item in (expression, *constraints) for v in item.variables()} - {z.id}
    if not others:
        z.save_value(row)
        inside = all(np.max(constraint.violation(), initial=0.0) <= slack for constraint in constraints)
        return float(expression.value) if inside else np.inf
    near = cp.Problem(cp.Minimize(expression), [*constraints, cp.abs(z - row) <= slack * 1e-2])
    value = near.solve(solver=cp.CLARABEL)
    return float(value) if near.status in ("optimal", "optimal_inaccurate") else np.inf
