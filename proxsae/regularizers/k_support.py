"""The k-support norm, half its square, and L1 minus L2: penalties that leave k, or one, large entries alone."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.partition import partition
from proxsae.regularizers.sorted_l1 import OfKLargest, falling

NEWTON_STEPS = 50  # for the shrinkage of the k-support norm; a few do
ROUNDING = 16.0 * float(np.finfo(np.float64).eps)  # a prox this small beside u is 0


class KSupport(OfKLargest):
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

    degree = 2
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = \frac{\theta_i}{\theta_i + t} u_i, \quad "
        r"\theta_i = \min(\max(a |u_i| - t, 0), 1), \quad \sum_i \theta_i = k"
    )

    @property
    def value_latex(self) -> str:
        return rf"\tfrac12 \left(\|z\|_{{{self.k}}}^{{sp}}\right)^2"

    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        return self.value_of(xp, xp.sqrt(xp.asarray(self.weight)) * xp.asarray(Z))  # the square of z alone may overflow

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        scale = xp.magnitudes(Z, partition(None, Z.shape[-1]))
        return scale[..., 0] * (scale[..., 0] * xp.asarray(0.5 * squared_norm(xp, Z / scale, self.k)))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        space = array_api_compat.array_namespace(U)
        a = space.astype(xp.abs(U), space.float64)
        a = a / xp.wide.magnitudes(a, partition(None, U.shape[-1]))  # its shares do not depend on the scale of u
        t = space.astype(t, space.float64)
        theta = _shares(space, a, t, space.ones_like(t), self.k)
        return xp.asarray(U * (theta / (theta + t + (theta + t == 0))))

    def conjugate_of(self, xp: ArrayNamespace, V: Array) -> Array:
        return 0.5 * squared_dual_norm(xp, V, self.k)


class KSupportNorm(OfKLargest):
    r"""The k-support norm :math:`\|z\|_k^{sp}`, whose dual is the Euclidean norm of the k largest moduli.

    It is the gauge of the convex hull of the k-sparse unit vectors, see :class:`KSupport` for half its square; k = 1 is
    the L1 norm, k = n the Euclidean one. Where the k largest moduli of u have a norm of at most t, the prox is 0.
    Elsewhere :math:`p = \mathrm{prox}_{s \|\cdot\|^2/2}(u)` with :math:`s \|p\| = t`, for :math:`\partial(\|p\|^2/2) =
    \|p\|\,\partial\|p\|`. The dual norm of the residual u - p must be t. Its inverse is a concave increasing function
    of :math:`x = 1 + 1/s`, so that Newton steps from below, each exact between two changes of the support and nearly
    exact across them, converge to the last digit.

    Parameters
    ----------
    k : int
        >= 1; the Euclidean norm if the code has fewer components.

    References
    ----------
    Argyriou, Foygel and Srebro (2012), Sparse prediction with the k-support norm, NeurIPS;
    Chatterjee, Chen and Banerjee (2014), Generalized Dantzig selector: application to the k-support norm, NeurIPS;
    McDonald, Pontil and Stamos (2016), New perspectives on k-support and cluster norms, JMLR 17.
    """

    degree = 1
    prox_latex = (
        r"\mathrm{prox}_{tR}(u)_i = \frac{\theta_i}{\theta_i + s} u_i, \quad "
        r"\theta_i = \min(\max(a |u_i| - s, 0), 1), \quad \sum_i \theta_i = k, \quad "
        r"s \left\|\mathrm{prox}_{tR}(u)\right\|_k^{sp} = t w "
    )

    @property
    def value_latex(self) -> str:
        return rf"\|z\|_{{{self.k}}}^{{sp}}"

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        scale = xp.magnitudes(Z, partition(None, Z.shape[-1]))
        squares = squared_norm(xp, Z / scale, self.k)
        return scale[..., 0] * xp.asarray(xp.where(squares > 0, xp.sqrt(xp.where(squares > 0, squares, 1.0)), 0.0))

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        space = array_api_compat.array_namespace(U)
        wide = xp.wide
        u = wide.asarray(U)
        scale = wide.magnitudes(u, partition(None, U.shape[-1]))  # squares neither over- nor underflow
        u = u / scale
        a, t = space.abs(u), wide.asarray(t) / scale + 0.0 * u[..., :1]
        norm = wide.sqrt(squared_dual_norm(wide, a, self.k)[..., None])
        free = t <= norm * 2.0**-60  # u moves by less than its rounding
        alive = (norm > t * (1.0 + ROUNDING)) & ~free
        x = wide.where(alive, norm / wide.where(alive, t, 1.0), 2.0)  # at most the root: no entry shrinks by more
        a, t = wide.where(alive, a, 2.0), wide.where(alive, t, 1.0)
        x, constant_a, constant_t = (v.detach() for v in (x, a, t)) if wide.is_torch else (x, a, t)
        for _ in range(NEWTON_STEPS):
            last, x = x, _newton_step(wide, constant_a, constant_t, x, self.k)
            if not bool((x > last * (1.0 + ROUNDING)).any()):
                break
        # One more step that autograd sees: its derivative is the implicit one.
        x = _newton_step(wide, a, t, x, self.k)
        return xp.asarray(scale * wide.where(alive, shrunk(space, u, a, x, self.k), wide.where(free, u, 0.0)))

    def dual_norm_of(self, xp: ArrayNamespace, V: Array) -> Array:
        return xp.sqrt(squared_dual_norm(xp, V, self.k))


def squared_norm(xp: ArrayNamespace, Z: Array, k: int) -> Array:
    """Return the squared k-support norm: the squares of the head, plus the squared sum of the tail over its share."""
    space = array_api_compat.array_namespace(Z)
    if not Z.shape[-1]:
        return Z.sum(-1)
    a = falling(space.astype(xp.abs(Z), space.float64))
    k = min(k, a.shape[-1])
    tails = a.sum(-1)[..., None] - space.cumulative_sum(a, axis=-1) + a  # sums from position j on
    room = k - space.arange(k, dtype=space.float64, device=array_api_compat.device(Z))
    # The head is as long as its last entry exceeds the mean of the tail that follows.
    heads = 1 + space.sum(space.astype(a[..., : k - 1] > (tails[..., :k] / room)[..., 1:], space.int64), axis=-1)
    last = (heads - 1)[..., None]
    tail = space.take_along_axis(tails, last, axis=-1)[..., 0]
    head = space.take_along_axis(space.cumulative_sum(a * a, axis=-1) - a * a, last, axis=-1)[..., 0]
    return head + tail * tail / (k + 1 - space.astype(heads, space.float64))


def squared_dual_norm(xp: ArrayNamespace, V: Array, k: int) -> Array:
    """Return the sum of the k largest squares."""
    return (falling(xp.abs(V))[..., :k] ** 2).sum(-1)


def shrunk(space: Any, u: Array, a: Array, x: Array, k: int) -> Array:
    """Return the prox of half the squared norm at the step 1 / (x - 1) > 0, with a = abs(u)."""
    shares = _shares(space, a, space.ones_like(x), x - 1.0, k)
    return u * (shares / (1.0 + shares))


def _newton_step(xp: ArrayNamespace, a: Array, t: Array, x: Array, k: int) -> Array:
    r"""Return an improved x: the residual u - p is abs(u) / x on the head, a level m in the middle and u on the rest.

    With q = k less the length of the head, n the length of the middle and S its sum, the shares sum to k where
    :math:`m = S / (qx + n - q)`, and the squared dual norm of the residual is :math:`\|u_{head}\|^2 / x^2 + q m^2`.
    """
    space = array_api_compat.array_namespace(a)
    head, middle = _head_and_middle(space, a, space.ones_like(x), x - 1.0, k)
    q, n = k - _sums(space, head, space.ones_like(a)), _sums(space, middle, space.ones_like(a))
    width = q * x + n - q
    m = _sums(space, middle, a) / xp.where(n > 0, width, 1.0)
    squares = _sums(space, head, (a / x) ** 2)
    norm = xp.sqrt(squares + q * m * m)
    falls = squares / x + q * q * m * m / xp.where(n > 0, width, 1.0)
    return x + (norm - t) * norm * norm / (t * falls)


def _shares(space: Any, a: Array, floor: Array, cap: Array, k: int) -> Array:
    """Return theta = min(max(s a - floor, 0), cap) with s such that theta sums to k cap; cap where few are positive."""
    full, rising = _head_and_middle(space, a, floor, cap, k)
    weight, count = _sums(space, rising, a), _sums(space, rising, space.ones_like(a))
    room = k - _sums(space, full, space.ones_like(a))
    s = (room * cap + floor * count) / space.where(weight > 0, weight, space.ones_like(weight))
    theta = space.minimum((s * a - floor).clip(0.0), cap + 0.0 * a)
    return space.where(rising, theta, space.where(full, cap + 0.0 * a, 0.0 * a))


def _head_and_middle(space: Any, a: Array, floor: Array, cap: Array, k: int) -> tuple[Array, Array]:
    """Return where theta is cap, and where it is strictly between 0 and cap, up to rounding."""
    positive = a > 0
    safe = space.where(positive, a, space.ones_like(a))
    # The sum is piecewise linear in s: an entry starts to rise at floor / a and stops at (floor + cap) / a.
    bends = space.concat([floor / safe, (floor + cap) / safe], axis=-1)
    slopes = space.concat([space.where(positive, a, 0.0 * a), space.where(positive, -a, 0.0 * a)], axis=-1)
    order = space.argsort(bends, axis=-1)
    bends = space.take_along_axis(bends, order, axis=-1)
    slopes = space.cumulative_sum(space.take_along_axis(slopes, order, axis=-1), axis=-1)
    rises = space.cumulative_sum(slopes[..., :-1] * (bends[..., 1:] - bends[..., :-1]), axis=-1)
    # Between two neighbouring bends the sum meets k cap; s is there.
    below = space.sum(space.astype(rises < k * cap, space.int64), axis=-1, keepdims=True).clip(0, bends.shape[-1] - 2)
    middle = 0.5 * (space.take_along_axis(bends, below, axis=-1) + space.take_along_axis(bends, below + 1, axis=-1))
    few = space.sum(space.astype(positive, space.int64), axis=-1, keepdims=True) <= k
    full = positive & (few | (a * middle - floor >= cap))
    return full, positive & (a * middle - floor > 0) & ~full


def _sums(space: Any, mask: Array, a: Array) -> Array:
    return space.sum(space.where(mask, a, 0.0 * a), axis=-1, keepdims=True)


class L1MinusL2(NonSeparable):
    r"""The difference :math:`\|z\|_1 - \|z\|_2`, zero exactly at the codes with at most one non-zero.

    With v the soft threshold of u at t, the prox is :math:`v (\|v\|_2 + t) / \|v\|_2`; where v = 0, it is u with only
    its largest entry left (the first of equals).

    References
    ----------
    Lou and Yan (2018), Fast L1-L2 minimization via a proximal operator, J. Sci. Comput. 74.
    """

    is_symmetric = True
    degree = 1
    value_latex = r"\left(\|z\|_1 - \|z\|_2\right)"
    prox_latex = (
        r"\mathrm{prox}_{tR}(u) = \begin{cases} \left(1 + \frac{t w}{\|v\|_2}\right) v & v \ne 0 \\ "
        r"u_j e_j, \; |u_j| = \max_i |u_i| & v = 0 \end{cases}, \quad v = \mathrm{sign}(u) \max(|u| - t w , 0)"
    )

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        scale = xp.magnitudes(Z, partition(None, Z.shape[-1]))
        z = Z / scale
        return scale[..., 0] * xp.maximum(xp.abs(z).sum(-1) - xp.sqrt((z * z).sum(-1)), 0.0)

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        space = array_api_compat.array_namespace(U)
        soft = xp.sign(U) * xp.maximum(xp.abs(U) - t, 0.0)
        scale = xp.magnitudes(soft, partition(None, U.shape[-1]))  # squares neither over- nor underflow
        entries = soft / scale
        squares = (entries * entries).sum(-1)[..., None]
        stretch = 1.0 + t / scale / xp.sqrt(xp.where(squares > 0, squares, 1.0))
        first = space.argmax(xp.abs(U), axis=-1)[..., None]
        only = space.arange(U.shape[-1], device=array_api_compat.device(U)) == first
        return xp.where(squares > 0, soft * stretch, xp.where(only, U, 0.0))
