"""The best z of all, from above: phi(u, t) = sup_z [u z - z^2/2 - t r(z)], which no prox can beat.

The line is cut into cells. On a cell the value is at least an affine function, r(z) >= b + k z, by one reading of the
formula with z as the variable; so what z can gain there is at most the largest value of a concave parabola, found in
closed form. The plane of (u, t) is cut into tiles; each keeps the cells that are not beaten by a single z over all of
it, and refines these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.boxes.enclosures import Enclosure
from proxsae.verification.boxes.intervals import ENORMOUS
from proxsae.verification.boxes.paths import PathReader
from proxsae.verification.boxes.rectangles import Tiles

Value = Callable[[Any, Any], Any]  # r of a namespace and z
FIRST_CELLS = 32
ROUNDS = 60  # of bisection: more than a float has digits
ROUNDING = 1e-13  # of the largest numbers that meet: more than a dozen operations lose


@dataclass(frozen=True)
class Cells:
    """Cells of the line, sorted by their tile, and the affine function below r on each."""

    tile: Array
    low: Array
    high: Array
    slope: Array
    level: Array
    points: Array  # the middle of each, as good a z as any
    point_values: Array  # r there, from above
    doubt: Array  # how far below r the affine function may be

    def take(self, chosen: Array) -> Cells:
        """Return some of the cells."""
        return Cells(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def gains(self, u: Array, t: Array) -> Array:
        """Return the most that a z of each cell gains over zero at (u, t), not counting rounding."""
        return _gains(u, t, self.low, self.high, self.slope, self.level)

    def point_gains(self, u: Array, t: Array) -> Array:
        """Return what the middle of each cell gains at least."""
        return self.points * (u - 0.5 * self.points) - t * self.point_values


def read_cells(value: Value, tile: Array, low: Array, high: Array) -> Cells:
    """Read the value on cells."""
    middle = 0.5 * (low + high)
    radius = np.maximum(high - middle, middle - low)

    def cell(reader: PathReader) -> Enclosure:
        # Zero belongs to the cell on its right: what is left of it is infinite for many r, or undefined.
        return replace(reader.variable(0, middle, radius, "z"), low=low, high=high, apart=high == 0)

    line = _read(value, cell, len(low))
    point = _read(value, lambda reader: reader.variable(0, middle, 0.0 * radius, "z"), len(low))
    steep = np.broadcast_to(line.slopes[0] if line.slopes else 0.0, low.shape)
    affine = np.isfinite(line.rest) & (radius > 0)
    slope = np.where(affine, steep / np.where(radius > 0, radius, 1.0), 0.0)
    size = np.abs(line.center) + line.rest + np.abs(slope) * (np.abs(middle) + radius)
    level = np.where(affine, line.center - line.rest - slope * middle - 1e-14 * size, line.low)
    doubt = np.where(affine, 2.0 * line.rest, line.high - line.low)
    level = np.where(np.isnan(line.low), -np.inf, level)
    return Cells(tile, low, high, slope, level, middle, np.where(np.isnan(point.high), np.inf, point.high), doubt)


def _read(value: Value, variable: Callable[[PathReader], Enclosure], n: int) -> Enclosure:
    reader = PathReader({}, forks=False)
    r = reader.number(value(reader, variable(reader)))
    low, high, center, rest = (np.broadcast_to(part, (n,)) for part in (r.low, r.high, r.center, r.rest))
    slopes = tuple(np.broadcast_to(s, (n,)) for s in r.slopes)
    return Enclosure(reader, r.key, low, high, center, slopes, rest)


class Supremum:
    """phi from above on every tile.

    Parameters
    ----------
    value : callable
        r.
    tiles : Tiles
        With t >= 0.
    tolerance : float
        How far above phi the bound may be, as a rule.

    Attributes
    ----------
    is_bounded : bool
        Whether r is certain not to be negative far out; where it is not, nothing is known of phi.
    """

    def __init__(self, value: Value, tiles: Tiles, tolerance: float) -> None:
        reach = float(max(np.abs(tiles.u_low).max(), np.abs(tiles.u_high).max()))
        # Beyond twice |u| the parabola alone is negative.
        ends = np.array([-np.inf, 2.0 * reach]), np.array([-2.0 * reach, np.inf])
        far = _read(value, lambda reader: _half_lines(reader, *ends), 2)
        self.is_bounded = bool(np.all(far.low >= 0))
        self.cells = _refined(value, tiles, 2.0 * reach, tolerance)
        largest = 2.0 * reach * (2.0 * reach) + float(tiles.t_high.max()) * _largest(self.cells)
        self.rounding = ROUNDING * largest
        self.starts = np.searchsorted(self.cells.tile, np.arange(len(tiles.u_low) + 1))

    def __call__(self, tile: Array, u: Array, t: Array) -> tuple[Array, Array]:
        """Return phi from above at points (k, n) of tiles (n,), and the middle of the cell where it is attained."""
        best, where = np.full(u.shape, -np.inf), np.zeros(u.shape, int)
        for some, cell in self._cells_of(tile):
            gains = _gains(u[:, some], t[:, some], *self._parts(cell))
            better = gains > best[:, some]
            best[:, some] = np.where(better, gains, best[:, some])
            where[:, some] = np.where(better, cell, where[:, some])
        return best + self.rounding, self.cells.points[where]

    def outside(
        self, tile: Array, corners: tuple[Array, Array], between: tuple[Array, Array], others: list[Array]
    ) -> Array:
        """Return the most that a z off an interval gains over the best of some numbers that are affine in (u, t).

        Parameters
        ----------
        tile : array of shape (n,)
            Where to look.
        corners : pair of arrays of shape (k, n)
            u and t at the corners of regions of the tiles.
        between : pair of arrays of shape (n,)
            The ends of the intervals.
        others : list of array of shape (k, n)
            The numbers at the corners, from below.
        """
        u, t = corners
        worst = np.full(len(tile), -np.inf)
        for some, cell in self._cells_of(tile):
            first, last, *line = self._parts(cell)
            low, high = (end[some] for end in between)
            for start, stop in ((first, np.minimum(last, low)), (np.maximum(first, high), last)):
                gains = _gains(u[:, some], t[:, some], start, stop, *line)
                over = np.fmin.reduce([(gains - other[:, some]).max(0) for other in others])
                worst[some] = np.maximum(worst[some], np.where(start < stop, over, -np.inf))
        return worst + self.rounding

    def _parts(self, cell: Array) -> tuple[Array, ...]:
        return tuple(getattr(self.cells, name)[cell] for name in ("low", "high", "slope", "level"))

    def _cells_of(self, tile: Array) -> Iterator[tuple[Array, Array]]:
        """Yield, for the i-th cell of a tile in turn, the points that have one and which cell it is."""
        counts = self.starts[tile + 1] - self.starts[tile]
        order = np.argsort(-counts, kind="stable")
        for i in range(int(counts.max(initial=0))):
            some = order[: np.searchsorted(-counts[order], -i)]
            yield some, self.starts[tile[some]] + i


def _gains(u: Array, t: Array, low: Array, high: Array, slope: Array, level: Array) -> Array:
    pull = u - t * slope
    z = np.minimum(np.maximum(pull, low), high)
    return z * (pull - 0.5 * z) - t * level


def _half_lines(reader: PathReader, low: Array, high: Array) -> Enclosure:
    zero = np.zeros(2)
    return Enclosure(reader, reader.key("variable", "z"), low, high, zero, (), zero + np.inf)


def _largest(cells: Cells) -> float:
    sizes = np.abs(cells.level) + np.abs(cells.slope) * (np.abs(cells.low) + np.abs(cells.high))
    return float(np.max(sizes[sizes < ENORMOUS], initial=1.0))


def _refined(value: Value, tiles: Tiles, reach: float, tolerance: float) -> Cells:
    n = len(tiles.u_low)
    edges = np.linspace(-reach, reach, 2 * FIRST_CELLS + 1)  # zero is one of them
    tile = np.repeat(np.arange(n), 2 * FIRST_CELLS)
    cells = read_cells(value, tile, np.tile(edges[:-1], n), np.tile(edges[1:], n))
    for _ in range(ROUNDS):
        cells = cells.take(_not_beaten(cells, tiles))
        coarse = _is_coarse(cells, tiles, tolerance)
        if not coarse.any():
            break
        split = cells.take(coarse)
        middle = 0.5 * (split.low + split.high)
        halves = [(split.low, middle), (middle, split.high)]
        new = read_cells(value, *(np.concatenate(x) for x in ([split.tile] * 2, *zip(*halves, strict=True))))
        both = [(getattr(cells.take(~coarse), f), getattr(new, f)) for f in Cells.__dataclass_fields__]
        joined = Cells(*(np.concatenate(pair) for pair in both))
        cells = joined.take(np.lexsort((joined.low, joined.tile)))
    return cells


def _not_beaten(cells: Cells, tiles: Tiles) -> Array:
    """Return which cells may hold the best z somewhere on their tile.

    A cell's gain is convex in (u, t) and that of one z is affine: what is below at the corners is below throughout.
    Strictly below, so that no two cells beat each other.
    """
    u, t = (corner[:, cells.tile] for corner in tiles.corners)
    gains, point_gains = cells.gains(u, t), cells.point_gains(u, t)
    starts = np.flatnonzero(np.diff(cells.tile, prepend=-1))
    order = np.cumsum(np.diff(cells.tile, prepend=cells.tile[0]) > 0)  # of the tile among those present
    beaten = cells.level >= ENORMOUS  # outside of the domain
    for corner in [*point_gains, point_gains.sum(0)]:  # the best z of each corner and of the middle
        best = np.maximum.reduceat(corner, starts)[order]
        first = np.minimum.reduceat(np.where(corner >= best, np.arange(len(order)), len(order)), starts)[order]
        margin = 1e-9 * (1.0 + u * u + cells.low * cells.low)
        beaten |= (gains + margin < point_gains[:, np.minimum(first, len(order) - 1)]).all(0)
    return ~beaten


def _is_coarse(cells: Cells, tiles: Tiles, tolerance: float) -> Array:
    u, t = (corner[:, cells.tile] for corner in tiles.corners)
    pull = u - t * cells.slope
    # What the cell may gain above its middle is also bounded by its width, which settles the cells next to a jump.
    by_width = (np.abs(pull) + np.maximum(np.abs(cells.low), np.abs(cells.high))).max(0) * (cells.high - cells.low)
    by_doubt = t.max(0) * cells.doubt
    doubt = np.where(cells.level < ENORMOUS, np.minimum(by_doubt, by_width), 0.0)
    return doubt > tolerance
