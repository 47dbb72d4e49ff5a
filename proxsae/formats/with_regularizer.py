r"""R beyond what the activation tells: the weight of L1 inside a bias, which only our files state.

For every :math:`\lambda \ge 0` the encoder :math:`\max(u, 0)` is the prox of :math:`\lambda\|z\|_1 + i\{z \ge 0\}` at
:math:`u + \lambda`. The penalty of the training therefore has to be given as R; the codes do not depend on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.encoders import Amortized
from proxsae.formats.activations import activation_sides, regularizer_of_parts
from proxsae.formats.doubling import Signed, parts_of, written_parts
from proxsae.formats.parts import Parts
from proxsae.regularizers import Regularizer
from proxsae.regularizers.naming import checked_spelling

TOLERANCE = 1e-5  # of thresholds, and of the two halves of a signed autoencoder, whose biases were rounded


def encoder_with(R: Regularizer, parts: Parts) -> tuple[Amortized, Tensor]:
    """Return the encoder with the codes of the parts that is the prox of R, and D.

    Raises
    ------
    ValueError
        If the activation is not the prox of R up to the scale and the bias of its argument.
    """
    if R == regularizer_of_parts(parts):
        return Amortized.of(R, parts.weight, parts.bias), parts.atoms
    sides = activation_sides(R)
    half = len(parts.atoms) // len(sides.sides)
    R.check_width(half)
    slope, shift = (np.asarray(value) for value in (sides.sides[0].slope, sides.sides[0].shift))
    weight = parts.weight[:half].double() / torch.as_tensor(slope[:, None] if slope.ndim else slope)
    bias = (parts.bias[:half].double() + torch.as_tensor(shift)) / torch.as_tensor(slope)
    encoder = Amortized.of(R, weight.to(parts.weight.dtype), bias.to(parts.bias.dtype))
    atoms = parts.atoms[:half].clone()
    if not _is_same(written_parts(encoder, atoms, parts.intercept), parts):
        raise ValueError(f"the activation of the file is not the prox of {R} with any scale and bias")
    return encoder, atoms


def stated_parts(sae: Any, signed: Signed) -> Parts:
    """Return the parts of a fitted estimator with the text of its R; see :func:`proxsae.formats.doubling.parts_of`."""
    return replace(parts_of(sae, signed), regularizer=_spelled(sae.regularizer_))


def _spelled(R: Regularizer) -> str | None:
    """Return the text of R for a field of a configuration, None where it holds arrays or functions."""
    try:
        text, arrays = checked_spelling(R)
    except (TypeError, ValueError):
        return None
    return None if arrays else text


def _is_same(ours: Parts, theirs: Parts) -> bool:
    """Whether two autoencoders are equal up to rounding; ReLU is a JumpReLU with thresholds 0."""
    zero = torch.zeros_like(theirs.bias)
    ours, theirs = (replace(p, threshold=zero) if p.activation == "relu" else p for p in (ours, theirs))
    return (
        ours.k == theirs.k
        and (ours.threshold is None) == (theirs.threshold is None)
        and all(
            _is_close(getattr(ours, name), getattr(theirs, name)) for name in ("weight", "bias", "atoms", "threshold")
        )
    )


def _is_close(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and bool((first - second).abs().max() <= TOLERANCE * second.abs().max())
