"""Tree-structured groups: a group may hold others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.groups import GroupL2
from proxsae.regularizers.nonseparable import NonSeparable


class TreeGroups(NonSeparable):
    r"""The tree-structured group lasso :math:`\sum_g c_g \|z_g\|_2`, of groups that are nested or disjoint.

    The prox is the composition of the proxes of the groups, inner groups before the groups that hold them. The prox of
    ``lam * L1()`` or ``NonNegative()`` comes first: single coordinates are the leaves.

    Parameters
    ----------
    groups : sequence of sequences of int
        The coordinates of each group; any two groups are disjoint, or one holds the other.
    group_weights : sequence of float, optional
        c_g >= 0; the square root of the size unless given.

    References
    ----------
    Jenatton, Mairal, Obozinski and Bach (2011), Proximal methods for hierarchical sparse coding, JMLR 12.
    """

    groups: Sequence[Sequence[int]]
    group_weights: Sequence[float] | None = None

    is_convex = True
    is_symmetric = True
    is_radial = True
    degree = 1
    value_latex = r"\sum_g c_g \|z_g\|_2"
    prox_latex = r"\mathrm{prox}_{tR} = \mathrm{prox}_{t w c_{\mathrm{root}} \|\cdot_{\mathrm{root}}\|_2} \circ \dots"

    def __post_init__(self) -> None:
        super().__post_init__()
        groups = tuple(tuple(sorted({int(i) for i in group})) for group in self.groups)
        holder: dict[int, tuple[int, ...]] = {}  # the smallest of the larger groups that holds an index
        for one in sorted(groups, key=len, reverse=True):
            if not one or one[0] < 0:
                raise ValueError(f"TreeGroups: a group holds at least one index >= 0, got {list(one)}")
            holders = {holder.get(i, ()) for i in one}
            if len(holders) > 1:
                two = min(holders - {()}, key=len)
                raise ValueError(f"TreeGroups: groups are nested or disjoint, got {list(two)} and {list(one)}")
            holder.update(dict.fromkeys(one, one))
        weights = [len(group) ** 0.5 for group in groups] if self.group_weights is None else self.group_weights
        costs = tuple(float(weight) for weight in weights)
        if len(costs) != len(groups) or not all(0 <= cost < np.inf for cost in costs):
            raise ValueError(f"TreeGroups: group_weights must be one finite number >= 0 a group, got {weights}")
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "group_weights", costs)

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return sum(level.value_of(xp, Z) for level in self._levels(Z.shape[-1])) + 0.0 * Z.sum(-1)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        for level in self._levels(U.shape[-1]):
            U = level.prox_of(xp, U, t)
        return U

    def _levels(self, n_components: int) -> list[GroupL2]:
        return _levels(self.groups, self.group_weights, n_components)

    def check_width(self, n_components: int) -> None:
        largest = max((group[-1] for group in self.groups), default=-1)
        if largest >= n_components:
            raise ValueError(
                f"TreeGroups: a group holds the index {largest} and the codes have {n_components} components"
            )


@lru_cache(maxsize=64)
def _levels(groups: tuple[tuple[int, ...], ...], costs: tuple[float, ...], n_components: int) -> list[GroupL2]:
    """Return disjoint groups of equal height, from the leaves to the root; coordinates in no group cost nothing."""
    by_size = sorted(range(len(groups)), key=lambda i: len(groups[i]))
    height_of_index = np.zeros(n_components, np.int64)
    levels: dict[int, list[int]] = {}
    for i in by_size:
        height = int(height_of_index[list(groups[i])].max()) + 1
        height_of_index[list(groups[i])] = height
        levels.setdefault(height, []).append(i)
    result = []
    for _, members in sorted(levels.items()):
        labels = np.full(n_components, len(members))
        for label, i in enumerate(members):
            labels[list(groups[i])] = label
        weights = [*(costs[i] for i in members), 0.0][: labels.max() + 1]
        result.append(GroupL2(labels, np.array(weights)))
    return result
