"""Theorems with an error: the rigorous bound for the formulas that no exact proof reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from proxsae.formulas.arrays import ArrayNamespace
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.entmax import Entmax, entries, penalty
from proxsae.regularizers.separable import Separable
from proxsae.verification.boxes.bounds import REACH, STEPS, Bound, Question, bound
from proxsae.verification.boxes.enclosures import Enclosure
from proxsae.verification.boxes.intervals import ENORMOUS, TINY
from proxsae.verification.boxes.paths import PathReader, UnreadableError
from proxsae.verification.proofs.prove import OPTIMAL, Proof

EPSILON = 1e-3
FIRST_EPSILON = 1e-2  # less, but in half the time
BOX = f"-{REACH:g} <= u <= {REACH:g}, {STEPS[0]:g} <= t <= {STEPS[1]:g}"


def bound_in_time(bound_of: Callable[[Any, float, float], Proof], R: Any, timeout: float) -> Proof:
    """Return the finest bound that is reached in the time: first a coarse one, then one of EPSILON."""
    start = time.monotonic()
    coarse = bound_of(R, timeout, FIRST_EPSILON)
    if coarse.verdict != "bounded":
        return coarse
    fine = bound_of(R, timeout - (time.monotonic() - start), EPSILON)
    return replace(fine if fine.verdict != "unknown" else coarse, seconds=time.monotonic() - start)


def bound_separable(R: Separable, timeout: float = 60.0, epsilon: float = EPSILON) -> Proof:
    r"""Bound how much worse than optimal the shipped formula of one coordinate can be, over a box.

    For all z and all (u, t) of the box, F(prox(u)) <= F(z) + epsilon, in real arithmetic, with the parameters as they
    are (by :meth:`Separable.rescaled` the same holds in other units). The formula is read by affine arithmetic with
    outward rounding; ``xp.root`` is read as the exact zero that Newton's method goes for. What the formula computes in
    float64 is held against the same bound, at the middle of every box that was looked at.

    Parameters
    ----------
    R : Separable
        With scalar parameters.
    timeout : float, default 60
        Seconds after which the verdict is "unknown".
    epsilon : float, default 1e-3
        The bound.

    Raises
    ------
    UnreadableError
        If the formula calls a function that has no enclosure, or its parameters differ between coordinates.
    """
    start = time.monotonic()
    if not (R.is_uniform and R.has_formula):
        raise UnreadableError("a table" if R.is_uniform else "parameters of one value a coordinate")
    r = R.map_parameters(lambda _, value: float(value))
    question = Question(r.weighted_value, r.weighted_prox)
    theorem = f"{OPTIMAL} + {epsilon:g} for {BOX}, all z and these parameters"
    found = bound(question, (-REACH, REACH), STEPS, epsilon, start + timeout)
    parameters = {name: float(value) for name, value in r.parameters()}
    return _proof(repr(R), theorem, found, question, parameters, start, epsilon)


def bound_selection(R: Cardinality, timeout: float = 60.0, epsilon: float = EPSILON) -> Proof:
    """Bound the partner; the k largest gains, each known to epsilon, then cost at most k epsilon.

    With g the exact gains and h the shipped ones, g - epsilon <= h <= g: for the k largest of either, the sum of h is
    at least the sum of the k largest g less k epsilon
    (:func:`proxsae.verification.proofs.gain_rule.exchange_lemma`). Ranking by abs(u) or max(u, 0) instead is in the
    order of g by the lemmas there, whose conditions are read off the formula.
    """
    if not _is_ranked_by_gain(R):
        raise UnreadableError("a ranking that is not seen to be that of the gains")
    partner = bound_separable(R.separable, timeout, epsilon)
    theorem = f"keeping the k largest gains costs at most {epsilon:g} k, since of the partner {partner.theorem}"
    return Proof(repr(R), theorem, partner.verdict, partner.seconds, partner.counterexample, epsilon)


def _is_ranked_by_gain(R: Cardinality) -> bool:
    """Whether the ranking is by the gain, or r >= 0 is even, or infinite below 0, as ranking by u requires."""
    mirror = R.mirror(np.ones(()))
    if mirror is None:
        return True
    reader = PathReader({}, forks=False)
    below, above = np.array([-np.inf, 0.0]), np.array([-TINY, np.inf])
    z = Enclosure(reader, reader.key("variable", "z"), below, above, np.zeros(2), (), np.full(2, np.inf))
    with np.errstate(all="ignore"):
        values = [reader.number(R.separable.weighted_value(reader, number)) for number in (z, -z)]
    low = np.broadcast_to(values[0].low, (2,))
    if mirror == 1.0:
        return bool(low[0] >= ENORMOUS and low[1] >= 0)
    return bool((low >= 0).all() and values[0].key == values[1].key)


def bound_entmax(R: Entmax, timeout: float = 60.0, epsilon: float = EPSILON) -> Proof:
    """Bound the entries given the level, and check that the entries found sum to 1.

    For z and p on the simplex the level drops out: F(z) - F(p) is the sum over the entries of the same difference with
    u less the level (weak duality). So entries that are optimal to epsilon make codes of n entries optimal to
    n epsilon; in units of the radius.
    """
    start = time.monotonic()
    alpha = R.alpha
    linear = 0.5 - 1.0 / (alpha * (alpha - 1.0))  # any linear term is constant on the simplex: the level takes this one

    def value(xp: Any, z: Any) -> Any:
        return xp.where(z < 0, xp.inf, xp.where(z > 1, xp.inf, penalty(xp, z, alpha) - linear * z))

    theorem = f"{OPTIMAL} + {epsilon:g} n for {BOX} (u less the level, t times the weight), all z on the simplex"
    for steps in ((1.0, 1.0), STEPS):
        at_one = steps[0] == steps[1]
        question = Question(value, partial(_entries, alpha, at_one))
        found = bound(question, (-REACH, REACH), steps, epsilon, start + timeout)
        if not found.is_settled:
            return _proof(repr(R), theorem, found, question, {"alpha": alpha}, start, epsilon)
    U = np.random.default_rng(0).normal(size=(500, 6)) * np.logspace(-1, 1, 5).repeat(100)[:, None]
    for t in (0.1, 1.0, 4.0):
        sums = R.prox(U, t).sum(-1)
        worst = int(np.argmax(np.abs(sums - R.radius)))
        if not np.abs(sums[worst] - R.radius) <= 1e-9 * R.radius:
            numbers = {"fails": "the entries sum to the radius", "u": U[worst], "t": t, "sum": float(sums[worst])}
            return Proof(repr(R), theorem, "counterexample", time.monotonic() - start, numbers, epsilon)
    return _proof(repr(R), theorem, Bound(True, None), question, {}, start, epsilon)


def _entries(alpha: float, at_one: bool, xp: Any, v: Any, t: Any) -> Any:
    return entries(xp, v, t, alpha, at_one=at_one)


def _proof(
    name: str,
    theorem: str,
    found: Bound,
    question: Question,
    parameters: dict[str, float],
    start: float,
    epsilon: float,
) -> Proof:
    if found.refutation is None:
        verdict = "bounded" if found.is_settled else "unknown"
        return Proof(name, theorem, verdict, time.monotonic() - start, None, epsilon)  # type: ignore[arg-type]
    u, t, claimed, better = found.refutation
    z = np.array([claimed, better])
    xp = ArrayNamespace(z)
    with np.errstate(all="ignore"):
        objectives = 0.5 * (z - u) ** 2 + t * np.asarray(question.value(xp, z))
    fails = f"{OPTIMAL} + {epsilon:g}"
    if not np.isfinite(claimed):
        fails = "the prox is a real number"
    elif not np.isfinite(objectives[0]):
        fails = "the prox is in the domain"
    numbers = {
        "fails": fails,
        "u": u,
        "t": t,
        **parameters,
        "claimed z": claimed,
        "better z": better,
        "claimed objective": float(objectives[0]),
        "better objective": float(objectives[1]),
    }
    return Proof(name, theorem, "counterexample", time.monotonic() - start, numbers, epsilon)
