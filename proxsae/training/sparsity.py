"""Steering the weight of R so that codes have a wanted mean number of non-zeros."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from proxsae.encoders import Amortized
from proxsae.encoders.thresholds import with_thresholds
from proxsae.regularizers import Cardinality, Regularizer


def check_steerable(regularizer: Regularizer) -> None:
    """Raise ValueError unless the number of non-zeros follows from the weight of R."""
    if isinstance(regularizer, Cardinality):
        raise ValueError(f"target_l0 steers the weight of R, but in {regularizer} k already fixes the non-zeros")
    if all(term.is_indicator for term in regularizer.terms):
        raise ValueError(f"target_l0 steers the weight of R, and {regularizer} has no weight")


class WeightControl:
    r"""Integral control of the weight: w <- w (l0 / target)^gain after every step.

    The weight is a threshold of the prox, so L0 answers in the same step; the exponent keeps the loop far from
    oscillation, since L0 falls no faster than some power of w. Before the first step and after the last the target is
    met exactly on a sample of the data.

    Parameters
    ----------
    target : float
        Wanted mean number of non-zeros of a sample.
    gain : float, default 0.1
    """

    def __init__(self, target: float, gain: float = 0.1) -> None:
        self.target = target
        self.gain = gain

    @torch.no_grad()
    def meet(self, encoder: Amortized, x: Tensor) -> None:
        """Set the weight that meets the target on x, by bisection of its logarithm.

        Raises
        ------
        ValueError
            If no weight does.
        """
        u = encoder.pre_activation(x)

        def l0(factor: float) -> float:
            offsets, _ = reweighted(encoder, factor).support(u)
            return int(offsets[-1]) / len(x)

        low, high = 1e-8, 1e8
        if not l0(high) < self.target < l0(low):
            raise ValueError(
                f"no weight of {encoder.regularizer} gives a mean L0 of {self.target}: it stays between "
                f"{l0(high):.1f} and {l0(low):.1f}"
            )
        for _ in range(60):
            factor = math.sqrt(low * high)
            low, high = (factor, high) if l0(factor) > self.target else (low, factor)
        scale_weight(encoder, math.sqrt(low * high))

    @torch.no_grad()
    def update(self, encoder: Amortized, l0: float) -> None:
        """Move the weight after a batch with the given mean L0."""
        ratio = min(max(l0 / self.target, 0.1), 10.0)
        # A learned threshold is the square root of its weight, so that L0 falls half as fast with the weight.
        scale_weight(encoder, ratio ** (self.gain if encoder.threshold is None else 2 * self.gain))


def reweighted(encoder: Amortized, factor: float) -> Regularizer:
    """Return the regularizer of the encoder with its weights multiplied."""
    if encoder.threshold is None:
        steered: Regularizer = encoder.regularizer.scaled(factor)
        return steered
    return with_thresholds(encoder.regularizer, encoder.threshold.detach() * math.sqrt(factor))


def scale_weight(encoder: Amortized, factor: float) -> None:
    """Multiply the weights of the regularizer of the encoder; thresholds move by the square root."""
    if encoder.threshold is None:
        encoder.regularizer = encoder.regularizer.scaled(factor)
    else:
        encoder.threshold.data.mul_(math.sqrt(factor))
