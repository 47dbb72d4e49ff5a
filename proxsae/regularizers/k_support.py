"""The k-support norm, and L1 minus L2: two penalties that leave k, or one, large entries alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import array_api_compat

from proxsae.regularizers.joint import Joint, as_count
from proxsae.regularizers.namespaces import Array, ArrayNamespace
from proxsae.regularizers.sorted_l1 import falling


@dataclass(frozen=True, repr=False, eq=False)
class KSupport(Joint):
    r"""Half the square of the k-support norm, :math:`\frac12 (\|z\|_k^{sp})^2`.

    The unit ball of the norm is the convex hull of the k-sparse unit vectors: it is the tightest convex relaxation of
    sparsity together with the Euclidean norm; k = 1 is the L1 norm, k = n the Euclidean one. With theta over
    :math:`0 < \theta_i \le 1, \sum_i \theta_i \le k`, :math:`R(z) = \min_\theta \frac12 \sum_i z_i^2/\theta_i`; so the
    prox is :math:`u_i \theta_i / (\theta_i + t)` with :math:`\theta_i = \min(\max(a|u_i| - t, 0), 1)`, and a such that
    the theta sum to k.

    Parameters
    ----------
    k : int
        >= 1.

    References
    ----------
    Argyriou, Foygel and Srebro (2012), Sparse prediction with the k-support norm, NeurIPS;
    McDonald, Pontil and Stamos (2016), New perspectives on k-support and cluster norms, JMLR 17.
    """

    k: int

    is_convex = True
    is_absolute = True
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = \frac{\theta_i}{\theta_i + t} u_i, \quad "
        r"\theta_i = \min(\max(a |u_i| - t, 0), 1), \quad \sum_i \theta_i = k"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "k", as_count(self.k, "k", "KSupport"))

    @property
    def value_latex(self) -> str:
        """Half the squared norm."""
        return rf"\tfrac12 \left(\|z\|_{{{self.k}}}^{{sp}}\right)^2"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return half of: the squares of the head, plus the squared sum of the tail over its share."""
        space = array_api_compat.array_namespace(Z)
        if not Z.shape[-1]:
            return Z.sum(-1)
        a = falling(space.astype(xp.abs(Z), space.float64))
        k = min(self.k, a.shape[-1])
        tails = a.sum(-1)[..., None] - space.cumulative_sum(a, axis=-1) + a  # sums from position j on
        room = k - space.arange(k, dtype=space.float64, device=array_api_compat.device(Z))
        # The head is as long as its last entry exceeds the mean of the tail that follows.
        heads = 1 + space.sum(space.astype(a[..., : k - 1] > (tails[..., :k] / room)[..., 1:], space.int64), axis=-1)
        last = (heads - 1)[..., None]
        tail = space.take_along_axis(tails, last, axis=-1)[..., 0]
        head = space.take_along_axis(space.cumulative_sum(a * a, axis=-1) - a * a, last, axis=-1)[..., 0]
        return xp.asarray(0.5 * (head + tail * tail / (k + 1 - space.astype(heads, space.float64))))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the shrunk code."""
        space = array_api_compat.array_namespace(U)
        a = space.astype(xp.abs(U), space.float64)
        t = space.astype(t, space.float64)
        theta = _shares(space, a, t, self.k)
        return xp.asarray(U * (theta / (theta + t + (theta + t == 0))))

    def rescaled(self, scale: float) -> KSupport:  # noqa: ARG002
        """Return s^2 R(z/s) = R(z)."""
        return self

    def _arguments(self, arrays: dict[str, Array] | None) -> list[str]:  # noqa: ARG002
        return [str(self.k)]

    def _cvxpy_of(self, z: Any) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        theta = cp.Variable(z.shape[0])
        parts = [0.5 * cp.quad_over_lin(z[i], theta[i]) for i in range(z.shape[0])]
        return sum(parts), [theta <= 1, cp.sum(theta) <= self.k]


def _shares(space: Any, a: Array, t: Array, k: int) -> Array:
    """Return theta = min(max(s a - t, 0), 1) with s such that theta sums to k; 1 where fewer than k are positive."""
    positive = a > 0
    safe = space.where(positive, a, space.ones_like(a))
    # The sum is piecewise linear in s: an entry starts to rise at t / a and stops at (1 + t) / a.
    bends = space.concat([t / safe, (1.0 + t) / safe], axis=-1)
    slopes = space.concat([space.where(positive, a, 0.0 * a), space.where(positive, -a, 0.0 * a)], axis=-1)
    order = space.argsort(bends, axis=-1)
    bends = space.take_along_axis(bends, order, axis=-1)
    slopes = space.cumulative_sum(space.take_along_axis(slopes, order, axis=-1), axis=-1)
    rises = space.cumulative_sum(slopes[..., :-1] * (bends[..., 1:] - bends[..., :-1]), axis=-1)
    # Between two neighbouring bends the sum meets k; the entries on the rise there give s.
    below = space.sum(space.astype(rises < k, space.int64), axis=-1, keepdims=True).clip(0, bends.shape[-1] - 2)
    middle = 0.5 * (space.take_along_axis(bends, below, axis=-1) + space.take_along_axis(bends, below + 1, axis=-1))
    full = (a * middle - t >= 1) & positive
    rising = (a * middle - t > 0) & positive & ~full
    weight = space.sum(space.where(rising, a, 0.0 * a), axis=-1, keepdims=True)
    count = space.sum(space.astype(rising, space.float64), axis=-1, keepdims=True)
    room = k - space.sum(space.astype(full, space.float64), axis=-1, keepdims=True)
    s = (room + t * count) / space.where(weight > 0, weight, space.ones_like(weight))
    theta = space.where(rising, (s * a - t).clip(0.0, 1.0), space.where(full, space.ones_like(a), 0.0 * a))
    few = space.sum(space.astype(positive, space.int64), axis=-1, keepdims=True) <= k
    return space.where(few, space.astype(positive, space.float64), theta)


@dataclass(frozen=True, repr=False, eq=False)
class L1MinusL2(Joint):
    r"""The difference :math:`\|z\|_1 - \|z\|_2`, zero exactly at the codes with at most one non-zero.

    With v the soft threshold of u at t, the prox is :math:`v (\|v\|_2 + t) / \|v\|_2`; where v = 0, it is u with only
    its largest entry left (the first of equals).

    References
    ----------
    Lou and Yan (2018), Fast L1-L2 minimization via a proximal operator, J. Sci. Comput. 74.
    """

    is_convex = False
    is_absolute = True
    value_latex = r"\left(\|z\|_1 - \|z\|_2\right)"
    prox_latex = r"\mathrm{prox}_{tR}(u) = v \left(1 + \frac{t w}{\|v\|_2}\right), \quad v = \mathrm{soft}_{t w}(u)"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return the difference of the norms."""
        return xp.maximum(xp.abs(Z).sum(-1) - xp.sqrt((Z * Z).sum(-1)), 0.0)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        """Return the stretched soft threshold, or the largest entry alone."""
        space = array_api_compat.array_namespace(U)
        soft = xp.sign(U) * xp.maximum(xp.abs(U) - t, 0.0)
        squares = (soft * soft).sum(-1)[..., None]
        stretch = 1.0 + t / xp.sqrt(xp.where(squares > 0, squares, 1.0))
        first = space.argmax(xp.abs(U), axis=-1)[..., None]
        only = space.arange(U.shape[-1], device=array_api_compat.device(U)) == first
        return xp.where(squares > 0, soft * stretch, xp.where(only, U, 0.0))

    def rescaled(self, scale: float) -> L1MinusL2:
        """Return s^2 R(z/s) = s R(z)."""
        return self.replace(weight=self.weight * scale)
