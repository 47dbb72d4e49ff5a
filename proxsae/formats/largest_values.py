"""An encoder whose activation is no proximal operator, as a torch module: that of a file which load reads."""

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
