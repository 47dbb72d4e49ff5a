"""Search over whole codes, for an R whose coordinates interact.

Candidates for every (u, t) come from nowhere near the claimed answer: a grid (up to three coordinates), zero, u, all
restrictions of u to a support, multiples of these, and every answer claimed to another question, which is a feasible
point even where the domain of R has no interior. The best are refined by a pattern search; one more search starts at
the claimed answer, to find small errors.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np

from proxsae.regularizers.namespaces import Array
from proxsae.verification.pairs import Pair
from proxsae.verification.report import Check, counterexample

STEPS = (0.1, 0.5, 1.0, 3.0, 30.0)
TOLERANCE = 1e-9  # of the sizes of the terms; a pattern search in several dimensions finds no more digits
STARTS = 3
PATTERN_ROUNDS = 50


def search_codes(pair: Pair) -> Check:
    """Compare the claimed prox of whole codes with the best code that a global search finds.

    Parameters
    ----------
    pair : Pair
        Value and prox on codes of length n.
    """
    method = "brute force over codes"
    n_points = 12 if pair.is_slow else 24
    steps = pair.steps or STEPS
    questions = {t: _points(pair.n, n_points, i) for i, t in enumerate(steps)}
    covers = f"{n_points * len(steps)} pairs (u, t) of length {pair.n}, t from {min(steps)} to {max(steps)}"
    answers = {t: pair.prox(U, t) for t, U in questions.items()}
    pool = _pool(pair, answers)
    heights = pair.value(pool)
    pool, heights = pool[np.isfinite(heights)], heights[np.isfinite(heights)]
    if not len(pool):
        return Check(
            method, covers, "failed", {"z": answers[steps[0]][0]}, "the value is finite nowhere, the claimed z included"
        )
    for t, U in questions.items():
        found = _refute(pair, pool, heights, U, t, answers[t])
        if found is not None:
            return Check(method, covers, "failed", *found)
    return Check(method, covers, "passed")


def _refute(
    pair: Pair, pool: Array, heights: Array, U: Array, t: float, claimed: Array
) -> tuple[dict[str, object], str] | None:
    finite = np.isfinite(claimed).all(axis=1)
    if not finite.all():
        i = int(np.argmin(finite))
        return {"u": U[i], "t": t, "claimed z": claimed[i]}, "the prox is not finite"
    starts = np.stack([_starts(pair, pool, heights, u, t) for u in U])
    mine, inside = _into_the_domain(pair, claimed, starts[:, 0], U, t)
    starts = np.concatenate([starts, np.where(np.isfinite(mine)[:, None], inside, starts[:, 0])[:, None]], axis=1)
    found, best = _pattern_search(pair, starts, U, t, pool[:: max(1, len(pool) // 4)][:4])
    scale = 0.5 * (U**2).sum(-1) + 0.5 * (claimed**2).sum(-1) + np.abs(best)
    distance, size = np.linalg.norm(claimed - found, axis=1), 1.0 + np.linalg.norm(found, axis=1)
    forgiven = is_slack(pair.value, claimed, found) | (distance <= pair.tolerance * size)
    excess = np.where(forgiven, 0.0, (mine - best) / (scale + 1e-5 * t))
    i = int(np.argmax(excess))
    if excess[i] <= max(TOLERANCE, pair.tolerance):
        return None
    reason = "a better z exists" if np.isfinite(mine[i]) else "the claimed z is outside of the domain"
    return counterexample(U[i], t, claimed[i], found[i], (mine[i], best[i])), reason


def is_slack(value: Callable[[Array], Array], claimed: Array, better: Array) -> Array:
    """Whether a better z is one only by the tolerance with which the value tests its domain, for each row.

    It is within 1e-5 of the claimed one, and the same step again leaves the domain; or the claimed one misses the
    domain by rounding.
    """
    step = np.linalg.norm(better - claimed, axis=-1) / (1.0 + np.linalg.norm(claimed, axis=-1))
    is_edge = ~np.isfinite(value(2.0 * better - claimed)) & (step <= 1e-5)
    return is_edge | (~np.isfinite(value(claimed)) & (step <= 2e-6))


def _starts(pair: Pair, pool: Array, heights: Array, u: Array, t: float) -> Array:
    """Return the best candidates for one u."""
    own = _restrictions(u)
    points, levels = np.concatenate([pool, own]), np.concatenate([heights, pair.value(own)])
    F = 0.5 * ((points - u) ** 2).sum(-1) + t * levels
    return points[np.argsort(np.where(np.isfinite(F), F, np.inf), kind="stable")[:STARTS]]


def _into_the_domain(pair: Pair, claimed: Array, feasible: Array, U: Array, t: float) -> tuple[Array, Array]:
    """Forgive rounding: a claimed z that is infeasible by 1e-9 of its size is moved in."""
    z, F = claimed, pair.objective(U, t, claimed)
    for shrink, pull in product((0.0, -1e-10, 1e-10), (0.0, 1e-9)):
        moved = claimed * (1.0 + shrink) + pull * (feasible - claimed)
        level = pair.objective(U, t, moved)
        rescued = ~np.isfinite(F) & np.isfinite(level)
        z, F = np.where(rescued[:, None], moved, z), np.where(rescued, level, F)
    return np.where(np.isnan(F), np.inf, F), z


def _pattern_search(pair: Pair, starts: Array, U: Array, t: float, targets: Array) -> tuple[Array, Array]:
    """Return the best code for each u: all directions are tried at once, at a step that halves when none helps."""
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
    best = np.argmin(F, axis=1)
    each = np.arange(len(U))
    return z[each, best], F[each, best]


def _directions(n: int) -> Array:
    """Return the axes, the sums and differences of two axes, and a few random directions, both ways."""
    axes = np.eye(n)
    pairs = list(combinations(range(n), 2))[:20]
    diagonals = [(axes[i] + s * axes[j]) / np.sqrt(2) for i, j in pairs for s in (1, -1)]
    random = np.random.default_rng(n).normal(size=(2, n))
    forward = np.concatenate(
        [axes, np.array(diagonals).reshape(-1, n), random / np.linalg.norm(random, axis=1)[:, None]]
    )
    return np.concatenate([forward, -forward])


def _points(n: int, n_points: int, seed: int) -> Array:
    """Return points u: zero, ties, single spikes, both signs, several scales."""
    rng = np.random.default_rng(seed)
    special = [
        np.zeros(n),
        np.ones(n),
        -np.ones(n),
        np.arange(n, 0, -1.0),
        np.where(np.arange(n) == n - 1, 2.0, 0.1),
        np.where(np.arange(n) == 0, -2.0, 0.3),
        np.where(np.arange(n) % 2, -1.0, 1.0),
        np.linspace(-0.4, 0.3, n),
    ]
    scales = np.resize([1.0, 100.0, 3.0, 0.3, 10.0], n_points - len(special))
    return np.concatenate([np.array(special), scales[:, None] * rng.normal(size=(len(scales), n))])


def _pool(pair: Pair, answers: dict[float, Array]) -> Array:
    """Return candidates that serve every u: grids, claimed answers, their multiples and midpoints."""
    claimed = np.concatenate(list(answers.values()))
    claimed = claimed[np.isfinite(claimed).all(axis=1)]
    parts = [np.zeros((1, pair.n)), claimed, 0.5 * claimed, 0.5 * (claimed + np.roll(claimed, 1, axis=0)), -claimed]
    axis = {1: 401, 2: 61, 3: 19}.get(pair.n)
    if axis:
        unit = np.array(list(product(np.linspace(-1.0, 1.0, axis), repeat=pair.n)))
        parts += [1.5 * unit, 6.0 * unit]
    return np.unique(np.concatenate(parts), axis=0)


def _restrictions(u: Array) -> Array:
    """Return u on each support (the largest entries only beyond six coordinates), and multiples."""
    n = len(u)
    if n <= 6:
        masks = np.array(list(product([0.0, 1.0], repeat=n)))
    else:
        masks = (np.argsort(np.argsort(-np.abs(u))) < np.arange(n + 1)[:, None]).astype(float)
    kept = np.concatenate([masks * u, masks * np.maximum(u, 0.0)])
    multiples = np.linspace(0.0, 1.2, 25)[:, None, None] * kept[None, -len(masks) :]
    return np.unique(np.concatenate([kept, multiples.reshape(-1, n), np.linspace(0, 1.2, 25)[:, None] * u]), axis=0)
