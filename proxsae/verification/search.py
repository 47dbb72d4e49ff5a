"""Search over the whole line for a z with a smaller 1/2 (z - u)^2 + t r(z) than the claimed one.

No local optimiser is started at the claimed answer: a non-convex r has local minima that would hold it there.
Candidates are zero, u, a grid over sixteen orders of magnitude, a grid between and around 0 and u, every point where
the value jumps or its domain ends (bisected), and claimed answers to other questions; the best two cells are then
refined. The points u are chosen where a wrong formula has to show itself: where the claimed prox jumps or bends
(bisected).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proxsae.regularizers.namespaces import Array
from proxsae.verification.report import Check, counterexample

STEPS = (1e-4, 0.01, 0.1, 0.37, 0.5, 1.0, 2.0, 3.7, 11.0, 100.0, 1e4)
TOLERANCE = 1e-12  # of the sizes of the terms: an error e in z shows from about e = 1e-6 of its size on

_FINE = np.arange(-1000, 1001) / 100.0
_DECADES = np.logspace(-8, 8, 16 * 24 + 1)
GRID = np.unique(np.concatenate([_FINE, _DECADES, -_DECADES, [0.0]]))
POINTS = np.unique(np.concatenate([np.linspace(-6, 6, 97), *(s * np.logspace(-6, 6, 61) for s in (1, -1))]))

Scalar = Callable[[Array], Array]
ScalarProx = Callable[[Array, float], Array]


def search_line(
    value: Scalar, prox: ScalarProx, subject: str = "", steps: tuple[float, ...] = STEPS, tolerance: float = 0.0
) -> Check:
    """Compare a claimed scalar prox with the best of a search over the whole line.

    Parameters
    ----------
    value : callable
        (m,) to (m,); infinite outside the domain.
    prox : callable
        (m,) and a step to (m,).
    subject : str
        Which coordinate this is, for the report.
    steps : tuple of float
        The steps t.
    tolerance : float
        Error in z, relative to 1 + abs(z), to forgive: zero for a formula.
    """
    method = f"search over the line{subject}"
    questions = {t: _adversarial_points(prox, t) for t in steps}
    answers = {t: prox(u, t) for t, u in questions.items()}
    candidates = _candidates(value, answers)
    heights = value(candidates)
    covers = f"{sum(map(len, questions.values()))} pairs (u, t), t from {min(steps):g} to {max(steps):g}, |u| to 1e6"
    if not np.isfinite(heights).any():
        return Check(method, covers, "failed", {"z": candidates}, "the value is nowhere finite")
    if np.isnan(heights).any():
        bad = candidates[np.isnan(heights)][0]
        return Check(method, covers, "failed", {"z": float(bad)}, "the value is not a number there")
    for t, u in questions.items():
        found = _refute(value, candidates, heights, u, t, answers[t], tolerance)
        if found is not None:
            reason, numbers = found
            return Check(method, covers, "failed", numbers, reason)
    return Check(method, covers, "passed")


def _refute(
    value: Scalar, candidates: Array, heights: Array, u: Array, t: float, claimed: Array, tolerance: float
) -> tuple[str, dict[str, object]] | None:
    """Return why the claimed answers are wrong, with the clearest example, or None."""
    best, height = best_on_the_line(value, candidates, heights, u, t)
    if not np.isfinite(claimed).all():
        i = int(np.flatnonzero(~np.isfinite(claimed))[0])
        objectives = (np.inf, 0.5 * (best[i] - u[i]) ** 2 + t * height[i])
        return "the prox is not a finite number", counterexample(u[i], t, claimed[i], best[i], objectives)
    claimed, mine = _into_the_domain(value, claimed, best)
    # Differences of squares, so that large u do not hide a small loss.
    loss = 0.5 * (claimed - best) * (claimed + best - 2.0 * u) + t * (mine - height)
    scale = u * u + claimed * claimed + t * (np.abs(np.where(np.isfinite(mine), mine, 0.0)) + np.abs(height))
    forgiven = is_slack(value, claimed, best) | (np.abs(claimed - best) <= tolerance * (1.0 + np.abs(best)))
    excess = np.where(forgiven, 0.0, loss / (scale + 1e-3 * t))  # what is below a rounding of one at u = 0 is zero
    i = int(np.argmax(excess))
    if excess[i] <= max(TOLERANCE, tolerance) and not np.isnan(excess).any():
        return None
    i = i if not np.isnan(excess).any() else int(np.flatnonzero(np.isnan(excess))[0])
    reason = "a better z exists" if np.isfinite(mine[i]) else "the claimed z is outside of the domain"
    objectives = (0.5 * (claimed[i] - u[i]) ** 2 + t * mine[i], 0.5 * (best[i] - u[i]) ** 2 + t * height[i])
    return reason, counterexample(float(u[i]), t, float(claimed[i]), float(best[i]), objectives)


def is_slack(value: Scalar, claimed: Array, better: Array) -> Array:
    """Whether a better z is one only by the tolerance with which the value tests its domain.

    It is within 1e-5 of the claimed one, and the same step again leaves the domain.
    """
    return ~np.isfinite(value(2.0 * better - claimed)) & (np.abs(better - claimed) <= 1e-5 * (1.0 + np.abs(claimed)))


def best_on_the_line(value: Scalar, candidates: Array, heights: Array, u: Array, t: float) -> tuple[Array, Array]:
    """Return the best z found for each u, and its value."""
    near = np.unique(np.concatenate([np.linspace(-0.5, 1.5, 201), 1.0 + np.array([-1e-3, -1e-5, 1e-5, 1e-3])]))
    own = u[:, None] * near
    own_heights = value(own.ravel()).reshape(own.shape)
    z, height = u.copy(), value(u)
    keep = _objective(z, height, u, t)
    for grid, values in ((own, own_heights), (np.broadcast_to(candidates, (len(u), len(candidates))), heights)):
        F = _objective(grid, values, u[:, None], t)
        for rank in range(2):
            index = np.argmin(F, axis=1)
            rows = np.arange(len(u))
            low, high = _cell(grid, index)
            refined = _refine(value, low, high, grid[rows, index], u, t)
            for point, level in ((grid[rows, index], np.broadcast_to(values, F.shape)[rows, index]), refined):
                better = _objective(point, level, u, t) < keep
                z, height = np.where(better, point, z), np.where(better, level, height)
                keep = np.minimum(keep, _objective(point, level, u, t))
            if rank == 0:  # look at the second best cell too, away from the first
                for offset in range(-3, 4):
                    F[rows, np.clip(index + offset, 0, F.shape[1] - 1)] = np.inf
    return z, height


def _cell(grid: Array, index: Array) -> tuple[Array, Array]:
    """Return the neighbours of the points of a grid that ascends, or descends, along its rows."""
    rows, last = np.arange(len(grid)), grid.shape[1] - 1
    one, other = grid[rows, np.clip(index - 1, 0, last)], grid[rows, np.clip(index + 1, 0, last)]
    return np.minimum(one, other), np.maximum(one, other)


def _refine(value: Scalar, low: Array, high: Array, start: Array, u: Array, t: float) -> tuple[Array, Array]:
    """Zoom into each cell: nine rounds of seventeen points."""
    fractions = np.linspace(0.0, 1.0, 17)
    rows = np.arange(len(u))
    best, height = start, value(start)
    for _ in range(9):
        points = low[:, None] + (high - low)[:, None] * fractions
        values = value(points.ravel()).reshape(points.shape)
        F = _objective(points, values, u[:, None], t)
        i = np.argmin(F, axis=1)
        better = F[rows, i] < _objective(best, height, u, t)
        best, height = np.where(better, points[rows, i], best), np.where(better, values[rows, i], height)
        low = points[rows, np.maximum(i - 1, 0)]
        high = points[rows, np.minimum(i + 1, 16)]
    return best, height


def _objective(z: Array, height: Array, u: Array, t: float) -> Array:
    """Return F(z) - F at the square of u: z (z/2 - u) + t r(z), which keeps digits where z is small."""
    return z * (0.5 * z - u) + t * height


def _into_the_domain(value: Scalar, claimed: Array, best: Array) -> tuple[Array, Array]:
    """Forgive rounding: a claimed z that is infeasible by 1e-9 of its size is moved in."""
    height = value(claimed)
    for step in (1e-12, 1e-9):
        outside = ~np.isfinite(height)
        if not outside.any():
            break
        for moved in (claimed + step * (best - claimed), claimed * (1.0 - step), claimed * (1.0 + step)):
            level = value(moved)
            rescued = outside & np.isfinite(level) & ~np.isfinite(height)
            claimed, height = np.where(rescued, moved, claimed), np.where(rescued, level, height)
    return claimed, height


def _candidates(value: Scalar, answers: dict[float, Array]) -> Array:
    """Return the common candidates, ascending: the grid, claimed answers, and both sides of each jump of the value."""
    claimed = np.concatenate([answer[np.isfinite(answer)] for answer in answers.values()])
    every = max(1, len(claimed) // 400)
    rare = np.unique(claimed)
    rare = rare if len(rare) <= 400 else rare[:: len(rare) // 400 + 1]
    points = np.unique(np.concatenate([GRID, rare, claimed[::every]]))
    heights = value(points)
    return np.unique(np.concatenate([points, _jumps(value, points, heights)]))


def _jumps(function: Scalar, points: Array, heights: Array, limit: int = 40) -> Array:
    """Return both sides of the points where a function jumps, bisected to the last digit."""
    with np.errstate(all="ignore"):
        change = np.abs(np.diff(heights))
    change[np.isnan(change)] = 0.0  # inf - inf: nothing happens between two points outside of the domain
    around = np.maximum(np.roll(change, 1), np.roll(change, -1))
    around = np.where(np.isfinite(around), around, 0.0)
    suspect = np.flatnonzero((change > 3.0 * around) & (change > 1e-9))
    suspect = suspect[np.argsort(-change[suspect])][:limit]
    if not len(suspect):
        return np.empty(0)
    low, high = points[suspect], points[suspect + 1]
    at_low, at_high = heights[suspect], heights[suspect + 1]
    for _ in range(70):
        middle = 0.5 * (low + high)
        at_middle = function(middle)
        with np.errstate(all="ignore"):
            left, right = np.abs(at_middle - at_low), np.abs(at_high - at_middle)
        left, right = np.where(np.isnan(left), 0.0, left), np.where(np.isnan(right), 0.0, right)
        go_left = left > right
        high, at_high = np.where(go_left, middle, high), np.where(go_left, at_middle, at_high)
        low, at_low = np.where(go_left, low, middle), np.where(go_left, at_low, at_middle)
    return np.concatenate([low, high])


def _adversarial_points(prox: ScalarProx, t: float) -> Array:
    """Return points u: over all sizes, and close on both sides of where the claimed prox jumps or bends."""
    reach = 4.0 * max(1.0, t, np.sqrt(t))
    scan = np.unique(np.concatenate([np.linspace(-reach, reach, 1601), POINTS]))
    answers = prox(scan, t)
    answers = np.where(np.isfinite(answers), answers, 0.0)
    jumps = _jumps(prox_at(prox, t), scan, answers, limit=8)
    slopes = np.diff(answers) / np.diff(scan)
    bends = scan[1:-1][np.argsort(-np.abs(np.diff(slopes)))[:24]]
    near = np.concatenate([jumps, bends])
    sides = [near * (1 + s * e) for e in (1e-9, 1e-6, 1e-3, 0.02) for s in (1, -1)]
    own_scale = np.sqrt(t) * np.linspace(-4, 4, 33)
    return np.unique(np.concatenate([POINTS, near, *sides, own_scale, t * np.linspace(-3, 3, 25)]))


def prox_at(prox: ScalarProx, t: float) -> Scalar:
    """Return the prox at one step, finite everywhere."""
    return lambda u: np.nan_to_num(prox(u, t), nan=0.0, posinf=0.0, neginf=0.0)
