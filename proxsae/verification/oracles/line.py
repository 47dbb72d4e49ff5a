"""Search over the whole line for a z with a smaller 1/2 (z - u)^2 + t r(z) than the claimed one.

No local optimiser is started at the claimed answer, since it would stay in a local minimum of a non-convex r.
Candidates are zero, u, a grid over sixteen orders of magnitude, a grid between and around 0 and u, every point where
the value jumps or its domain ends (bisected), and claimed answers for other points. The claimed answers for thousands
of points u are compared with the best candidate, and with points at eight distances from the claimed answer. Then the
best two cells of candidates are refined for some hundred points u where a wrong formula is most likely to show: where
the claimed prox jumps or bends (bisected).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.formulas.integers import evenly_spaced
from proxsae.kernels.lower_hull import lower_hull
from proxsae.regularizers.tabulation import jumps
from proxsae.verification.oracles.judge import Value, judge
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check

LINE_STEPS = (1e-4, 0.01, 0.1, 0.37, 0.5, 1.0, 2.0, 3.7, 11.0, 100.0, 1e4)
MORE_STEPS = tuple(float(t) for t in np.logspace(-3, 3, 37))
TOLERANCE = 1e-12  # of the sizes of the terms: an error e in z shows from about e = 1e-6 of its size on

_FINE = np.arange(-1000, 1001) / 100.0
_DECADES = np.logspace(-8, 8, 16 * 24 + 1)
GRID = np.unique(np.concatenate([_FINE, _DECADES, -_DECADES, [0.0]]))
POINTS = np.unique(np.concatenate([np.linspace(-6, 6, 97), *(s * np.logspace(-6, 6, 61) for s in (1, -1))]))
_LADDER = np.concatenate([s * 10.0 ** -np.arange(8) for s in (1, -1)])


def search_pair(pair: Pair, j: int = 0) -> Check:
    """Compare the claimed prox of coordinate j, or of all if they are equal, with a search of the whole line."""
    value, prox = pair.coordinate(j)
    sizes, tolerance, reach = pair.sizes, pair.tolerance, pair.reach
    method = "search over the line" + ("" if pair.scalar is not None else f", coordinate {j}")
    steps = pair.steps or LINE_STEPS
    # A numerical prox has a table to make for each step.
    more = MORE_STEPS if pair.steps is None and sizes.is_thorough and not tolerance else ()
    scans = {t: _judged(prox, _scan(t, t in more, sizes.scan), t, reach) for t in (*steps, *more)}
    asked = {t: _thin(_adversarial_points(prox, t, *scans[t]), sizes.asked) for t in steps}
    questions = {t: _judged(prox, u, t, reach) for t, u in asked.items()}
    claimed = np.concatenate([z for part in (scans, questions) for _, z in part.values()])
    known = np.unique(claimed[np.isfinite(claimed)])
    candidates = _candidates(value, claimed[np.isfinite(claimed)], known)
    heights = value(candidates)
    covers = f"{len(claimed)} pairs (u, t), t from {min(scans):g} to {max(scans):g}, |u| to {min(reach, 1e6):g}"
    if not len(claimed):
        return Check(method, covers, "failed", {"t": steps[0]}, "the prox overflows at every u and t")
    if not np.isfinite(heights).any():
        return Check(method, covers, "failed", {"z": candidates}, "the value is nowhere finite")
    for name, bad in (("not a number", np.isnan(heights)), ("minus infinity", heights == -np.inf)):
        if bad.any():
            return Check(method, covers, "failed", {"z": float(candidates[bad][0])}, f"the value is {name} there")

    def judged(t: float, u: Array, z: Array, best: Array) -> Check | None:
        nearest = known[np.clip(np.searchsorted(known, best - 1e-5 * (1.0 + np.abs(best))), 0, max(len(known) - 1, 0))]
        # A formula that is right in the reals has rounding errors of the size of u; at extreme steps it may lose more.
        allowed = max(TOLERANCE if 0.01 <= t <= 100 else 1e-7, tolerance)
        columns = (x[:, None] for x in (z, best, nearest if len(known) else best))
        found = judge(lambda Z: value(Z[:, 0]), u[:, None], t, *columns, allowed=allowed, tolerance=tolerance)
        return None if found is None else Check(method, covers, "failed", *found)

    for t, (u, z) in scans.items():
        if failed := judged(t, u, z, _best_candidate(candidates, heights, u, t)):
            return failed
        near = evenly_spaced(len(u), sizes.around // 2 if t in more else sizes.around)
        if failed := judged(t, u[near], z[near], _nearby(value, u[near], t, z[near])):
            return failed
    for t, (u, z) in questions.items():
        if failed := judged(t, u, z, best_on_the_line(value, candidates, heights, u, t)[0]):
            return failed
    return Check(method, covers, "passed")


def _judged(prox: Callable[[Array, float], Array], u: Array, t: float, reach: float) -> tuple[Array, Array]:
    """Return points u and the claimed answers, without those where value or prox overflows."""
    u = u[np.abs(u) <= reach]
    z = prox(u, t)
    judged = ~np.isinf(z) & ~(np.abs(z) > reach)
    return u[judged], z[judged]


def _thin(points: Array, count: int) -> Array:
    return points[evenly_spaced(len(points), count)]


def _scan(t: float, is_coarse: bool, count: int) -> Array:
    """Return points u over all sizes, ascending, finely spaced where formulas change from branch to branch."""
    own = 4.0 * max(1.0, t, np.sqrt(t))
    if is_coarse:
        return _thin(np.unique(np.concatenate([np.linspace(-8, 8, 801), np.linspace(-own, own, 401)])), count // 4)
    lines = [np.linspace(-16, 16, 3201), np.linspace(-100, 100, 2001), np.linspace(-own, own, 1601)]
    return _thin(np.unique(np.concatenate([*lines, *(s * np.logspace(-6, 6, 241) for s in (1, -1))])), count)


def _best_candidate(candidates: Array, heights: Array, u: Array, t: float) -> Array:
    """Return the best candidate for each u: on the lower hull of z^2 / 2 + t r(z) they are in the order of the u."""
    inside = np.isfinite(heights)
    z, curve = candidates[inside], 0.5 * candidates[inside] ** 2 + t * heights[inside]
    hull = lower_hull(z, curve)
    return z[hull][np.searchsorted(np.diff(curve[hull]) / np.diff(z[hull]), u)]


def _nearby(value: Value, u: Array, t: float, claimed: Array) -> Array:
    """Return the best of a ladder of steps away from each claimed answer."""
    away = np.concatenate([claimed[:, None] + _LADDER, claimed[:, None] * (1.0 + _LADDER)], axis=1)
    heights = value(away.ravel()).reshape(away.shape)
    F = _objective(away, np.where(np.isnan(heights), np.inf, heights), u[:, None], t)
    return away[np.arange(len(u)), np.argmin(F, axis=1)]


def best_on_the_line(value: Value, candidates: Array, heights: Array, u: Array, t: float) -> tuple[Array, Array]:
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


def _refine(value: Value, low: Array, high: Array, start: Array, u: Array, t: float) -> tuple[Array, Array]:
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


def _candidates(value: Value, claimed: Array, known: Array) -> Array:
    """Return the common candidates, ascending: the grid, claimed answers, and both sides of each jump of the value."""
    own = (known[:: len(known) // 400 + 1], claimed[:: len(claimed) // 400 + 1])
    points = np.unique(np.concatenate([GRID, *own]))
    return np.unique(np.concatenate([points, jumps(value, points, value(points)), [0.0]]))


def _adversarial_points(prox: Callable[[Array, float], Array], t: float, scan: Array, answers: Array) -> Array:
    """Return points u: over all sizes, and close on both sides of where the claimed prox jumps or bends."""
    answers = np.where(np.isfinite(answers), answers, 0.0)
    sudden = jumps(lambda u: np.nan_to_num(prox(u, t), nan=0.0, posinf=0.0, neginf=0.0), scan, answers, limit=8)
    slopes = np.diff(answers) / np.diff(scan)
    bends = scan[1:-1][np.argsort(-np.abs(np.diff(slopes)))[:24]]
    near = np.concatenate([sudden, bends])
    sides = [near * (1 + s * e) for e in (1e-9, 1e-6, 1e-3, 0.02) for s in (1, -1)]
    own_scale = np.sqrt(t) * np.linspace(-4, 4, 33)
    return np.unique(np.concatenate([POINTS, near, *sides, own_scale, t * np.linspace(-3, 3, 25)]))
