"""Kinds that accumulate the pre-activation from layer to layer: linearised Bregman steps, and LCA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from proxsae.encoders.kinds.base import Kind, Past, positive
from proxsae.encoders.pre_activation import PreActivation


class Bregman(Kind):
    r"""u_s = (1 - rho) u_{s-1} + rho z_s + t (x - b - z_s D) D^T, with t, the leak rho and the prox step learned.

    The leak is the share of what the prox has cut off that is forgotten: rho = 0, the start, gives linearised Bregman
    steps, whose codes fit x ever closer; rho = 1 gives "ista".

    References
    ----------
    Yin, Osher, Goldfarb and Darbon (2008), Bregman iterative algorithms for l1-minimization, SIAM J. Imaging Sci. 1.
    """

    name = "bregman"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return t, rho = 0 and the step of the prox, t."""
        return {"step": D.new_tensor(step), "leak": D.new_tensor(0.0), "prox_step": D.new_tensor(step)}

    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""
        x, before, kept = positive(own["step"]) * past.residual, past.pre_activation, 1.0 - own["leak"]
        if before is None:
            return PreActivation(x, past.atoms)
        codes = [(kept * factor, Z) for factor, Z in before.codes]
        codes += [(own["leak"] * factor, Z) for factor, Z in past.point]
        return PreActivation(x + kept * before.x, past.atoms, codes=tuple(codes))


class Lca(Bregman):
    r"""The steps of :class:`Bregman` with rho = t before training: the locally competitive algorithm in discrete time.

    Its potentials follow :math:`\dot u = -u + z + (x - b - z D) D^T`, which rests at the minimum of the objective.

    References
    ----------
    Rozell, Johnson, Baraniuk and Olshausen (2008), Sparse coding via thresholding and local competition in neural
    circuits, Neural Comput. 20.
    """

    name = "lca"

    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return t, rho = t and the prox step 1, with which the fixed point is the minimum of the objective."""
        return {**super().initial(D, step), "leak": D.new_tensor(step), "prox_step": D.new_tensor(1.0)}
