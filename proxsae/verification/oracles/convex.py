"""A convex solver as oracle: the prox problem written in cvxpy, solved by Clarabel.

The expressions of R(z) in cvxpy are written here, apart from the classes that they judge, so that they check the value
too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.asymmetric import Tilt
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.blocks import Blocks
from proxsae.regularizers.from_cvxpy import FromCvxpy, built
from proxsae.regularizers.groups import OfNorms
from proxsae.regularizers.huber import Huber
from proxsae.regularizers.k_support import KSupport, KSupportNorm
from proxsae.regularizers.nonseparable import RescaledNonSeparable
from proxsae.regularizers.partition import partition
from proxsae.regularizers.separable import RescaledSeparable
from proxsae.regularizers.simplex import L1Ball, LInf, Simplex
from proxsae.regularizers.sorted_l1 import SortedL1, SumOfKLargest
from proxsae.regularizers.translated import TranslatedNonSeparable, TranslatedSeparable
from proxsae.regularizers.tree import TreeGroups
from proxsae.verification.pair import STEPS, Pair
from proxsae.verification.report import Check, counterexample

TOLERANCE = 1e-6  # of the sizes of the terms: what an interior-point method gives

Written = tuple[Any, list[Any]]  # an expression and its constraints


# --- R in cvxpy ---------------------------------------------------------------------------------------------------


def _huber(cp: Any, R: Huber, z: Any) -> Written:
    near = cp.Variable(z.shape)  # h(z) = min over q of q^2 / (2 alpha) + abs(z - q)
    return cp.multiply(1.0 / (2.0 * R.alpha), cp.square(near)) + cp.abs(z - near), []


def _sorted_l1(cp: Any, R: SortedL1, z: Any) -> Written:
    drops = [*(R.weights[:-1] - R.weights[1:]), *R.weights[-1:]]
    return sum(drop * cp.sum_largest(cp.abs(z), k) for k, drop in enumerate(drops, start=1)), []


def _k_support(cp: Any, R: KSupport, z: Any) -> Written:
    theta = cp.Variable(z.shape[0])
    return _quotients(cp, z, theta), [theta <= 1, cp.sum(theta) <= R.k]


def _k_support_norm(cp: Any, R: KSupportNorm, z: Any) -> Written:
    shares, s = cp.Variable(z.shape[0]), cp.Variable()  # N = min over s of N^2 / 2s + s/2, the shares times s
    return _quotients(cp, z, shares) + 0.5 * s, [shares <= s, cp.sum(shares) <= R.k * s]


def _quotients(cp: Any, z: Any, shares: Any) -> Any:
    return sum(0.5 * cp.quad_over_lin(z[i], shares[i]) for i in range(z.shape[0]))


def _of_norms(cp: Any, R: OfNorms, z: Any) -> Written | None:
    parts = partition(R.groups, z.shape[0])
    members = [np.flatnonzero(parts.labels.numbers == g) for g in range(len(parts.sizes))]
    costs = R.costs(ArrayNamespace(np.zeros(1)), parts)
    bounds = cp.Variable(len(members))  # r does not fall: its least value is at the norms
    written = expression_of(R.r if R.is_indicator else R.r.scaled(costs), bounds)
    return written and (written[0], [*written[1], *(cp.norm2(z[g]) <= bounds[i] for i, g in enumerate(members))])


def _tree_groups(cp: Any, R: TreeGroups, z: Any) -> Written:
    costs = R.group_weights or ()
    return sum(c * cp.norm2(z[list(group)]) for group, c in zip(R.groups, costs, strict=True)), []


# At weight one, by the class that writes the value: entry by entry where R is separable.
EXPRESSIONS: dict[type, Callable[[Any, Any, Any], Written | None]] = {
    Zero: lambda cp, R, z: (0.0 * z, []),
    L1: lambda cp, R, z: (cp.abs(z), []),
    SquaredL2: lambda cp, R, z: (0.5 * cp.square(z), []),
    Tilt: lambda cp, R, z: (cp.multiply(R.slope, z), []),
    Huber: _huber,
    NonNegative: lambda cp, R, z: (0.0 * z, [z >= 0]),
    Box: lambda cp, R, z: (0.0 * z, [z >= R.lower, z <= R.upper]),
    L1Ball: lambda cp, R, z: (cp.Constant(0.0), [cp.norm1(z) <= R.radius]),
    Simplex: lambda cp, R, z: (cp.Constant(0.0), [z >= 0, cp.sum(z) == R.radius]),
    LInf: lambda cp, R, z: (cp.norm_inf(z), []),
    SortedL1: _sorted_l1,
    SumOfKLargest: lambda cp, R, z: (cp.sum_largest(cp.abs(z), min(R.k, z.shape[0])), []),
    KSupport: _k_support,
    KSupportNorm: _k_support_norm,
    OfNorms: _of_norms,
    TreeGroups: _tree_groups,
    FromCvxpy: lambda cp, R, z: built(R.build, z),
}


def expression_of(R: Regularizer, z: Any) -> Written | None:
    """Return R(z) as a convex cvxpy expression of the variable z and its constraints, or None where none is known.

    The value is the least of the expression over its other variables, infinite where the constraints cannot be met.
    """
    import cvxpy as cp

    if isinstance(R, Blocks):
        ends = np.cumsum([width for _, width in R.blocks])
        return _sum(
            expression_of(part, z[end - width : end]) for (part, width), end in zip(R.blocks, ends, strict=True)
        )
    if isinstance(R, TranslatedSeparable | TranslatedNonSeparable):
        return expression_of(R.inner, z - R.center)
    if isinstance(R, RescaledSeparable | RescaledNonSeparable):  # s^2 R(z / s)
        inner = expression_of(R.inner, z / R.scale)
        return inner and (R.scale**2 * inner[0], inner[1])
    if len(R.terms) > 1:
        return _sum(expression_of(term, z) for term in R.terms)
    write = EXPRESSIONS.get(R.writer)
    written = write and write(cp, R, z)
    if written is None:
        return None
    expression, constraints = written
    weight: Any = 1.0 if R.is_indicator else R.weight
    return cp.sum(cp.multiply(weight, expression)), constraints


def _sum(written: Iterable[Written | None]) -> Written | None:
    parts = list(written)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return sum(value for value, _ in known), [c for _, constraints in known for c in constraints]


# --- the oracle -----------------------------------------------------------------------------------------------------


def compare_with_solver(R: Regularizer, pair: Pair) -> Check:
    """Compare the prox of a convex R with Clarabel's solution of min 1/2 ||z - u||^2 + t R(z)."""
    import cvxpy as cp

    n, steps = pair.n, pair.steps or STEPS[::2]
    covers = f"{len(steps) * 6} points u of length {n}, t from {min(steps):g} to {max(steps):g}; "
    covers += "objective, minimiser, value"
    method = "convex solver (cvxpy, Clarabel)"
    if expression_of(R, cp.Variable(n)) is None:
        return Check(method, covers, "skipped", reason=f"{type(R).__name__} is not written for cvxpy")
    rng, doubt = np.random.default_rng(n), ""
    for t in steps:
        for scale in (0.3, 1.0, 1.0, 3.0, 3.0, 10.0):
            u = scale * rng.normal(size=n)
            z, solved, status = _solve(R, u, t)
            found = _refute(R, u, t, z, solved)
            if found is not None and status == cp.OPTIMAL:
                return Check(method, covers, "failed", *found)
            if found is not None:
                doubt = f"{found[1]}, but the solver's status is {status}"
    return Check(method, covers, "undecided" if doubt else "passed", reason=doubt)


def _refute(R: Regularizer, u: Array, t: float, z: Array, solved: float) -> tuple[dict[str, Any], str] | None:
    claimed = R.prox(u, t)
    mine = 0.5 * ((claimed - u) ** 2).sum() + t * R.value(claimed)
    scale = 1.0 + 0.5 * u @ u + abs(solved)
    numbers = counterexample(u, t, claimed, z, (mine, solved))
    if not mine <= solved + TOLERANCE * scale:
        return numbers, "the solver found a better z"
    if mine < solved - TOLERANCE * scale:
        return numbers, "the objective is below the solver's optimum: the value is not what R is in cvxpy"
    # Strong convexity: 1/2 ||z - p||^2 <= F(z) - F(p).
    if not ((z - claimed) ** 2).sum() <= 10.0 * TOLERANCE * scale:
        return numbers, "the minimiser is unique, and it is another one"
    return None


def _solve(R: Any, u: Array, t: float) -> tuple[Array, float, str]:
    import cvxpy as cp

    z = cp.Variable(len(u))
    value, constraints = expression_of(R, z) or (0.0, [])
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * value), constraints)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate")  # the status says it
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return np.asarray(z.value), float(problem.value), problem.status
