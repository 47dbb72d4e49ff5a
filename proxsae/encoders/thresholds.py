"""Learned thresholds for L0 regularizers: JumpReLU and its signed twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from proxsae.regularizers import L0, NonNegative, Regularizer, Separable


def takes_thresholds(regularizer: Regularizer) -> bool:
    """Whether the regularizer is ``w * L0()`` or ``w * L0() + NonNegative()``: its prox is one threshold an atom."""
    counts = [term for term in regularizer.terms if isinstance(term, L0)]
    others = [term for term in regularizer.terms if not isinstance(term, L0 | NonNegative)]
    return isinstance(regularizer, Separable) and len(counts) == 1 and not others


def initial_thresholds(regularizer: Regularizer, atoms: Tensor) -> Tensor | None:
    """Return the hard thresholds sqrt(2 w) of the weight w of L0, one an atom; None for other regularizers."""
    if not takes_thresholds(regularizer):
        return None
    weight = next(term.weight for term in regularizer.terms if isinstance(term, L0))
    root = torch.as_tensor(weight, dtype=atoms.dtype, device=atoms.device).mul(2).sqrt()
    return root.expand(len(atoms)).clone()


def with_thresholds(regularizer: Regularizer, threshold: Tensor) -> Separable:
    """Return the regularizer with the L0 weight theta^2 / 2, whose prox at step 1 cuts at theta."""
    count: Regularizer = (0.5 * threshold * threshold) * L0()
    for term in regularizer.terms:
        if not isinstance(term, L0):
            count = count + term
    assert isinstance(count, Separable)
    return count


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
