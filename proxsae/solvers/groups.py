"""Coordinate descent by groups, on the Gram matrix and compiled, for regularizers of the norms of groups."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.basic import Zero
from proxsae.regularizers.groups import OfNorms
from proxsae.regularizers.nonseparable import NonSeparableSum
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.problem import NONCONVEX_SHARE, Problem
from proxsae.solvers.scalar import scalar_prox, squared_norms


class GroupState(NamedTuple):
    """The state of the descent between two steps."""

    codes: Array  # z_k, (n_samples, n_components)
    correlations: Array  # (y - z_k D) D^T, (n_samples, n_components)


def start(problem: Problem, codes: Array) -> GroupState:
    """Return the state at given codes."""
    return GroupState(codes, -problem.gradient(codes) if codes.any() else np.array(problem.correlations))


def descend(problem: Problem, state: GroupState) -> GroupState:
    r"""Return the state after a sweep over all groups and sweeps over the non-zero groups until they settle.

    :math:`z_g^+ = \mathrm{prox}_{t_g R_g}(z_g + t_g (y - zD) D_g^T)` with its own step :math:`t_g = 1 / \|D_g\|_2^2`,
    for every R of the norms of groups, convex or not, with a separable partner. Each such update lowers F.

    References
    ----------
    Qin, Scheinberg and Goldfarb (2013), Efficient block-coordinate descent algorithms for the group lasso, Math.
    Program. Comput. 5; Breheny and Huang (2015), Group descent algorithms for nonconvex penalized linear and logistic
    regression models with grouped predictors, Stat. Comput. 25.
    """
    from proxsae.solvers.compiled_groups import descend_groups

    Z, Q = state.codes.copy(), np.empty_like(problem.correlations)
    descend_groups(*problem.tools, problem.gram, problem.correlations, Z, Q)
    return GroupState(Z, Q)


def prepare(R: Regularizer, D: Array) -> tuple[Any, ...]:
    """Return what the compiled loops read: the two scalar proxes, the numbers of each group, and its coordinates."""
    core, partner, ridge, slope = _parts(R)
    xp, p, double = ArrayNamespace(D), len(D), np.dtype(np.float64)
    units = core.units(p)
    costs = np.asarray(core.costs(xp, units), np.float64) * (1.0 if core.is_indicator else float(core.weight))
    order = np.argsort(units.labels.numbers, kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(units.sizes)]).astype(np.int64)
    atoms = D.astype(np.float64)
    largest = np.array([np.linalg.norm(atoms[order[a:b]], 2) ** 2 for a, b in pairwise(starts)])
    steps = (1.0 if R.is_convex else NONCONVEX_SHARE) / np.where(largest > 0, largest, squared_norms(D).mean() or 1.0)
    slopes = np.broadcast_to(np.asarray(slope, np.float64), p).copy()
    proxes = *scalar_prox(core.r, D.dtype, double), *scalar_prox(partner, D.dtype, double)
    return *proxes, float(ridge), slopes, np.broadcast_to(costs, len(steps)).copy(), steps, order, starts


def _parts(R: Any) -> tuple[OfNorms, Separable, Any, Any]:
    """Return the parts of R: the norms, their partner, and the weights of a ridge and a tilt."""
    if isinstance(R, NonSeparableSum):
        return R.core, R.base, R.ridge.weight, R.tilt.weight * R.tilt.slope  # type: ignore[return-value]
    return R, Zero(), 0.0, 0.0


def lacks_groups(R: Regularizer) -> str | None:
    """Return in one sentence what R lacks for a descent by groups, or None."""
    core = R.core if isinstance(R, NonSeparableSum) else R
    if not isinstance(core, OfNorms) or core.groups is None:
        return f"needs a separable regularizer, or one of the norms of groups, and {R} is neither"
    for part in (core.r, R.base if isinstance(R, NonSeparableSum) else Zero()):
        if not part.has_formula:
            return f"needs a formula that can be compiled, and {part} has none"
    return None


GROUP_CD = Algorithm(
    start, descend, lacks_groups, ("codes", "correlations"), 2, is_compiled=True, prepare=prepare, needs_gram=True
)
