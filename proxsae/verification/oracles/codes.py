"""Search over whole codes, for an R whose coordinates interact.

Candidates for every (u, t) do not come from the claimed answer: a grid (up to three coordinates), zero, u, all
restrictions of u to a support, multiples of these, and every answer claimed for other (u, t), which is a feasible point
even where the domain of R has no interior. R is evaluated at every claimed answer. Some of these, and those outside of
the domain, are compared with points around them, at eight sizes, in many directions. For some (u, t) a pattern search
starts from the best candidates and from the claimed answer. The points u include both sides of jumps of the claimed
prox along a ray.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.formulas.integers import evenly_spaced
from proxsae.regularizers.tabulation import jumps
from proxsae.verification.oracles.judge import into_the_domain, judge
from proxsae.verification.pair import STEPS, Pair
from proxsae.verification.report import Check

MORE_STEPS = tuple(float(t) for t in np.logspace(-2, 2, 13))
TOLERANCE = 1e-9  # of the sizes of the terms; a pattern search in several dimensions finds no more digits
STARTS = 3
LONG = 8  # coordinates, from which fewer codes are looked at closely
MOST_SEARCHED = 16  # coordinates
PATTERN_ROUNDS = 50


def search_codes(pair: Pair) -> Check:
    """Compare the claimed prox of whole codes with the best code that a global search finds."""
    method, sizes = "brute force over codes", pair.sizes
    steps = pair.steps or (*STEPS, *(MORE_STEPS if sizes.is_thorough else ()))
    questions = {t: pair.answers(_questions(pair, t, i), t) for i, t in enumerate(steps)}
    covers = f"R(z) at {sum(len(U) for U, _ in questions.values())} pairs (u, t) of {pair.size}, "
    covers += f"t from {min(steps):g} to {max(steps):g}"
    claimed = np.concatenate([Z for _, Z in questions.values()])
    if not len(claimed):
        return Check(method, covers, "failed", {"t": steps[0]}, "the prox overflows at every u and t")
    pool = _pool(claimed[np.isfinite(claimed).all(axis=1)], pair.n, sizes.pool)
    heights = pair.value(pool)
    pool, heights = pool[np.isfinite(heights)], heights[np.isfinite(heights)]
    if not len(pool):
        reason = "the value is finite nowhere, the claimed z included"
        return Check(method, covers, "failed", {"z": claimed[0]}, reason)
    targets = pool[:: max(1, len(pool) // 10)][:10]
    fewer = 1 if pair.n <= LONG else 4
    searched: set[tuple[float, int]] = set()
    for is_far in (False, True)[: 2 if pair.n <= MOST_SEARCHED else 1]:
        for t, (U, Z) in questions.items():
            count = (sizes.far if t in pair.tried_steps else 0) if is_far else sizes.near
            most = -(-count // fewer)
            some = evenly_spaced(len(U), most)
            if not is_far:
                outside = _outside(pair, Z, pool.mean(axis=0))
                some = np.union1d(some, outside[evenly_spaced(len(outside), most)])
            searched |= {(t, int(i)) for i in some}
            found = _refute(pair, pool, heights, targets, U[some], t, Z[some], is_far=is_far)
            if found is not None:
                return Check(method, f"{covers}; a better z sought at {len(searched)}", "failed", *found)
    return Check(method, f"{covers}; a better z sought at {len(searched)}", "passed")


def _outside(pair: Pair, claimed: Array, inner: Array) -> Array:
    """Return the indices of the answers that are outside of the domain by more than rounding, or not finite."""
    broken = np.flatnonzero(~np.isfinite(claimed).all(axis=1))
    if len(broken) or not len(claimed):
        return broken
    return np.flatnonzero(~np.isfinite(into_the_domain(pair.value, claimed, (inner,))[1]))


def _refute(
    pair: Pair, pool: Array, heights: Array, targets: Array, U: Array, t: float, claimed: Array, *, is_far: bool
) -> tuple[dict[str, object], str] | None:
    if not len(U):
        return None
    starts = np.stack([_starts(pair, pool, heights, u, t) for u in U])
    feasible = (starts[:, 0], pool.mean(axis=0))
    if np.isfinite(claimed).all():
        inside, mine = into_the_domain(pair.value, claimed, feasible)
        starts = np.concatenate([starts, np.where(np.isfinite(mine)[:, None], inside, starts[:, 0])[:, None]], axis=1)
    best = (_pattern_search if is_far else _around)(pair, starts, U, t, targets)
    nearest = pool[[np.argmin(((z - pool) ** 2).sum(-1)) for z in best]]
    allowed = max(TOLERANCE, pair.tolerance)
    return judge(
        pair.value, U, t, claimed, best, nearest, allowed=allowed, tolerance=pair.tolerance, targets=feasible[1:]
    )


def _starts(pair: Pair, pool: Array, heights: Array, u: Array, t: float) -> Array:
    """Return the best candidates for one u."""
    own = _restrictions(u)
    points, levels = np.concatenate([pool, own]), np.concatenate([heights, pair.value(own)])
    F = (0.5 * points**2 - points * u).sum(-1) + t * levels
    F = np.where(np.isnan(F), np.inf, F)
    first = np.argpartition(F, STARTS)[:STARTS] if len(F) > STARTS else np.arange(len(F))
    return points[first[np.argsort(F[first], kind="stable")]]


def _around(pair: Pair, starts: Array, U: Array, t: float, targets: Array) -> Array:
    """Return the best of the starts, and of points around the last of them, for each u."""
    sizes = 10.0 ** -np.arange(8)[:, None, None]
    best, level = starts[:, 0], pair.objective(U, t, starts[:, 0])
    for i, (u, z) in enumerate(zip(U, starts[:, -1], strict=True)):
        towards = np.concatenate([targets - z, [u - z, z, -z]])
        steps = np.concatenate([_directions(pair.n) * (1.0 + np.abs(z).max()), towards, -towards[:-1]])
        tried = (z + sizes * steps).reshape(-1, pair.n)
        F = pair.objective(u, t, tried)
        j = int(np.argmin(np.where(np.isnan(F), np.inf, F)))
        if F[j] < level[i]:
            best[i], level[i] = tried[j], F[j]
    return best


def _pattern_search(pair: Pair, starts: Array, U: Array, t: float, targets: Array) -> Array:
    """Return the best code for each u: all directions are tried at once, at a step that halves when none helps."""
    targets = targets[:4]
    z = starts.reshape(-1, pair.n)
    u = np.repeat(U, starts.shape[1], axis=0)
    F = pair.objective(u, t, z)
    step = 0.5 * (1.0 + np.abs(u).max(axis=1))
    axes = np.broadcast_to(_directions(pair.n), (len(z), *_directions(pair.n).shape))
    rows = np.arange(len(z))
    for _ in range(PATTERN_ROUNDS):
        towards = targets[None] - z[:, None]
        towards = towards / (1.0 + np.linalg.norm(towards, axis=-1, keepdims=True))
        tried = z[:, None] + step[:, None, None] * np.concatenate([axes, towards], axis=1)
        levels = pair.objective(np.repeat(u, tried.shape[1], axis=0), t, tried.reshape(-1, pair.n))
        levels = np.where(np.isnan(levels), np.inf, levels).reshape(tried.shape[:2])
        i = np.argmin(levels, axis=1)
        better = levels[rows, i] < F
        z = np.where(better[:, None], tried[rows, i], z)
        F = np.where(better, levels[rows, i], F)
        step = np.where(better, step * 1.3, step * 0.5)
        if step.max() < 1e-9:
            break
    z, F = z.reshape(starts.shape), F.reshape(starts.shape[:2])
    return z[np.arange(len(U)), np.argmin(F, axis=1)]


@cache
def _directions(n: int) -> Array:
    """Return the axes, the sums and differences of two axes, and a few random directions, both ways."""
    axes = np.eye(n)
    pairs = list(combinations(range(n), 2))
    pairs = [pairs[k] for k in np.random.default_rng(n).permutation(len(pairs))[:20]]
    diagonals = [(axes[i] + s * axes[j]) / np.sqrt(2) for i, j in pairs for s in (1, -1)]
    random = np.random.default_rng(n).normal(size=(2, n))
    forward = np.concatenate(
        [axes, np.array(diagonals).reshape(-1, n), random / np.linalg.norm(random, axis=1)[:, None]]
    )
    return np.concatenate([forward, -forward])


def _questions(pair: Pair, t: float, seed: int) -> Array:
    """Return points u of several kinds, and points on rays where the claimed prox jumps."""
    points = pair.points(pair.sizes.codes, seed)
    if not pair.sizes.is_thorough:
        return points
    rng = np.random.default_rng(seed)
    spread = 3.0 * max(1.0, t, np.sqrt(t)) * np.linspace(0.01, 1.0, 40)
    found = []
    for ray in (np.ones(pair.n), np.eye(pair.n)[seed % pair.n], *rng.normal(size=(2, pair.n))):
        weights = rng.normal(size=pair.n)

        def along(s: Array, ray: Array = ray, weights: Array = weights) -> Array:
            return np.nan_to_num(pair.prox(s[:, None] * ray, t), nan=0.0, posinf=0.0, neginf=0.0) @ weights

        near = jumps(along, spread, along(spread), limit=2)
        sizes = np.concatenate([near * (1.0 + e) for e in (-0.02, -4e-3, -1e-3, -1e-6, 1e-6, 1e-3, 4e-3, 0.02)])
        found.append(np.concatenate([spread[seed % 4 :: 4], sizes])[:, None] * ray)
    return np.concatenate([points, *found])


def _pool(claimed: Array, n: int, count: int) -> Array:
    """Return candidates that serve every u: grids, claimed answers, their multiples and midpoints."""
    claimed = claimed[:: len(claimed) // (count // 4 + 1) + 1]
    parts = [np.zeros((1, n)), claimed, 0.5 * claimed, 0.5 * (claimed + np.roll(claimed, 1, axis=0)), -claimed]
    axis = {1: 401, 2: 61, 3: 19}.get(n)
    if axis:
        unit = np.array(list(product(np.linspace(-1.0, 1.0, axis), repeat=n)))
        grid = np.concatenate([1.5 * unit, 6.0 * unit])
        parts.append(grid[:: len(grid) // (count + 1) + 1])
    return np.unique(np.concatenate(parts), axis=0)


def _restrictions(u: Array) -> Array:
    """Return u on each support (the largest entries only beyond six coordinates), and multiples."""
    n = len(u)
    if n <= 6:
        masks = np.array(list(product([0.0, 1.0], repeat=n)))
    else:
        masks = (np.argsort(np.argsort(-np.abs(u))) < np.arange(n + 1)[:, None]).astype(float)
    positive = (np.argsort(np.argsort(-u)) < np.arange(n + 1)[:, None]).astype(float)
    fractions = np.linspace(0.0, 1.2, 25 if n <= 4 else 7)[:, None]
    multiples = fractions[:, :, None] * (masks * u)
    kept = [masks * u, masks * np.maximum(u, 0.0), positive * np.maximum(u, 0.0)]
    return np.concatenate([*kept, multiples.reshape(-1, n), fractions * u])
