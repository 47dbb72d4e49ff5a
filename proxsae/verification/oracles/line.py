"""Search over the whole line for a z with a smaller 1/2 (z - u)^2 + t r(z) than the claimed one.

No local optimiser is started at the claimed answer: a non-convex r has local minima that would hold it there.
Candidates are zero, u, a grid over sixteen orders of magnitude, a grid between and around 0 and u, every point where
the value jumps or its domain ends (bisected), and claimed answers to other questions. A scan of thousands of points u
is compared with the best candidate, and with points at eight sizes around the claimed answer. Then for some hundred
points the best two cells of candidates are refined: where a wrong formula has to show itself, which is where the
claimed prox jumps or bends (bisected).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.tabulation import jumps
from proxsae.verification.report import Check, counterexample

STEPS = (1e-4, 0.01, 0.1, 0.37, 0.5, 1.0, 2.0, 3.7, 11.0, 100.0, 1e4)
MORE_STEPS = tuple(float(t) for t in np.logspace(-3, 3, 37))
GOING_ON = (2.0, 8.0, 64.0, 512.0)  # times the step from a claimed z to a better one: does it leave the domain?
SLOW = 2e-4  # seconds for one number: then only the first steps are looked at, and only the scans
TOLERANCE = 1e-12  # of the sizes of the terms: an error e in z shows from about e = 1e-6 of its size on

_FINE = np.arange(-1000, 1001) / 100.0
_DECADES = np.logspace(-8, 8, 16 * 24 + 1)
GRID = np.unique(np.concatenate([_FINE, _DECADES, -_DECADES, [0.0]]))
POINTS = np.unique(np.concatenate([np.linspace(-6, 6, 97), *(s * np.logspace(-6, 6, 61) for s in (1, -1))]))
_LADDER = np.concatenate([s * 10.0 ** -np.arange(8) for s in (1, -1)])

Scalar = Callable[[Array], Array]
ScalarProx = Callable[[Array, float], Array]


def search_line(
    value: Scalar,
    prox: ScalarProx,
    subject: str = "",
    steps: tuple[float, ...] | None = None,
    tolerance: float = 0.0,
    reach: float = np.inf,
    seconds: float = 0.0,
) -> Check:
    """Compare a claimed scalar prox with the best of a search over the whole line.

    Parameters
    ----------
    value : callable
        (m,) to (m,); infinite outside the domain.
    prox : callable
        (m,) and a step to (m,); infinite where it overflows, which is not judged.
    subject : str
        Which coordinate this is, for the report.
    steps : tuple of float, optional
        The steps t; by default `STEPS`, and, looked at more quickly, `MORE_STEPS`.
    tolerance : float
        Error in z, relative to 1 + abs(z), to forgive: zero for a formula.
    reach : float
        Modulus up to which the value does not overflow.
    seconds : float
        What value and prox take for one number; fewer numbers are put to slow functions.
    """
    method = f"search over the line{subject}"
    more = () if steps or seconds > SLOW else MORE_STEPS
    scans = {t: _judged(prox, _scan(t, t in more, seconds), t, reach) for t in (*(steps or STEPS), *more)}
    questions = {
        t: _judged(prox, _thin(_adversarial_points(prox, t, *scans[t]), seconds, 0.1 / 820, 3), t, reach)
        for t in steps or STEPS
        if seconds <= SLOW
    }
    claimed = np.concatenate([z for part in (scans, questions) for _, z in part.values()])
    known = np.unique(claimed[np.isfinite(claimed)])
    candidates = _candidates(value, claimed[np.isfinite(claimed)], known, seconds)
    heights = value(candidates)
    covers = f"{len(claimed)} pairs (u, t), t from {min(scans):g} to {max(scans):g}, |u| to {min(reach, 1e6):g}"
    if not np.isfinite(heights).any():
        return Check(method, covers, "failed", {"z": candidates}, "the value is nowhere finite")
    for name, bad in (("not a number", np.isnan(heights)), ("minus infinity", heights == -np.inf)):
        if bad.any():
            return Check(method, covers, "failed", {"z": float(candidates[bad][0])}, f"the value is {name} there")
    for t, (u, z) in scans.items():
        budget = (0.02 if t in more else 0.05) / 33
        u, z = _thin(u, seconds, budget, 3), _thin(z, seconds, budget, 3)
        found = _refute(value, *_near_and_far(value, candidates, heights, u, t, z), u, t, z, known, tolerance)
        if found is not None:
            return Check(method, covers, "failed", *found)
    for t, (u, z) in questions.items():
        found = _refute(value, *best_on_the_line(value, candidates, heights, u, t), u, t, z, known, tolerance)
        if found is not None:
            return Check(method, covers, "failed", *found)
    return Check(method, covers, "passed")


def _judged(prox: ScalarProx, u: Array, t: float, reach: float) -> tuple[Array, Array]:
    """Return points u and the claimed answers, without those where value or prox overflows."""
    u = u[np.abs(u) <= reach]
    z = prox(u, t)
    judged = ~np.isinf(z) & ~(np.abs(z) > reach)
    return u[judged], z[judged]


def _thin(points: Array, seconds: float, budget: float, least: int = 9) -> Array:
    """Return evenly chosen points, as many as the budget in seconds allows; a few in any case."""
    count = max(least, int(budget / max(seconds, 1e-12)))
    return points if count >= len(points) else points[np.linspace(0, len(points) - 1, count).astype(int)]


def _scan(t: float, is_coarse: bool, seconds: float) -> Array:
    """Return points u over all sizes, ascending, finely spaced where formulas change from branch to branch."""
    own = 4.0 * max(1.0, t, np.sqrt(t))
    if is_coarse:
        return _thin(np.unique(np.concatenate([np.linspace(-8, 8, 801), np.linspace(-own, own, 401)])), seconds, 0.01)
    lines = [np.linspace(-16, 16, 3201), np.linspace(-100, 100, 2001), np.linspace(-own, own, 1601)]
    return _thin(np.unique(np.concatenate([*lines, *(s * np.logspace(-6, 6, 241) for s in (1, -1))])), seconds, 0.05)


def _near_and_far(
    value: Scalar, candidates: Array, heights: Array, u: Array, t: float, claimed: Array
) -> tuple[Array, Array]:
    """Return the better of the best candidate and the best of a ladder of steps away from the claimed answer."""
    inside = np.flatnonzero(np.isfinite(heights))
    z, level = candidates[inside], heights[inside]
    hull = _lower_hull(z.tolist(), (0.5 * z * z + t * level).tolist())
    z, level = z[hull], level[hull]
    i = np.searchsorted(np.diff(0.5 * z * z + t * level) / np.diff(z), u) if len(z) > 1 else np.zeros(len(u), int)
    away = np.concatenate([claimed[:, None] + _LADDER, claimed[:, None] * (1.0 + _LADDER)], axis=1)
    near = value(away.ravel()).reshape(away.shape)
    F = _objective(away, np.where(np.isnan(near), np.inf, near), u[:, None], t)
    rows, j = np.arange(len(u)), np.argmin(F, axis=1)
    is_near = F[rows, j] < _objective(z[i], level[i], u, t)
    return np.where(is_near, away[rows, j], z[i]), np.where(is_near, near[rows, j], level[i])


def _lower_hull(x: list[float], y: list[float]) -> list[int]:
    """Return the indices of the lower convex hull of points with ascending x: each is the best z for some u."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return hull


def _refute(
    value: Scalar, best: Array, height: Array, u: Array, t: float, claimed: Array, known: Array, tolerance: float
) -> tuple[dict[str, object], str] | None:
    """Return the clearest example of a claimed answer that is worse than the best found, and why; or None."""
    if np.isnan(claimed).any():
        i = int(np.argmax(np.isnan(claimed)))
        objectives = (np.inf, 0.5 * (best[i] - u[i]) ** 2 + t * height[i])
        return counterexample(float(u[i]), t, float(claimed[i]), float(best[i]), objectives), "the prox is not a number"
    claimed, mine = _into_the_domain(value, claimed, best)

    def loss(z: Array, level: Array) -> Array:  # differences of squares, so that large u do not hide a small one
        scale = u * u + claimed * claimed + t * (np.abs(np.where(np.isfinite(mine), mine, 0.0)) + np.abs(level))
        # What is below a rounding of one at u = 0 is zero.
        return (0.5 * (claimed - z) * (claimed + z - 2.0 * u) + t * (mine - level)) / (scale + 1e-3 * t)

    # A formula that is right in the reals has rounding errors of the size of u; at extreme steps it may lose more.
    allowed = max(TOLERANCE if 0.01 <= t <= 100 else 1e-7, tolerance)
    close = np.maximum(tolerance * (1.0 + np.abs(best)), 64 * np.finfo(float).eps * (np.abs(u) + np.abs(best)))
    forgiven = is_slack(value, claimed, best) | (np.abs(claimed - best) <= close)
    nearest = known[np.clip(np.searchsorted(known, best - 1e-5 * (1.0 + np.abs(best))), 0, max(len(known) - 1, 0))]
    forgiven |= is_slack(value, nearest, best) & (loss(nearest, value(nearest)) <= allowed)
    excess = np.where(forgiven, 0.0, loss(best, height))
    excess = np.where(np.isnan(excess), np.inf, excess)
    i = int(np.argmax(excess))
    if excess[i] <= allowed:
        return None
    reason = "a better z exists" if np.isfinite(mine[i]) else "the claimed z is outside of the domain"
    objectives = (0.5 * (claimed[i] - u[i]) ** 2 + t * mine[i], 0.5 * (best[i] - u[i]) ** 2 + t * height[i])
    return counterexample(float(u[i]), t, float(claimed[i]), float(best[i]), objectives), reason


def is_slack(value: Scalar, claimed: Array, better: Array) -> Array:
    """Whether a better z is one only by the tolerance with which the value tests its domain.

    It is within 1e-5 of the claimed one, and going on in that direction, within 1e-5, leaves the domain.
    """
    step = np.abs(better - claimed) / (1.0 + np.abs(claimed))
    leaves = [~np.isfinite(value(claimed + k * (better - claimed))) & (0.5 * k * step <= 1e-5) for k in GOING_ON]
    return np.logical_or.reduce(leaves)


def best_on_the_line(value: Scalar, candidates: Array, heights: Array, u: Array, t: float) -> tuple[Array, Array]:
    """Return the best z found for each u, and its value."""
    if not len(u):
        return u.copy(), u.copy()
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


def _candidates(value: Scalar, claimed: Array, known: Array, seconds: float) -> Array:
    """Return the common candidates, ascending: the grid, claimed answers, and both sides of each jump of the value."""
    own = (known[:: len(known) // 400 + 1], claimed[:: len(claimed) // 400 + 1])
    points = _thin(np.unique(np.concatenate([GRID, *own])), seconds, 0.3, 200)
    sudden = jumps(value, points, value(points)) if seconds <= SLOW else np.zeros(1)
    return np.unique(np.concatenate([points, sudden, [0.0]]))


def _adversarial_points(prox: ScalarProx, t: float, scan: Array, answers: Array) -> Array:
    """Return points u: over all sizes, and close on both sides of where the claimed prox jumps or bends."""
    answers = np.where(np.isfinite(answers), answers, 0.0)
    sudden = jumps(prox_at(prox, t), scan, answers, limit=8)
    slopes = np.diff(answers) / np.diff(scan)
    bends = scan[1:-1][np.argsort(-np.abs(np.diff(slopes)))[:24]]
    near = np.concatenate([sudden, bends])
    sides = [near * (1 + s * e) for e in (1e-9, 1e-6, 1e-3, 0.02) for s in (1, -1)]
    own_scale = np.sqrt(t) * np.linspace(-4, 4, 33)
    return np.unique(np.concatenate([POINTS, near, *sides, own_scale, t * np.linspace(-3, 3, 25)]))


def prox_at(prox: ScalarProx, t: float) -> Scalar:
    """Return the prox at one step, finite everywhere."""
    return lambda u: np.nan_to_num(prox(u, t), nan=0.0, posinf=0.0, neginf=0.0)
