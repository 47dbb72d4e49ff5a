"""Learned matrices in place of D^T, coupled to D as in a proximal-gradient step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from proxsae.encoders.kinds.base import Kind, Past
from proxsae.encoders.pre_activation import PreActivation


class ListaCp(Kind):
    r"""u = z + (x - b - z D) W^T, and the step t of the prox is learned apart from W.

    References
    ----------
    Chen, Liu, Wang and Yin (2018), Theoretical linear convergence of unfolded ISTA and its practical weights and
    thresholds, NeurIPS.
    """

    name = "lista-cp"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return W = t D and t."""
        return {"weight": step * D, "prox_step": D.new_tensor(step)}

    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""
        return PreActivation(past.residual, own["weight"], codes=past.point)
