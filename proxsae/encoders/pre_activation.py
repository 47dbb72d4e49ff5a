"""The argument u of a prox: dense and without graph to select by, with gradients where codes are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from proxsae.encoders.codes import Codes
from proxsae.kernels.sparse import LinearAt, Pattern


@dataclass(frozen=True)
class PreActivation:
    r"""u = x W^T + b_e + :math:`\sum_s c_s Z_s`, of shape (n_samples, n_components).

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_features)
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,) or None
        b_e.
    codes : tuple of (number or Tensor, Codes)
        c_s and Z_s: codes of earlier layers that u starts from.
    in_bfloat16 : bool
        Round the factors of x W^T, where no graph is needed, to bfloat16; the sums are float32.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    codes: tuple[tuple[float | Tensor, Codes], ...] = ()
    in_bfloat16: bool = False

    @cached_property
    def without_graph(self) -> Tensor:
        """All entries."""
        with torch.no_grad():
            if self.in_bfloat16:
                u = torch.mm(self.x.bfloat16(), self.weight.bfloat16().T, out_dtype=torch.float32)
                u = u if self.bias is None else u.add_(self.bias)
            else:
                u = torch.nn.functional.linear(self.x, self.weight, self.bias)
            for factor, Z in self.codes:
                u[Z.pattern.rows, Z.pattern.indices] += factor * Z.values
        return u

    def with_graph(self) -> Tensor:
        """Return all entries, with gradients."""
        u = torch.nn.functional.linear(self.x, self.weight, self.bias)
        for factor, Z in self.codes:
            u = u + factor * Z.to_dense()
        return u

    def at(self, pattern: Pattern) -> Tensor:
        """Return the entries at a pattern, with gradients that never fill the matrix."""
        entries = pattern.gather(self.without_graph)
        u: Tensor = LinearAt.apply(pattern, entries, self.x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        for factor, Z in self.codes:
            part = factor * Z.at(pattern)
            u = u + (part - part.detach())  # the entries hold its value
        return u
