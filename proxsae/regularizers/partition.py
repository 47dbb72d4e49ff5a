"""A partition of the coordinates into groups, and sums over its groups that every backend rounds alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, to_numpy


@dataclass(frozen=True)
class Partition:
    """Groups 0, 1, ... of coordinates; none is empty."""

    labels: Any  # the group of each coordinate
    names: Any  # the label that the user gave each group, ascending
    sizes: Any
    order: Any  # the coordinates sorted by group
    halvings: tuple[tuple[Any, Any], ...]  # each adds neighbours within the groups, until one number a group is left

    def sums(self, Z: Array) -> Array:
        """Return the sums over the groups, shape (..., n_groups), added in the same pairs by every backend."""
        xp = array_api_compat.array_namespace(Z)
        sums = _columns(Z, self.order)
        for left, right in self.halvings:
            padded = xp.concat([sums, xp.zeros_like(sums[..., :1])], axis=-1)
            sums = _columns(padded, left) + _columns(padded, right)
        return sums

    def spread(self, V: Array) -> Array:
        """Return an array over the coordinates that holds the entry of each coordinate's group."""
        return _columns(V, self.labels)


def as_groups(groups: Any) -> Any:
    """Return a group size, or the labels as an integer array, or raise."""
    if isinstance(groups, int | np.integer) and not isinstance(groups, bool):
        if groups < 1:
            raise ValueError(f"the group size must be at least 1, got {groups}")
        return int(groups)
    labels = to_numpy(groups)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise ValueError(f"groups must be a group size or an integer label >= 0 a component, got {groups!r}")
    return labels.astype(np.int64)


def check_groups(groups: Any, n_components: int, owner: str) -> None:
    """Raise ValueError where the groups do not fit codes of this width."""
    if isinstance(groups, int):
        if n_components % groups:
            raise ValueError(f"{owner}: {n_components} components cannot be split into groups of {groups}")
    elif len(groups) != n_components:
        raise ValueError(f"{owner}: groups has {len(groups)} labels and the codes have {n_components} components")


def same_groups(one: Any, other: Any) -> bool:
    """Whether two descriptions of groups are equal."""
    return type(one) is type(other) and np.array_equal(one, other)


def groups_width(groups: Any) -> int | None:
    """Return the only width that the groups fit, or None for a group size."""
    return None if isinstance(groups, int) else len(groups)


def partition(groups: Any, n_components: int) -> Partition:
    """Return the partition of `n_components` coordinates that a group size or labels describe."""
    labels = np.arange(n_components) // groups if isinstance(groups, int) else groups
    return _partition(labels.astype(np.int64).tobytes())


@lru_cache(maxsize=64)
def _partition(label_bytes: bytes) -> Partition:
    names, labels, sizes = np.unique(np.frombuffer(label_bytes, np.int64), return_inverse=True, return_counts=True)
    halvings, left_over = [], sizes
    while left_over.size and left_over.max() > 1:
        rank = np.concatenate([np.arange(size) for size in left_over])
        left = np.flatnonzero(rank % 2 == 0)
        has_right = rank[left] + 1 < np.repeat(left_over, (left_over + 1) // 2)
        halvings.append((left, np.where(has_right, left + 1, len(rank))))
        left_over = (left_over + 1) // 2
    return Partition(labels, names, sizes, np.argsort(labels, kind="stable"), tuple(halvings))


def _columns(Z: Array, indices: Any) -> Array:
    if array_api_compat.is_torch_array(Z):
        import torch

        return Z[..., torch.as_tensor(indices, device=Z.device)]
    return Z[..., indices]
