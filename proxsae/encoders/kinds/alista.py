"""Proximal steps whose matrix follows from D in closed form; only steps and thresholds are learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from proxsae.encoders.kinds.base import Kind, Past, positive
from proxsae.encoders.pre_activation import PreActivation


class Alista(Kind):
    r"""u = z + g (x - b - z D) W^T with W of least coherence with D; g and the step t of the prox are learned.

    References
    ----------
    Liu, Chen, Wang and Yin (2019), ALISTA: analytic weights are as good as learned weights in LISTA, ICLR.
    """

    name = "alista"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return g = t."""
        return {"step": D.new_tensor(step), "prox_step": D.new_tensor(step)}

    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""
        W = past.once("weight", lambda: least_coherent(past.atoms))
        return PreActivation(positive(own["step"]) * past.residual, W, codes=past.point)


def least_coherent(D: Tensor) -> Tensor:
    r"""Return the W that minimises :math:`\sum_{ij} \langle w_i, d_j\rangle^2` with every <w_i, d_i> = 1.

    With :math:`M = D^T D` it is :math:`w_i = M^{-1} d_i / \langle d_i, M^{-1} d_i\rangle`, with gradients. Directions
    in which the atoms hardly extend are left out by a ridge of 1e-6 of the mean eigenvalue of M.
    """
    M = D.T @ D
    ridge = 1e-6 * M.diagonal().mean() * torch.eye(len(M), dtype=D.dtype, device=D.device)
    W: Tensor = torch.linalg.solve(M + ridge, D, left=False)
    return W / (W * D).sum(1, keepdim=True)
