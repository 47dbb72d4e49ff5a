"""Encoders whose activation is no proximal operator, as torch modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LargestValues(nn.Module):
    r"""The k largest entries of u = x W^T + b_e, whatever their sign: TopK without ReLU.

    No prox: a prox is monotone, and here u = (-2, -1) gives (0, -1) for k = 1, u' = (-0.5, -1) gives (-0.5, 0), so that
    :math:`\langle z - z', u - u'\rangle = (0.5)(-1.5) < 0`.

    Parameters
    ----------
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e.
    k : int
    """

    is_nonnegative = False

    def __init__(self, weight: Tensor, bias: Tensor, k: int) -> None:
        super().__init__()
        self.weight, self.bias, self.k = nn.Parameter(weight), nn.Parameter(bias), k

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        u = nn.functional.linear(x, self.weight, self.bias)
        kept = u.topk(self.k, dim=-1)
        return torch.zeros_like(u).scatter(-1, kept.indices, kept.values)

    def extra_repr(self) -> str:
        """Return what tells one from another."""
        return f"k={self.k}"


class UntiedGate(nn.Module):
    r"""max(x W^T + b_e, 0) where x G^T + g > 0: a gated encoder with a matrix of its own for the gate.

    It is no prox of one u: whether a code is open does not follow from its value. With G = W up to a factor > 0 a row,
    as all libraries have it, it is a JumpReLU, and a prox. Rajamanoharan et al. (2024).

    Parameters
    ----------
    gate_weight : Tensor of shape (n_components, n_features)
        G.
    gate_bias : Tensor of shape (n_components,)
        g.
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e.
    """

    is_nonnegative = True

    def __init__(self, gate_weight: Tensor, gate_bias: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.gate_weight, self.gate_bias = nn.Parameter(gate_weight), nn.Parameter(gate_bias)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        is_open = nn.functional.linear(x, self.gate_weight, self.gate_bias) > 0
        return is_open * nn.functional.linear(x, self.weight, self.bias).clamp(min=0)
