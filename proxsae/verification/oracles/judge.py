"""Judges whether a claimed z is worse than the best z found, by more than rounding and the slack of a domain."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.report import counterexample

GOING_ON = (2.0, 8.0, 64.0, 512.0)  # times the step from a claimed z to a better one: does it leave the domain?

Value = Callable[[Array], Array]


def judge(
    value: Value,
    U: Array,
    t: float,
    claimed: Array,
    best: Array,
    nearest: Array,
    *,
    allowed: float,
    tolerance: float,
    targets: tuple[Array, ...] = (),
) -> tuple[dict[str, Any], str] | None:
    """Return the clearest example of a claimed answer that is worse than the best found, and why; or None.

    Parameters
    ----------
    value : callable
        (m, n) codes to (m,) values.
    U, claimed, best, nearest : array of shape (m, n)
        The points u, the claimed z, the best z found, and the z claimed for neighbouring points.
    allowed : float
        Excess of the objective that is allowed, relative to the sizes of its terms.
    tolerance : float
        Distance in z that is allowed, relative to 1 + abs(z).
    targets : tuple of arrays
        Points of the domain, towards which a claimed answer on its edge is moved.
    """
    is_finite = np.isfinite(claimed).all(axis=-1)
    if not is_finite.all():
        i = int(np.argmin(is_finite))
        objectives = (np.inf, 0.5 * ((best[i] - U[i]) ** 2).sum() + t * value(best[[i]])[0])
        return _numbers(U[i], t, claimed[i], best[i], objectives), "the prox is not finite"
    claimed, mine = into_the_domain(value, claimed, (best, *targets))
    level = value(best)
    excess = _loss(U, t, claimed, mine, best, level)
    excess = np.where(np.isfinite(level), np.where(np.isnan(excess), np.inf, excess), -np.inf)
    for i in np.argsort(-excess, kind="stable"):
        if excess[i] <= allowed:
            return None
        if not _is_forgiven(value, U[[i]], t, claimed[[i]], mine[[i]], best[[i]], nearest[[i]], allowed, tolerance):
            break
    else:
        return None
    reason = "a better z exists" if np.isfinite(mine[i]) else "the claimed z is outside of the domain"
    both = ((claimed[i], mine[i]), (best[i], level[i]))
    objectives = tuple(0.5 * ((z - U[i]) ** 2).sum() + t * height for z, height in both)
    return _numbers(U[i], t, claimed[i], best[i], objectives), reason


def _loss(U: Array, t: float, claimed: Array, mine: Array, z: Array, level: Array) -> Array:
    """Return by how much a claimed answer is worse than z, relative to the sizes of the terms.

    It is computed by differences of squares, so that a large u does not hide a small loss.
    """
    size = np.abs(np.where(np.isfinite(mine), mine, 0.0)) + np.abs(level)
    scale = (U * U + claimed * claimed).sum(-1) + t * size
    # What is below a rounding of one at u = 0 is zero.
    return (0.5 * ((claimed - z) * (claimed + z - 2.0 * U)).sum(-1) + t * (mine - level)) / (scale + 1e-3 * t)


def _is_forgiven(
    value: Value,
    u: Array,
    t: float,
    claimed: Array,
    mine: Array,
    best: Array,
    nearest: Array,
    allowed: float,
    tolerance: float,
) -> bool:
    """Whether one claimed answer is worse by rounding alone, by its stated error, or by the slack of the domain."""
    distance, size, length = (float(np.linalg.norm(x)) for x in (claimed - best, best, u))
    if distance <= max(tolerance * (1.0 + size), 64 * np.finfo(float).eps * (length + size)):
        return True
    if is_slack(value, claimed, best)[0]:
        return True
    as_good = _loss(u, t, claimed, mine, nearest, value(nearest))[0] <= allowed
    return bool(as_good and is_slack(value, nearest, best)[0])


def _numbers(u: Array, t: float, claimed: Array, better: Array, objectives: Any) -> dict[str, Any]:
    """Return the numbers of a counterexample; of one coordinate, floats."""
    u, claimed, better = (x if len(x) > 1 else float(x[0]) for x in (u, claimed, better))
    return counterexample(u, t, claimed, better, objectives)


def is_slack(value: Value, claimed: Array, better: Array) -> Array:
    """Whether a better z is one only by the tolerance with which the value tests its domain, for each row.

    That is so where the better z is within 1e-5 of the claimed z, and a step further in that direction, within 1e-5,
    leaves the domain; or where the claimed z misses the domain by rounding.
    """
    step = np.linalg.norm(better - claimed, axis=-1) / (1.0 + np.linalg.norm(claimed, axis=-1))
    leaves = [~np.isfinite(value(claimed + k * (better - claimed))) & (0.5 * k * step <= 1e-5) for k in GOING_ON]
    return np.logical_or.reduce(leaves) | (~np.isfinite(value(claimed)) & (step <= 2e-6))


def into_the_domain(value: Value, claimed: Array, targets: tuple[Array, ...]) -> tuple[Array, Array]:
    """Move a claimed z that is infeasible by at most 1e-9 of its size into the domain; return it and its value.

    It moves towards a feasible point, or towards the mean of many, which is inside where the domain is convex.
    """
    claimed, height = claimed.copy(), value(claimed)
    for step, pull, shrink in product((1e-12, 1e-10, 1e-9), (0, 1, -1), (0, -1, 1)):
        for target in targets:
            outside = np.flatnonzero(~np.isfinite(height))
            if not len(outside):
                return claimed, height
            z = claimed[outside]
            moved = z * (1.0 + step * shrink) + step * pull * (np.broadcast_to(target, claimed.shape)[outside] - z)
            level = value(moved)
            rescued = np.isfinite(level)
            claimed[outside[rescued]], height[outside[rescued]] = moved[rescued], level[rescued]
    return claimed, np.where(np.isnan(height), np.inf, height)
