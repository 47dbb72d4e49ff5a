"""The prox of a scalar function by global search, and its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from proxsae.kernels.lower_hull import lower_hull

SPACING = 1e-3  # of the nodes of z, relative to 1 + abs(z)
INPUT_SPACING = 1e-3  # of the first nodes of u, before cells are halved
MOST_NODES = 100_000  # most nodes of a table
MOST_JUMPS = 5_000  # most jumps of r to search for
EPS = float(np.finfo(np.float64).eps)
GOLDEN = (5**0.5 - 1) / 2
GOLDEN_STEPS = 36  # narrows a valley to 3e-8 of its width, below what its flat bottom lets one see
JUMP_WIDTH = 1e-11  # relative to 1 + abs(u): narrower cells hold a jump, and rounding decides the search inside


@dataclass(frozen=True, eq=False)
class ProxTable:
    """The prox of t r for one t: linear between nodes, and constant in the cells so narrow that they hold a jump."""

    u: Any  # the nodes, ascending
    starts: Any  # the prox where each cell begins
    slopes: Any  # its slope in each cell
    error_bound: float  # of z, relative to 1 + abs(z)


def sampled(function: Callable[[Any], Any], z: Any) -> Any:
    """Return the values of a function at each entry of an array, by calls entry by entry where it does not take arrays.

    Raises
    ------
    ValueError
        If a value is NaN.
    """
    try:
        values = np.asarray(function(z), dtype=np.float64)
    except (ArithmeticError, TypeError, ValueError):
        values = np.array([float(function(float(entry))) for entry in np.ravel(z)]).reshape(np.shape(z))
    if values.shape != np.shape(z):
        values = np.broadcast_to(values, np.shape(z)).copy()
    if np.isnan(values).any():
        where = np.ravel(z)[np.isnan(values).ravel()][0]
        raise ValueError(f"the function is NaN at z = {where}; outside of its domain it must be inf")
    return values


def exact_prox(function: Any, limit: float, points: tuple[float, ...], step: float, u: Any) -> Any:
    """Return the global minimiser of (z - u)^2 / 2 + t r(z) for each entry of a vector u."""
    if len(u) and np.abs(u).max() > limit:
        raise ValueError(f"Numeric: an input of {u[np.abs(u).argmax()]:g} exceeds limit={limit:g}; pass a larger limit")
    nodes, values = _grid(function, limit, points)
    hull = _hull(function, limit, points, step)
    curve = 0.5 * nodes[hull] ** 2 + step * values[hull]
    breaks = np.diff(curve) / np.diff(nodes[hull])

    here = np.searchsorted(breaks, u)
    best, least = _lowest(function, nodes, hull[here], step, u)
    # Where the prox jumps, the two valleys are neighbours on the hull, and the grid may err in which is lower.
    for neighbour in (here - 1, here + 1):
        vertex = hull[np.clip(neighbour, 0, len(hull) - 1)]
        apart = np.flatnonzero(np.abs(vertex - hull[here]) > 1)
        z, value = _lowest(function, nodes, vertex[apart], step, u[apart])
        better = _is_better(value, z, least[apart], best[apart], u[apart])
        best[apart], least[apart] = np.where(better, z, best[apart]), np.where(better, value, least[apart])
    if len(u) and np.abs(best).max() >= 2 * limit * (1 - 1e-9):
        raise ValueError(
            f"Numeric: a minimum lies beyond {2 * limit:g}, twice the limit: pass a larger one, if there is a minimum"
        )
    return best


def _lowest(function: Any, nodes: Any, vertex: Any, step: float, u: Any) -> tuple[Any, Any]:
    """Return the least points of the valleys around some nodes, and the objective there."""

    def objective(z: Any) -> Any:  # less u^2 / 2, which would drown what is left
        return z * (0.5 * z - u) + step * sampled(function, z)

    node = nodes[vertex]
    bottom = _golden(objective, nodes[np.maximum(vertex - 1, 0)], nodes[np.minimum(vertex + 1, len(nodes) - 1)])
    at_node, at_bottom = objective(node), objective(bottom)
    better = _is_better(at_bottom, bottom, at_node, node, u)
    return np.where(better, bottom, node), np.where(better, at_bottom, at_node)


def _is_better(value: Any, z: Any, least: Any, best: Any, u: Any) -> Any:
    """Return where z beats the best so far by more than rounding; among equals the smaller modulus wins."""
    margin = 4 * EPS * (np.abs(value) + np.abs(z * u))
    return (value < least - margin) | ((value <= least) & (np.abs(z) < np.abs(best)))


def _golden(objective: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """Return the least points of functions that have one valley each between low and high."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = objective(left), objective(right)
    for _ in range(GOLDEN_STEPS):
        goes_left = at_left <= at_right
        low, high = np.where(goes_left, low, left), np.where(goes_left, right, high)
        probe = np.where(goes_left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        value = objective(probe)
        left, right = np.where(goes_left, probe, right), np.where(goes_left, left, probe)
        at_left, at_right = np.where(goes_left, value, at_right), np.where(goes_left, at_left, value)
    return np.where(at_left <= at_right, left, right)


@lru_cache(maxsize=256)
def build_table(
    function: Any, limit: float, tolerance: float, points: tuple[float, ...], step: float, is_convex: bool
) -> ProxTable:
    r"""Return the table of the prox over |u| <= limit, its cells halved until interpolation is right in their middle.

    The prox is monotone, and for convex r its slope is at most 1: in a cell of width d over which it rises by e, it
    differs from the line by at most e, or :math:`e (1 - e/d)`.
    """
    reach = np.arcsinh(limit)
    half = np.sinh(np.linspace(0, reach, int(reach / INPUT_SPACING) + 2))
    half[-1] = limit
    u = np.concatenate([-half[:0:-1], half])  # 0 is a node: an even r has the prox 0 there, to the last bit
    z = exact_prox(function, limit, points, step, u)
    pending = np.arange(len(u) - 1)
    accepted: list[tuple[Any, Any]] = []  # the middles of the cells that need no halving
    while len(pending):
        middle = 0.5 * (u[pending] + u[pending + 1])
        at_middle = exact_prox(function, limit, points, step, middle)
        error = np.abs(at_middle - 0.5 * (z[pending] + z[pending + 1]))
        split = error > np.maximum(tolerance * (1 + np.abs(at_middle)), _visible(function, step, middle, at_middle))
        split &= u[pending + 1] - u[pending] > JUMP_WIDTH * (1 + np.abs(middle))
        accepted.append((middle[~split], at_middle[~split]))
        cells = pending[split]
        if len(u) + len(cells) > MOST_NODES:
            raise ValueError(f"Numeric: the table needs over {MOST_NODES} nodes; pass a smaller limit")
        u, z = np.insert(u, cells + 1, middle[split]), np.insert(z, cells + 1, at_middle[split])
        first = cells + np.arange(len(cells))  # each insertion shifts what follows
        pending = np.sort(np.concatenate([first, first + 1]))
    u, first_of = np.unique(np.concatenate([u, *(middle for middle, _ in accepted)]), return_index=True)
    z = np.maximum.accumulate(np.concatenate([z, *(at_middle for _, at_middle in accepted)])[first_of])
    widths, rises = np.diff(u), np.diff(z)
    jump = (widths < JUMP_WIDTH * (1 + np.abs(u[1:]))) & (rises > tolerance * (1 + np.abs(z[1:])))
    smaller = np.where(np.abs(z[:-1]) <= np.abs(z[1:]), z[:-1], z[1:])
    searched = _visible(function, step, u, z)[1:]
    off_the_line = rises * np.clip(1 - rises / widths, 0, 1) if is_convex else rises
    bound = np.max((np.where(jump, 0.0, off_the_line) + searched) / (1 + np.abs(z[1:])), initial=0.0)
    starts, slopes = np.where(jump, smaller, z[:-1]), np.where(jump, 0.0, rises / widths)
    return ProxTable(u, starts, slopes, float(bound))


def _visible(function: Any, step: float, u: Any, z: Any) -> Any:
    """Return the least distance of points at the bottom of a valley whose values differ: the root of their rounding."""
    return 8 * np.sqrt(EPS * (np.abs(z * u) + step * np.abs(sampled(function, z))))


def jumps(function: Callable[[Any], Any], points: Any, heights: Any, limit: int = 40) -> Any:
    """Return both sides of the points where a function jumps, bisected to the last digit."""
    with np.errstate(all="ignore"):
        change = np.abs(np.diff(heights))
    change[np.isnan(change)] = 0.0  # inf - inf: nothing happens between two points outside of the domain
    around = np.maximum(np.roll(change, 1), np.roll(change, -1))
    around = np.where(np.isfinite(around), around, 0.0)
    suspect = np.flatnonzero((change > 3.0 * around) & (change > 1e-9))
    suspect = suspect[np.argsort(-change[suspect])][:limit]
    return bisected(function, points, heights, suspect)


def bisected(function: Callable[[Any], Any], points: Any, heights: Any, cells: Any) -> Any:
    """Return both sides of the largest jump in some cells between points, bisected to the last digit."""
    low, high = points[cells], points[cells + 1]
    at_low, at_high = heights[cells], heights[cells + 1]
    for _ in range(70 if len(cells) else 0):
        middle = 0.5 * (low + high)
        at_middle = function(middle)
        with np.errstate(all="ignore"):
            left, right = np.abs(at_middle - at_low), np.abs(at_high - at_middle)
        go_left = np.nan_to_num(left, nan=0.0) > np.nan_to_num(right, nan=0.0)
        high, at_high = np.where(go_left, middle, high), np.where(go_left, at_middle, at_high)
        low, at_low = np.where(go_left, low, middle), np.where(go_left, at_low, at_middle)
    return np.concatenate([low, high])


@lru_cache(maxsize=32)
def _grid(function: Any, limit: float, points: tuple[float, ...]) -> tuple[Any, Any]:
    """Return the nodes of z where r is finite, with both sides of its jumps and the ends of its domain, and r there."""
    reach = np.arcsinh(2 * limit)
    half = np.sinh(np.linspace(0, reach, int(reach / SPACING) + 2))
    nodes = np.unique(np.concatenate([-half, half, np.asarray(points, dtype=np.float64)]))
    values = sampled(function, nodes)
    sudden = jumps(partial(sampled, function), nodes, values, limit=MOST_JUMPS + 1)
    if len(sudden) > 2 * MOST_JUMPS:
        raise ValueError(f"Numeric: the function jumps in over {MOST_JUMPS} places; pass a smaller limit")
    outside = np.isinf(np.concatenate([[np.inf], values, [np.inf]]))
    isolated = np.setdiff1d(nodes[outside[:-2] & ~outside[1:-1] & outside[2:]], points)
    if len(isolated):
        raise ValueError(f"Numeric: the function is finite at z = {isolated[0]:g} alone; name such points in `points`")
    nodes = np.unique(np.concatenate([nodes, sudden]))
    values = sampled(function, nodes)
    return nodes[np.isfinite(values)], values[np.isfinite(values)]


@lru_cache(maxsize=256)
def _hull(function: Any, limit: float, points: tuple[float, ...], step: float) -> Any:
    """Return the nodes on the lower convex hull of z^2 / 2 + t r(z): each is the best node for some u."""
    nodes, values = _grid(function, limit, points)
    return lower_hull(nodes, 0.5 * nodes**2 + step * values)
