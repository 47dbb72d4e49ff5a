"""The losses of a training step, each a function of the forward result; a new one is a function more in the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from proxsae.encoders import Codes
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import row_support
from proxsae.training.autoencoder import Forward

Loss = Callable[[Forward], Tensor]


def reconstruction(forward: Forward) -> Tensor:
    r"""Return the mean over the samples of :math:`\frac12 \|y - z D - b\|^2`."""
    return 0.5 * forward.squared_error


def penalty(forward: Forward) -> Tensor:
    """Return the mean over the samples of R(z)."""
    return forward.encoding.penalty


@dataclass(frozen=True)
class AuxK:
    """Half the squared error of the residual reconstructed by dead atoms alone, with their largest pre-activations.

    Atoms that no sample has used learn from it what the others leave over, and come back.

    Parameters
    ----------
    dead_after : int
        Samples without use after which an atom counts as dead.
    k : int
        Dead atoms a sample, those of largest pre-activation in modulus (in value, where R requires z >= 0).
    weight : float, default 1/32

    References
    ----------
    Gao et al. (2024), Scaling and evaluating sparse autoencoders, arXiv:2406.04093.
    """

    dead_after: int
    k: int
    weight: float = 1 / 32

    def __call__(self, forward: Forward) -> Tensor:
        """Return the loss; zero where no atom is dead."""
        dead = (forward.unused_for >= self.dead_after).nonzero()[:, 0]
        if not len(dead):
            return forward.y.new_zeros(())
        encoding = forward.encoding
        mirror = 1.0 if encoding.regularizer.is_nonnegative else -1.0
        offsets, indices = row_support(encoding.pre_activation[:, dead], self.k, mirror)
        pattern = Pattern(offsets, dead[indices], len(forward.atoms))
        explained = Codes(pattern, encoding.pre_activation_at(pattern)).decode(forward.atoms)
        unexplained = forward.residual.detach() - explained
        return self.weight * 0.5 * unexplained.square().sum() / len(forward.y)


def standard(n_features: int, dead_after: int) -> list[Loss]:
    """Return the objective and the loss of dead atoms, with half as many atoms as features."""
    return [reconstruction, penalty, AuxK(dead_after, max(1, n_features // 2))]
