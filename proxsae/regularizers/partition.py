"""A partition of the coordinates into groups, and sums over its groups that every backend rounds alike."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy


class AxisIndices:
    """Indices in the last axis, copied to a device once."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers
        self._on_device: dict[Any, Any] = {}

    def of(self, Z: Array) -> Array:
        """Return the entries of an array at the places."""
        if not array_api_compat.is_torch_array(Z):
            return Z[..., self.numbers]
        import torch

        if Z.device not in self._on_device:
            with torch.inference_mode(mode=False):  # the same serve for gradients later
                self._on_device[Z.device] = torch.as_tensor(self.numbers, device=Z.device)
        return Z[..., self._on_device[Z.device]]


@dataclass(frozen=True)
class Partition:
    """Groups 0, 1, ... of coordinates; none is empty."""

    labels: AxisIndices  # the group of each coordinate
    names: Any  # the label that the user gave each group, ascending
    sizes: Any
    order: AxisIndices  # the coordinates sorted by group
    # Each adds neighbours in the groups, until one number a group is left.
    halvings: tuple[tuple[AxisIndices, AxisIndices], ...]

    def sums(self, Z: Array) -> Array:
        """Return the sums over the groups, shape (..., n_groups), added in the same pairs by every backend."""
        return self._reduced(Z, operator.add)

    def largest(self, Z: Array) -> Array:
        """Return the largest of the numbers >= 0 in each group."""
        return self._reduced(Z, array_api_compat.array_namespace(Z).maximum)

    def _reduced(self, Z: Array, together: Callable[[Array, Array], Array]) -> Array:
        xp = array_api_compat.array_namespace(Z)
        Z = self.order.of(Z)
        for left, right in self.halvings:
            padded = xp.concat([Z, xp.zeros_like(Z[..., :1])], axis=-1)
            Z = together(left.of(padded), right.of(padded))
        return Z

    def spread(self, V: Array) -> Array:
        """Return an array over the coordinates that holds the entry of each coordinate's group."""
        return self.labels.of(V)


class Coordinates:
    """The partition whose groups are the single coordinates, 0, 1, ..."""

    @staticmethod
    def sums(Z: Array) -> Array:
        return Z

    largest = spread = sums


Units = Partition | Coordinates


class Norms(NamedTuple):
    """The Euclidean norms of groups, and what they were computed from: squares that neither over- nor underflow."""

    norms: Array  # ||z_g||, of shape (..., n_groups)
    entries: Array  # z divided, within each group, by a power of two near the largest modulus
    roots: Array  # the norms of these groups of entries, between 1 and twice the root of the size, or 0


def norms_of(xp: ArrayNamespace, Z: Array, parts: Partition) -> Norms:
    """Return the norms of the groups; at a zero group their derivative is zero."""
    scale = xp.magnitudes(Z, parts)
    entries = Z / parts.spread(scale)
    squares = parts.sums(entries * entries)
    roots = xp.where(squares > 0, xp.sqrt(xp.where(squares > 0, squares, 1.0)), 0.0)
    return Norms(scale * roots, entries, roots)


class Grouped:
    """The base class of regularizers of groups: `groups` is a size, labels, or None for one group of all coordinates.

    `group_weights`, where given, are the costs c_g of the labels; a subclass declares the fields.
    """

    groups: Any
    group_weights: Any = None

    def read_groups(self) -> None:
        """Convert the fields to their standard form, or raise ValueError."""
        groups, weights = self.groups, self.group_weights
        if isinstance(groups, int | np.integer) and not isinstance(groups, bool):
            groups = int(groups)
            if groups < 1:
                raise ValueError(f"the group size must be at least 1, got {groups}")
        elif groups is not None:
            groups = to_numpy(groups)
            if groups.ndim != 1 or not np.issubdtype(groups.dtype, np.integer) or (groups < 0).any():
                raise ValueError(f"groups must be a group size or an integer label >= 0 a component, got {groups!r}")
            groups = groups.astype(np.int64)
        object.__setattr__(self, "groups", groups)
        if weights is None:
            return
        costs = np.array(weights, dtype=np.float64)
        if costs.ndim != 1 or not np.isfinite(costs).all() or (costs < 0).any():
            raise ValueError(f"group_weights must be finite numbers >= 0, one a group, got {weights!r}")
        if groups is None or (not isinstance(groups, int) and len(groups) and len(costs) != groups.max() + 1):
            last = 0 if groups is None else groups.max()
            raise ValueError(f"group_weights has {len(costs)} entries and the labels go from 0 to {last}")
        object.__setattr__(self, "group_weights", costs)

    def units(self, n_components: int) -> Partition:
        """Return the groups of a code of `n_components`."""
        return partition(self.groups, n_components)

    def costs(self, xp: ArrayNamespace, units: Partition) -> Array:
        """Return c_g of the groups that are not empty."""
        if self.group_weights is None:
            return xp.asarray(self.usual_costs(units))
        if len(self.group_weights) <= (units.names[-1] if len(units.names) else -1):
            raise ValueError(f"group_weights has {len(self.group_weights)} entries for {len(units.names)} groups")
        return xp.asarray(self.group_weights[units.names])

    def usual_costs(self, units: Partition) -> Any:
        """Return the default of c_g."""
        return np.ones(len(units.sizes))

    def has_groups(self, groups: Any) -> bool:
        """Whether these are the groups."""
        return type(groups) is type(self.groups) and np.array_equal(groups, self.groups)

    @property
    def width(self) -> int | None:
        return None if self.groups is None or isinstance(self.groups, int) else len(self.groups)

    def check_width(self, n_components: int) -> None:
        super().check_width(n_components)  # type: ignore[misc]
        owner = type(self).__name__
        if isinstance(self.groups, int) and n_components % self.groups:
            raise ValueError(f"{owner}: {n_components} components cannot be split into groups of {self.groups}")
        if self.width not in (None, n_components):
            raise ValueError(f"{owner}: groups has {self.width} labels and the codes have {n_components} components")


def partition(groups: Any, n_components: int) -> Partition:
    """Return the partition of `n_components` coordinates that a group size, labels or None describe."""
    size = max(n_components, 1) if groups is None else groups
    labels = np.arange(n_components) // size if isinstance(size, int) else size
    return _partition(labels.astype(np.int64).tobytes())


@lru_cache(maxsize=64)
def _partition(label_bytes: bytes) -> Partition:
    names, labels, sizes = np.unique(np.frombuffer(label_bytes, np.int64), return_inverse=True, return_counts=True)
    halvings, left_over = [], sizes
    while left_over.size and left_over.max() > 1:
        rank = np.concatenate([np.arange(size) for size in left_over])
        left = np.flatnonzero(rank % 2 == 0)
        has_right = rank[left] + 1 < np.repeat(left_over, (left_over + 1) // 2)
        halvings.append((AxisIndices(left), AxisIndices(np.where(has_right, left + 1, len(rank)))))
        left_over = (left_over + 1) // 2
    return Partition(AxisIndices(labels), names, sizes, AxisIndices(np.argsort(labels, kind="stable")), tuple(halvings))
