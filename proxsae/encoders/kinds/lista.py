"""Learned matrices for the input and between the codes: the original LISTA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from proxsae.encoders.kinds.base import Kind, Past
from proxsae.encoders.pre_activation import PreActivation


class Lista(Kind):
    r"""u = z S + (x - b) W^T, with S (n_components, n_components), W and the step t of the prox learned.

    References
    ----------
    Gregor and LeCun (2010), Learning fast approximations of sparse coding, ICML.
    """

    name = "lista"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return S = I - t D D^T, W = t D and t."""
        lateral = torch.eye(len(D), dtype=D.dtype, device=D.device) - step * (D @ D.T)
        return {"lateral": lateral, "weight": step * D, "prox_step": D.new_tensor(step)}

    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""
        W, S = own["weight"], own["lateral"]
        return PreActivation(past.target, W, through=past.point, lateral=S, known=lambda: past.of_target(W))
