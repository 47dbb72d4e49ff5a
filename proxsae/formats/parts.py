"""What all libraries mean by a sparse autoencoder: two matrices, two biases and one of four activations.

In all of them u = x W^T + b_e, z = activation(u), and the reconstruction is z D + b.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Activation = Literal["relu", "jumprelu", "topk", "abstopk"]


@dataclass(frozen=True)
class Parts:
    """A sparse autoencoder between a file and :class:`~proxsae.ProxSAE`.

    Attributes
    ----------
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e, in which whatever a library subtracts from x is folded.
    atoms : Tensor of shape (n_components, n_features)
        D, of any norm.
    intercept : Tensor of shape (n_features,)
        b.
    activation : {"relu", "jumprelu", "topk", "abstopk"}
        max(u, 0); u where it exceeds both 0 and its threshold; the k largest u where they are positive; the k largest
        in modulus, with their signs.
    k : int or None
    threshold : Tensor of shape (n_components,) or None
        Of "jumprelu", >= 0.
    provenance : dict
        What the file says of the activations: ``model``, ``site``, ``context_length``.
    """

    weight: Tensor
    bias: Tensor
    atoms: Tensor
    intercept: Tensor
    activation: Activation
    k: int | None = None
    threshold: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def bias_of_centred(self) -> Tensor:
        """b_e + W b: the bias for libraries that subtract b from x first."""
        return shifted(self.bias, self.weight, self.intercept)


def shifted(bias: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Return bias + W offset, summed in float64."""
    return (bias.double() + weight.double() @ offset.double()).to(bias.dtype)


def positive_part(threshold: Tensor) -> Tensor:
    """Return max(threshold, 0): where ReLU is applied as well, a negative threshold is 0."""
    return torch.clamp(threshold, min=0.0)
