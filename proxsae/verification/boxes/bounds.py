r"""How far from optimal can the shipped formula be? A rigorous bound over a box, where there is no proof.

With :math:`F(v) = \frac12 (v-u)^2 + t\,r(v)` and p the formula that runs,
:math:`F(p) - \inf F = \varphi(u,t) - [u p - p^2/2 - t\,r(p)]`. The supremum :math:`\varphi` is convex in (u, t)
together; the formula is enclosed near an affine function; so their difference is largest at a corner of the region
(what a path of the formula keeps of a rectangle), up to a rest that shrinks with the square of the rectangle.
Rectangles are halved until each is settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.verification.boxes.conditions import Choice, Comparison
from proxsae.verification.boxes.enclosures import NONE, Enclosure
from proxsae.verification.boxes.jets import JetReader
from proxsae.verification.boxes.paths import PathReader
from proxsae.verification.boxes.polygons import clipped, square
from proxsae.verification.boxes.rectangles import Boxes, boxes_of, tiles_of
from proxsae.verification.boxes.suprema import Supremum, Value

REACH = 8.0  # of u
STEPS = (0.05, 8.0)  # of t
RADII = (1.0, 0.25, 0.0625, 0.015625)  # of the neighbourhoods tried
MOST_PATHS = 256
SLIMMEST = 32.0  # sides of a rectangle that is halved along the shorter one
BATCH = 8192
SMALLEST = 1e-7  # a rectangle that is not settled at this size will not be


@dataclass(frozen=True)
class Question:
    """A scalar prox and what it claims to minimise.

    Attributes
    ----------
    value, prox : callable
        The formulas, of a namespace first: ``value(xp, z)`` and ``prox(xp, u, t)``.
    """

    value: Value
    prox: Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Path:
    """One reading of the formula.

    Attributes
    ----------
    reader : PathReader
        With what was decided.
    u, t : Enclosure
        The point.
    numbers : list of Enclosure
        The prox; after it what it was compared with, zero the last, if the formula did that.
    gains : list of Enclosure
        What each gains over zero: the prox gains as much as any.
    """

    reader: PathReader
    u: Enclosure
    t: Enclosure
    numbers: list[Enclosure]
    gains: list[Enclosure]


@dataclass(frozen=True)
class Bound:
    """What was found: settled, refuted by (u, t, claimed z, better z), or neither."""

    is_settled: bool
    refutation: tuple[float, float, float, float] | None


def bound(question: Question, u: tuple[float, float], t: tuple[float, float], epsilon: float, deadline: float) -> Bound:
    """Bound F(p) - inf F by epsilon over a box of u and t, or refute it.

    Parameters
    ----------
    question : Question
        The formulas.
    u, t : pair of float
        The box.
    epsilon : float
        The bound.
    deadline : float
        The ``time.monotonic()`` after which nothing more is tried.
    """
    tiles = tiles_of(u, t)
    # Infinity and NaN are part of the arithmetic; what overflows is widened to infinity.
    with np.errstate(all="ignore"):
        phi = Supremum(question.value, tiles, epsilon / 4.0)
        if not phi.is_bounded:
            return Bound(False, None)
        keys: dict[tuple[Any, ...], int] = {}
        boxes = boxes_of(tiles)
        refutation = _refuted(question, boxes, phi, epsilon)
        # On one side of 0 the sign of u is no question, and what is the same is seen to be the same.
        waiting = [boxes.take(boxes.u < 0), boxes.take(boxes.u > 0)]
        while waiting and refutation is None:
            boxes = waiting.pop()
            if len(boxes) > BATCH:
                waiting += [boxes.take(slice(None, len(boxes) // 2)), boxes.take(slice(len(boxes) // 2, None))]
                continue
            gap, along_u = _gaps(question, boxes, phi, keys, epsilon)
            open_ = ~(gap <= epsilon)
            left = boxes.take(open_)
            if (left.u_radius + left.t_radius < SMALLEST).any() or time.monotonic() > deadline:
                return Bound(False, None)
            if len(left):
                halves = left.halved(along_u[open_])
                refutation = _refuted(question, halves, phi, epsilon)
                waiting.append(halves)
    return Bound(refutation is None, refutation)


def _gaps(
    question: Question, boxes: Boxes, phi: Supremum, keys: dict[tuple[Any, ...], int], epsilon: float
) -> tuple[Array, Array]:
    """Return the bound of each box, and whether u matters more to it than t."""
    path = _read(question, boxes, PathReader(keys, forks=False))  # all paths at once, for most boxes have only one
    gap, weights = _bounded(question, boxes, phi, path, epsilon), np.array(_shares(boxes, path))
    hard = np.flatnonzero(~(gap <= epsilon))
    gap[hard] = -np.inf
    for count, (some, path) in enumerate(_paths(question, boxes.take(hard), keys)):
        chosen = hard[some]
        if count == MOST_PATHS:  # smaller rectangles decide more
            gap[hard] = np.inf
            break
        found = _bounded(question, boxes.take(chosen), phi, path, epsilon)
        worse = found > gap[chosen]
        gap[chosen] = np.where(worse, found, gap[chosen])
        weights[:, chosen] = np.where(worse, _shares(boxes.take(chosen), path), weights[:, chosen])
    longer = boxes.u_radius >= boxes.t_radius
    slim = np.maximum(boxes.u_radius, boxes.t_radius) > SLIMMEST * np.minimum(boxes.u_radius, boxes.t_radius)
    # A box of no width in t is not slim.
    slim &= boxes.t_radius > 0
    return gap, np.where(slim | (weights[0] == weights[1]), longer, weights[0] > weights[1])


def _bounded(question: Question, boxes: Boxes, phi: Supremum, path: Path, epsilon: float) -> Array:
    """Return the bound of each box on a path; no more than needed to see that it is at most epsilon."""
    x, y = square(len(boxes))
    for sign, excess in path.reader.facts.values():
        x, y = clipped(x, y, sign, excess)
    u, t = boxes.u + boxes.u_radius * x, boxes.t + boxes.t_radius * y
    floors = [_floor(gain, x, y) for gain in path.gains]
    found = np.full(len(boxes), np.inf)
    for z in path.numbers[1:-1] or path.numbers[:1]:
        found = np.fmin(found, _near_and_far(question, boxes, phi, path, z, (u, t), floors))
    hard = np.flatnonzero(found > epsilon)
    heights = phi(boxes.tile[hard], u[:, hard], t[:, hard])[0]
    whole = np.fmin.reduce([(heights - floor[:, hard]).max(0) for floor in floors])
    found[hard] = np.fmin(found[hard], whole)
    undefined = np.isnan(found) | np.isnan(path.numbers[0].low)
    empty = path.reader.impossible | np.isnan(x).all(0)  # NaN where the path keeps nothing
    return np.where(empty, -np.inf, np.where(undefined, np.inf, found))


def _floor(gain: Enclosure, x: Array, y: Array) -> Array:
    """Return the affine function below a gain at the corners."""
    blur = gain.rest + sum((np.abs(s) for s in gain.slopes[2:]), np.zeros(()))
    rounding = 1e-12 * (np.abs(gain.center) + gain.spread + 4.0 * REACH * REACH)
    floor = gain.center + _slope(gain, 0) * x + _slope(gain, 1) * y - blur - rounding
    return np.where(np.isfinite(gain.rest) & ~np.isnan(gain.low), floor, -np.inf)


def _near_and_far(
    question: Question,
    boxes: Boxes,
    phi: Supremum,
    path: Path,
    z: Enclosure,
    corners: tuple[Array, Array],
    floors: list[Array],
) -> Array:
    r"""Return the bound by what can be gained near a candidate z that p is as good as, and by what can be away from it.

    Near z, where :math:`m = \inf 1 + t r'' > 0`, nothing gains more than :math:`s^2 / 2m` over z, with the derivative
    :math:`s = u - z - t r'(z)` that is zero at the exact prox: of fourth order in the size of the box.
    """
    reader, u, t = path.reader, path.u, path.t
    z = z.as_variable(reader.axes + 1)
    with reader.without_forks():
        first = JetReader(reader)
        r = first.number(question.value(first, first.variable(z)))
        steep = u - z - t * r.slope
        second = JetReader(first)
        radii = np.repeat(np.array(RADII)[:, None], len(boxes), 1)
        low, high = z.low - radii, z.high + radii
        # On the other side of 0 there is often a kink between.
        low = np.where(z.low >= 0, np.maximum(low, 0.5 * z.low), low)
        high = np.where(z.high <= 0, np.minimum(high, 0.5 * z.high), high)
        around = reader.variable(2, 0.5 * (low + high), 0.5 * (high - low) * (1.0 + 1e-12) + 1e-300, "around")
        around = replace(around, low=low, high=high)
        bend = second.number(question.value(second, second.variable(first.variable(around)))).slope.slope
        curvature = np.broadcast_to((1.0 + t * bend).low, low.shape)
    found = np.full(len(boxes), np.inf)
    largest = np.broadcast_to(np.maximum(np.abs(steep.low), np.abs(steep.high)), found.shape)
    for m, first_z, last_z in zip(curvature, low, high, strict=True):
        some = np.flatnonzero((m > 0.05) & (found == np.inf) & np.isfinite(largest))
        near = (largest * largest / (2.0 * m) * (1.0 + 1e-12))[some]
        x, y = corners[0][:, some], corners[1][:, some]
        between = first_z[some], last_z[some]
        far = phi.outside(boxes.tile[some], (x, y), between, [floor[:, some] for floor in floors])
        found[some] = np.maximum(near, far)
    return found


def _shares(boxes: Boxes, path: Path) -> Array:
    """Return how much of the bound is due to the width of the box in u and in t, roughly."""
    p, gain, reader = path.numbers[0], path.gains[0], path.reader
    unknown = np.minimum(p.rest, 1.0) ** 2
    blurs = [(_slopes(p), p.spread)]  # the gain bends with the square of p
    for sign, excess in reader.facts.values():  # a blurred line moves the corners; near one a formula may be steep
        spread = np.where((sign != 0) & (excess.spread > 0), excess.spread, np.inf)
        blur = np.minimum(excess.rest / spread, 1.0)
        blurs.append((_slopes(excess), (blur * gain.spread + unknown) / spread))
    blurs.append(((boxes.u_radius, boxes.t_radius), 1e-3 * unknown / (boxes.u_radius + boxes.t_radius)))
    shares = [sum(scale * np.abs(slopes[axis]) for slopes, scale in blurs) for axis in (0, 1)]
    return np.stack(shares)


def _slopes(a: Enclosure) -> tuple[Array, ...]:
    return tuple(_slope(a, axis) for axis in (0, 1))


def _slope(a: Enclosure, axis: int) -> Array:
    return a.slopes[axis] if axis < len(a.slopes) else np.zeros(())


def _paths(question: Question, boxes: Boxes, keys: dict[tuple[Any, ...], int]) -> Iterator[tuple[Array, Path]]:
    """Yield every path and the boxes that may take it."""
    waiting: list[tuple[Array, dict[int, Array], dict[int, str]]] = [(np.arange(len(boxes)), {}, {})]
    while waiting:
        chosen, forced, settled = waiting.pop()
        part = boxes.take(chosen)
        reader = PathReader(keys, forced, settled=dict(settled))
        yield chosen, _read(question, part, reader)
        before = dict(forced)
        for key, open_ in reader.noted.items():
            open_ = np.broadcast_to(open_, len(chosen))
            if open_.any():
                others = {k: np.broadcast_to(sign, len(chosen))[open_] for k, sign in before.items()}
                waiting.append((chosen[open_], {**others, key: np.full(open_.sum(), -1, np.int8)}, reader.settled))
            before[key] = np.where(open_, 1, before.get(key, 0)).astype(np.int8)


def _read(question: Question, boxes: Boxes, reader: PathReader) -> Path:
    u = reader.variable(0, boxes.u, boxes.u_radius, "u")
    t = reader.variable(1, boxes.t, boxes.t_radius, "t")
    p = reader.number(question.prox(reader, u, t))
    gains = [_gain(question, u, t, p.as_variable(reader.axes + 1))]
    rivals = _rivals(question, reader, u, t, p)
    with reader.without_forks():
        gains += [_gain(question, u, t, z.as_variable(reader.axes + 1)) for z in rivals]
    return Path(reader, u, t, [p, *rivals], gains)


def _rivals(question: Question, reader: PathReader, u: Enclosure, t: Enclosure, p: Enclosure) -> list[Enclosure]:
    """Return candidates that the formula itself compared with p, zero the last; none if it did nothing of the kind.

    It is seen by the keys: every choice on the way to p was made by the very gain that is bounded here.
    """
    nothing = reader.number(0.0)
    choices: list[Choice] = []
    choice = reader.choices.get(p.key)
    while choice is not None:
        choices.append(choice)
        choice = None if choice.second.key == nothing.key else choice.before
    most, rivals = nothing, [nothing]
    with reader.without_forks():
        at_zero = reader.number(question.value(reader, nothing))
        if not choices or choices[-1].second.key != nothing.key or not np.all((at_zero.low == 0) & (at_zero.high == 0)):
            return []
        for choice in reversed(choices):
            z, condition = choice.first, choice.condition
            gain = _gain(question, u, t, z)
            if not isinstance(condition, Comparison):
                return []
            if (condition.left.key, condition.right.key) != (gain.key, most.key):
                return []
            rivals.insert(0, z)
            most = reader.maximum(gain, most)
    return rivals


def _refuted(
    question: Question, boxes: Boxes, phi: Supremum, epsilon: float
) -> tuple[float, float, float, float] | None:
    """Return (u, t, claimed z, better z) where the formula in float64 breaks the bound at the middle of a box."""
    xp = ArrayNamespace(boxes.u)
    claimed = np.broadcast_to(np.asarray(question.prox(xp, boxes.u, boxes.t)) + 0.0, boxes.u.shape)
    wrong = ~np.isfinite(claimed)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        better = phi(boxes.tile[i : i + 1], boxes.u[None, i : i + 1], boxes.t[None, i : i + 1])[1][0, 0]
        return float(boxes.u[i]), float(boxes.t[i]), float(claimed[i]), float(better)
    better = phi(boxes.tile, boxes.u[None], boxes.t[None])[1][0]
    excess = _gain_at(question, boxes.u, boxes.t, better).low - _gain_at(question, boxes.u, boxes.t, claimed).high
    i = int(np.nanargmax(np.append(np.where(np.isnan(excess), -np.inf, excess), -np.inf)[:-1]))
    if excess[i] > epsilon:
        return float(boxes.u[i]), float(boxes.t[i]), float(claimed[i]), float(better[i])
    return None


def _gain_at(question: Question, u: Array, t: Array, z: Array) -> Enclosure:
    """Return what single numbers gain."""
    reader = PathReader({}, forks=False)
    numbers = [reader.variable(2, number, NONE, name) for number, name in ((u, "u"), (t, "t"), (z, "z"))]
    return _gain(question, *numbers)


def _gain(question: Question, u: Enclosure, t: Enclosure, z: Enclosure) -> Enclosure:
    """Return u z - z^2/2 - t r(z)."""
    gain: Enclosure = z * (u - 0.5 * z) - t * question.value(z.reader, z)
    return gain
