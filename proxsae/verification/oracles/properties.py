"""Properties of every prox: checks that need no minimiser."""

from __future__ import annotations

import numpy as np

from proxsae.verification.pair import Pair
from proxsae.verification.report import Check, counterexample

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 1e-9  # or the error that a prox computed numerically states of itself


def check_monotone(pair: Pair, *, is_convex: bool = False) -> Check:
    """Check two properties of every prox: F(p) <= F(q) at u for every other answer q, and <p - q, u - v> >= 0.

    For convex R both hold with a margin: F(q) >= F(p) + 1/2 ||p - q||^2 and <p - q, u - v> >= ||p - q||^2.
    """
    rounding = max(ROUNDING, pair.tolerance)
    count = pair.sizes.pairs
    method = "firm monotonicity and three-point inequality" if is_convex else "monotonicity"
    covers = f"{count} x {count} pairs of {pair.covers}"
    margin = " + 1/2 ||p - q||^2" if is_convex else ""
    for t in pair.tried_steps:
        U, P = pair.answers(pair.points(count), t)
        if not len(U):
            continue
        size = 1.0 + (U**2).sum(-1)[:, None]
        apart = is_convex * ((P[:, None] - P[None]) ** 2).sum(-1)
        levels = 0.5 * ((P[None] - U[:, None]) ** 2).sum(-1) + t * pair.value(P)[None]  # of answer j to question i
        levels[~np.isfinite(levels)] = np.nan  # whether an answer is in the domain is for the searches to say
        own = np.diag(levels)[:, None]
        loss = (own + 0.5 * apart - levels) / (size + apart + np.abs(own))
        i, j = np.unravel_index(int(np.argmax(np.nan_to_num(loss, nan=0.0))), loss.shape)
        if loss[i, j] > rounding:
            numbers = counterexample(U[i], t, P[i], P[j], (levels[i, i], levels[i, j]))
            return Check(method, covers, "failed", numbers, f"F(q) < F(p){margin} for the answer q to another u")
        inner = ((P[:, None] - P[None]) * (U[:, None] - U[None])).sum(-1) - apart
        inner /= size + size.T
        i, j = np.unravel_index(int(np.argmin(inner)), inner.shape)
        if not inner[i, j] >= -rounding:
            numbers = {"t": t, "u": U[i], "prox(u)": P[i], "v": U[j], "prox(v)": P[j]}
            words = f"<prox(u) - prox(v), u - v> < {'||prox(u) - prox(v)||^2' if is_convex else 0}"
            return Check(method, covers, "failed", numbers, words)
    return Check(method, covers, "passed")


def check_coordinates_apart(pair: Pair) -> Check:
    """Check that the prox of a sum over coordinates takes them one at a time, each with its own parameters."""
    rounding = max(ROUNDING, pair.tolerance)
    method = "one coordinate does not influence another"
    for t in pair.tried_steps:
        U, P = pair.answers(pair.points(pair.sizes.pairs), t)
        for j in range(min(pair.n, 16)):
            alone = pair.coordinate(j)[1](U[:, j], t)
            wrong = ~(np.abs(alone - P[:, j]) <= rounding * (1.0 + np.abs(U[:, j]))) & ~np.isinf(alone)
            others = np.where(np.arange(pair.n) == j, alone[:, None], P)
            mine, theirs = pair.objective(U, t, P), pair.objective(U, t, others)
            # Where the claimed one is as good, it is for the search of the line to judge it.
            wrong &= ~(mine <= theirs + 1e-12 * (1.0 + np.abs(theirs)))
            if wrong.any():
                i = int(np.argmax(wrong))
                numbers = counterexample(U[i], t, P[i], others[i], (mine[i], theirs[i]))
                return Check(method, pair.covers, "failed", numbers, f"coordinate {j} alone gives a better answer")
    return Check(method, pair.covers, "passed")


def check_repeatable(pair: Pair) -> Check:
    """Check that the prox returns the same result for the same input twice."""
    t = (pair.steps or (1.0,))[0]
    U, P = pair.answers(pair.points(20), t)
    again = pair.prox(U, t)
    covers = f"{len(U)} points of length {pair.n}, each asked twice"
    differs = ~(np.isclose(P, again, rtol=0.0, atol=ROUNDING * (1.0 + np.abs(U)), equal_nan=True)).all(axis=-1)
    if differs.any():
        i = int(np.argmax(differs))
        numbers = {"u": U[i], "t": t, "claimed z": P[i], "claimed z again": again[i]}
        return Check("the same answer twice", covers, "failed", numbers, "the prox is random, or remembers")
    return Check("the same answer twice", covers, "passed")


def check_limits(pair: Pair) -> Check:
    """Check that R(prox(u)) falls and ||prox(u) - u|| grows with t: both follow from optimality at two steps."""
    method = "limits in t"
    steps = np.sort(pair.steps) if pair.steps else np.logspace(-4, 4, 25)
    U = pair.points(pair.sizes.pairs)
    covers = f"R(prox) falls and ||prox - u|| grows as t goes from {steps[0]:g} to {steps[-1]:g}"
    answers = [pair.prox(U, float(t)) for t in steps]
    for s, t, Q, P in zip(steps[:-1], steps[1:], answers[:-1], answers[1:], strict=True):
        rise = pair.value(P) - pair.value(Q)
        approach = ((Q - U) ** 2).sum(-1) - ((P - U) ** 2).sum(-1)
        # At extreme steps a formula that is right in the reals may have lost digits.
        rounding = max(ROUNDING if 0.01 <= s < t <= 100 else 1e-6, pair.tolerance)
        wrong = (rise > rounding * (1.0 + np.abs(pair.value(Q)))) & np.isfinite(rise)
        wrong |= ~(approach <= rounding * (1.0 + (U**2).sum(-1)))
        wrong &= ~np.isinf(P).any(axis=-1) & ~np.isinf(Q).any(axis=-1)
        if wrong.any():
            i = int(np.argmax(wrong))
            numbers = {"u": U[i], "t": float(s), "prox": Q[i], "larger t": float(t), "prox there": P[i]}
            numbers |= {"R rises by": float(rise[i]), "squared distance falls by": float(approach[i])}
            return Check(method, covers, "failed", numbers, "one of the two is not a minimiser")
    return Check(method, covers, "passed")
