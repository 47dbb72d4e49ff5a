"""Proximal-gradient steps with the dictionary itself; the steps are learned."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from proxsae.encoders.kinds.base import Kind, Past, positive
from proxsae.encoders.pre_activation import PreActivation


class Ista(Kind):
    r"""u = z + t (x - b - z D) D^T.

    References
    ----------
    Daubechies, Defrise and De Mol (2004), Comm. Pure Appl. Math. 57.
    """

    name = "ista"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return the step."""
        return {"step": D.new_tensor(step)}

    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""
        return PreActivation(positive(own["step"]) * past.residual, past.atoms, codes=past.point)

    def prox_step(self, own: Mapping[str, Tensor]) -> Tensor:
        """Return t, which is both steps."""
        return positive(own["step"])
