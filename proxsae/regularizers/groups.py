"""The group lasso, and what penalties of groups share."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.base import Scope
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.partition import Partition, as_groups, check_groups, groups_width, partition, same_groups
from proxsae.regularizers.simplex import largest_modulus


class GroupL2(NonSeparable):
    r"""The group lasso :math:`\sum_g c_g \|z_g\|_2` with :math:`c_g = \sqrt{|g|}` unless given.

    The prox scales each group by :math:`\max(1 - t c_g / \|u_g\|, 0)`. ``lam * L1() + mu * GroupL2(groups)`` is the
    sparse group lasso: first the soft threshold, then the groups; with ``NonNegative()`` first the ReLU.

    Parameters
    ----------
    groups : int or integer array of shape (n_components,)
        The size of consecutive groups, or the label of each component. A label that no component has is an empty group
        and costs nothing.
    group_weights : array of shape (largest label + 1,), optional
        c_g >= 0.

    References
    ----------
    Yuan and Lin (2006), Model selection and estimation in regression with grouped variables, J. R. Stat. Soc. B 68;
    Simon, Friedman, Hastie and Tibshirani (2013), A sparse-group lasso, J. Comput. Graph. Statist. 22.
    """

    groups: Any
    group_weights: Any = None

    is_convex = True
    is_symmetric = True
    is_radial = True
    degree = 1
    value_latex = r"\sum_g c_g \|z_g\|_2"
    prox_latex = r"\mathrm{prox}_{tR}(u)_g = \max\left(1 - \frac{t w c_g}{\|u_g\|_2}, 0\right) u_g"

    def __post_init__(self) -> None:
        super().__post_init__()
        set_groups(self)

    @property
    def scope(self) -> Scope:
        """A group."""
        return "group"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return the weighted sum of the norms of the groups."""
        return self.norms(xp, Z).sum(-1)

    def norms(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return c_g ||z_g|| of each group."""
        parts = partition(self.groups, Z.shape[-1])
        return group_costs(self, xp, parts) * euclidean_norms(xp, Z, parts)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the groups shrunk towards zero."""
        parts = partition(self.groups, U.shape[-1])
        norms, threshold = euclidean_norms(xp, U, parts), t * group_costs(self, xp, parts)
        alive = norms > threshold
        shrink = xp.where(alive, 1.0 - threshold / xp.where(alive, norms, 1.0), 0.0)
        return U * parts.spread(shrink)

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        r"""Return :math:`\max_g \|v_g\|_2 / c_g`."""
        parts = partition(self.groups, V.shape[-1])
        norms, costs = euclidean_norms(xp, V, parts), group_costs(self, xp, parts)
        ratios = xp.where(costs > 0, norms / xp.where(costs > 0, costs, 1.0), xp.where(norms > 0, xp.inf, 0.0))
        return largest_modulus(xp, ratios)

    def conjugate_with_ridge(self, xp: ArrayNamespace, V: Array, a: Array) -> Array:
        r"""Return :math:`\sum_g (\|v_g\|_2 - w c_g)_+^2 / 2a`."""
        parts = partition(self.groups, V.shape[-1])
        excess = xp.maximum(euclidean_norms(xp, V, parts) - xp.asarray(self.weight) * group_costs(self, xp, parts), 0.0)
        return (excess * excess).sum(-1) / (2.0 * a)

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:  # noqa: ARG002
        """Return the value of each group."""
        return xp.asarray(self.weight) * self.norms(xp, Z)

    @property
    def width(self) -> int | None:
        return groups_width(self.groups)

    def is_sum_over(self, groups: Any) -> bool:
        return same_groups(self.groups, groups)

    def check_width(self, n_components: int) -> None:
        check_groups(self.groups, n_components, type(self).__name__)


def set_groups(R: Any) -> None:
    """Check and store the groups and their weights."""
    object.__setattr__(R, "groups", as_groups(R.groups))
    if R.group_weights is None:
        return
    weights = np.asarray(R.group_weights, dtype=np.float64)
    needed = None if isinstance(R.groups, int) or not len(R.groups) else int(R.groups.max()) + 1
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"group_weights must be finite numbers >= 0, one a group, got {R.group_weights!r}")
    if needed is not None and len(weights) != needed:
        raise ValueError(f"group_weights has {len(weights)} entries and the labels go from 0 to {needed - 1}")
    object.__setattr__(R, "group_weights", weights)


def group_costs(R: Any, xp: ArrayNamespace, parts: Partition) -> Array:
    """Return c_g of the groups that are not empty."""
    if R.group_weights is None:
        return xp.asarray(np.sqrt(parts.sizes) if isinstance(R, GroupL2) else np.ones(len(parts.sizes)))
    if len(R.group_weights) <= (parts.names[-1] if len(parts.names) else -1):
        raise ValueError(f"group_weights has {len(R.group_weights)} entries for {len(parts.names)} groups")
    return xp.asarray(R.group_weights[parts.names])


def euclidean_norms(xp: ArrayNamespace, Z: Array, parts: Partition) -> Array:
    """Return ||z_g|| of each group; the derivative at a zero group is zero."""
    squares = parts.sums(Z * Z)
    return xp.where(squares > 0, xp.sqrt(xp.where(squares > 0, squares, 1.0)), 0.0)
