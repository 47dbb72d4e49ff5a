"""Steering the weight of R so that codes have a wanted mean number of non-zeros."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from proxsae.encoders import Encoder
from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers import Cardinality, Regularizer

SETTLED = 1e-7  # how closely the logarithm of a weight is searched for
GAIN = 0.1  # of the control: far from oscillation, since L0 falls no faster than some power of the weight
FARTHEST, FARTHEST_FLOAT32 = 425, 106  # powers of two as factors on a weight; beyond them the dtype has no room


def check_steerable(regularizer: Regularizer) -> None:
    """Raise ValueError unless the number of non-zeros follows from the weight of R."""
    if isinstance(regularizer, Cardinality):
        raise ValueError(f"target_l0 steers the weight of R, but in {regularizer} k already fixes the non-zeros")
    if all(term.is_indicator for term in regularizer.terms):
        raise ValueError(f"target_l0 steers the weight of R, and {regularizer} has no weight")


class WeightControl:
    """Integral control of the weight: w <- w (l0 / target)^GAIN after every step.

    The weight is a threshold of the prox, so L0 answers in the same step. Before the first step and after the last the
    target is met exactly on a sample of the data.

    Parameters
    ----------
    target : float
        Wanted mean number of non-zeros of a sample.

    Attributes
    ----------
    is_met : bool
        Whether the weight has been set for the data; if not, the first step begins with setting it.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.is_met = False

    @torch.no_grad()
    def meet(self, encoder: Encoder, x: Tensor, weights: Tensor | None = None) -> float:
        """Set the weight that meets the target on x, by bisection of its logarithm; return the factor on it.

        `weights` are the weights of the rows of x in that mean.

        Raises
        ------
        ValueError
            If no weight meets the target.
        """
        counted, shares = encoder.l0_by_weight(x), None if weights is None else to_numpy(weights)

        def l0(exponent: float) -> float:
            with np.errstate(over="ignore", under="ignore"):  # a weight beyond the dtype leaves nothing, or everything
                return float(np.average(to_numpy(counted(2.0**exponent)), weights=shares))

        # outwards from the weight that is given: much below the one sought codes are dense, and take long to solve
        is_above = l0(0.0) > self.target
        highest = FARTHEST if encoder.dtype == torch.float64 else FARTHEST_FLOAT32
        sign, limit = (1.0, highest) if is_above else (-1.0, FARTHEST)
        near, far = 0.0, sign
        while (l0(far) > self.target) == is_above:
            if abs(far) == limit:
                if bool((x == x[:1]).all()):
                    raise ValueError(
                        f"target_l0={self.target} sets the weight of R from rows that differ, and those given are equal"
                    )
                raise ValueError(
                    f"no weight of {encoder.regularizer}, in the units of the encoder, gives a mean L0 of "
                    f"{self.target}: it stays between {l0(highest):.1f} and {l0(-FARTHEST):.1f}"
                )
            near, far = far, sign * min(2.0 * abs(far), limit)
        low, high = sorted((near, far))
        while high - low > SETTLED:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if l0(middle) > self.target else (low, middle)
        factor: float = 2.0 ** (0.5 * (low + high))
        encoder.scale_weight(factor)
        self.is_met = True
        return factor

    @torch.no_grad()
    def update(self, encoder: Encoder, l0: float) -> None:
        """Move the weight after a batch with the given mean L0."""
        ratio = min(max(l0 / self.target, 0.1), 10.0)
        # A learned threshold is the square root of its weight, so that L0 falls half as fast with the weight.
        encoder.scale_weight(ratio ** (2 * GAIN if encoder.learns_thresholds else GAIN))
