"""Rectangles of the plane of (u, t), many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxsae.formulas.arrays import Array

TILES = 96, 20


@dataclass(frozen=True)
class Tiles:
    """Rectangles of the plane, arrays of one entry a tile."""

    u_low: Array
    u_high: Array
    t_low: Array
    t_high: Array

    @property
    def corners(self) -> tuple[Array, Array]:
        """The four corners, arrays (4, n)."""
        return (
            np.stack([self.u_low, self.u_low, self.u_high, self.u_high]),
            np.stack([self.t_low, self.t_high, self.t_low, self.t_high]),
        )


@dataclass(frozen=True)
class Boxes:
    """Rectangles, by middle and half width, and the tile that each lies in."""

    u: Array
    u_radius: Array
    t: Array
    t_radius: Array
    tile: Array

    def take(self, chosen: Array) -> Boxes:
        """Return some of them."""
        return Boxes(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def halved(self, along_u: Array) -> Boxes:
        """Return both halves of each."""
        u_radius = np.where(along_u, 0.5 * self.u_radius, self.u_radius)
        t_radius = np.where(along_u, self.t_radius, 0.5 * self.t_radius)
        halves = [
            Boxes(
                self.u + side * np.where(along_u, u_radius, 0.0),
                u_radius,
                self.t + side * np.where(along_u, 0.0, t_radius),
                t_radius,
                self.tile,
            )
            for side in (-1.0, 1.0)
        ]
        return _joined(halves)

    def __len__(self) -> int:
        return len(self.u)


def _joined(parts: list[Boxes]) -> Boxes:
    return Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Boxes.__dataclass_fields__))


def tiles_of(u: tuple[float, float], t: tuple[float, float]) -> Tiles:
    """Cut a box into tiles, of equal width in u and of equal ratio in t."""
    us = np.linspace(*u, TILES[0] + 1)
    ts = np.geomspace(*t, TILES[1] + 1) if t[1] > t[0] else np.array(t)
    ts[0], ts[-1] = t
    u_low, t_low = np.meshgrid(us[:-1], ts[:-1])
    u_high, t_high = np.meshgrid(us[1:], ts[1:])
    return Tiles(*(edge.ravel() for edge in (u_low, u_high, t_low, t_high)))


def boxes_of(tiles: Tiles) -> Boxes:
    """Return each tile as a rectangle."""
    u, t = 0.5 * (tiles.u_low + tiles.u_high), 0.5 * (tiles.t_low + tiles.t_high)
    u_radius = np.maximum(tiles.u_high - u, u - tiles.u_low)
    t_radius = np.maximum(tiles.t_high - t, t - tiles.t_low)
    return Boxes(u, u_radius, t, t_radius, np.arange(len(u)))
