"""Learned thresholds for L0 regularizers: JumpReLU, its signed form, and AsymmetricL0 with two thresholds an atom."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from proxsae.regularizers import L0, AsymmetricL0, NonNegative, Regularizer, Separable


def takes_thresholds(regularizer: Regularizer) -> bool:
    """Whether R has thresholds to learn: ``w * L0()``, with or without ``NonNegative()``, or `AsymmetricL0`."""
    counts = [term for term in regularizer.terms if isinstance(term, L0 | AsymmetricL0)]
    others = [term for term in regularizer.terms if not isinstance(term, L0 | AsymmetricL0 | NonNegative)]
    is_plain = isinstance(regularizer, Separable) and len(counts) == 1 and not others
    return is_plain and (isinstance(counts[0], L0) or len(regularizer.terms) == 1)


def threshold_shape(regularizer: Regularizer, n_components: int) -> tuple[int, ...]:
    """Return the shape of learned thresholds; AsymmetricL0 has two rows, for positive and for negative codes."""
    return (2, n_components) if isinstance(regularizer, AsymmetricL0) else (n_components,)


def initial_thresholds(regularizer: Regularizer, atoms: Tensor) -> Tensor | None:
    """Return the hard thresholds sqrt(2 w), with w the cost of a non-zero; None for an R without such thresholds."""
    if not takes_thresholds(regularizer):
        return None

    def root(cost: Any) -> Tensor:
        return torch.as_tensor(cost, dtype=atoms.dtype, device=atoms.device).mul(2).sqrt().expand(len(atoms)).clone()

    if isinstance(regularizer, AsymmetricL0):
        R = regularizer
        return torch.stack([root(R.weight * R.positive), root(R.weight * R.negative)])
    return root(next(term.weight for term in regularizer.terms if isinstance(term, L0)))


def with_thresholds(regularizer: Regularizer, threshold: Tensor) -> Separable:
    """Return the regularizer with the costs theta^2 / 2 of a non-zero, whose prox at step 1 cuts at theta."""
    costs = 0.5 * threshold * threshold
    if isinstance(regularizer, AsymmetricL0):
        return AsymmetricL0(costs[0], costs[1])
    count: Regularizer = costs * L0()
    for term in regularizer.terms:
        if not isinstance(term, L0):
            count = count + term
    assert isinstance(count, Separable)
    return count


def thresholds_at(threshold: Tensor, indices: Tensor, u: Tensor) -> Tensor:
    """Return the threshold of each entry: that of its atom, or of its atom and sign."""
    if threshold.ndim == 1:
        return threshold.index_select(0, indices)  # as threshold[indices], whose gradient is added up far more slowly
    return torch.where(u > 0, thresholds_at(threshold[0], indices, u), thresholds_at(threshold[1], indices, u))


class Jump(torch.autograd.Function):
    r"""The hard threshold z = u 1[m > theta], with m = u, or m = abs(u) where R is signed, and a surrogate derivative.

    True derivatives: dz/du = 1[m > theta]; dz/dtheta = 0 almost everywhere, so that theta would never move. The
    surrogate estimates the derivative of the expected loss with a rectangular kernel of width eps:
    :math:`dz/d\theta = -\mathrm{sign}(u)\,(\theta/\varepsilon)\,1[|m - \theta| < \varepsilon/2]`.

    References
    ----------
    Rajamanoharan et al. (2024), Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders,
    arXiv:2407.14435.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, z: Tensor, signed: bool, bandwidth: float) -> Tensor:
        """Return z, the thresholded u."""
        ctx.save_for_backward(u, threshold, z)
        ctx.signed, ctx.bandwidth = signed, bandwidth
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the true derivative for u and the surrogate for theta."""
        (gradient,) = gradients
        u, threshold, z = ctx.saved_tensors
        near = _in_window(u, threshold, ctx.signed, ctx.bandwidth)
        for_threshold = -gradient * u.sign() * threshold / ctx.bandwidth * near
        return gradient * (z != 0), for_threshold, None, None, None


class Count(torch.autograd.Function):
    r"""The indicator 1[m > theta], its surrogate derivative :math:`-(1/\varepsilon)\,1[|m-\theta|<\varepsilon/2]`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, z: Tensor, signed: bool, bandwidth: float) -> Tensor:
        """Return 1 where z, the thresholded u, is not zero."""
        ctx.save_for_backward(u, threshold)
        ctx.signed, ctx.bandwidth = signed, bandwidth
        return (z != 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the surrogate for theta; counting has no derivative for u."""
        (gradient,) = gradients
        u, threshold = ctx.saved_tensors
        near = _in_window(u, threshold, ctx.signed, ctx.bandwidth)
        return None, -gradient / ctx.bandwidth * near, None, None, None


def _in_window(u: Tensor, threshold: Tensor, signed: bool, bandwidth: float) -> Tensor:
    m = u.abs() if signed else u
    return (m - threshold).abs() < 0.5 * bandwidth
