"""The losses of a training step: functions of the forward result, whose sum is minimised.

The data term is half the squared error; ``ProxSAE(loss=...)`` puts a sum over nested reconstructions in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from proxsae.encoders import Codes
from proxsae.kernels.sparse import Pattern
from proxsae.training.autoencoder import Forward, row_squared_norms
from proxsae.training.distributed import mesh

Loss = Callable[[Forward], Tensor]


def reconstruction(forward: Forward) -> Tensor:
    r"""Return the mean over the samples of :math:`\frac12 \|y - z D - b\|^2`."""
    return 0.5 * forward.mean(row_squared_norms(forward.residual))


@dataclass(frozen=True)
class Matryoshka:
    r"""The squared error of every prefix of the dictionary: the first atoms learn to do without those that follow.

    .. math:: \sum_m w_m \tfrac12 \|y - b - \sum_{i \le m} z_i d_i\|^2,

    averaged over the samples, for any R and encoder.

    Parameters
    ----------
    sizes : sequence of int
        Ascending numbers of atoms; the last is all.
    weights : sequence of float, optional
        One a prefix; equal ones of sum 1 by default.

    References
    ----------
    Bussmann, Nabeshima, Karvonen and Nanda (2025), Learning multi-level features with Matryoshka sparse autoencoders,
    arXiv:2503.17547.
    """

    sizes: Sequence[int]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", _nested("sizes", self.sizes, self.weights))

    def refuses(self, n_components: int) -> str | None:
        """Return one sentence if there are not as many atoms as the last prefix has."""
        if self.sizes[-1] == n_components:
            return None
        return f"the last of the sizes of {self} must be n_components = {n_components}"

    def __call__(self, forward: Forward) -> Tensor:
        """Return the loss."""
        indices = forward.encoding.codes.pattern.indices
        levels = torch.searchsorted(torch.tensor(self.sizes, device=indices.device), indices.long(), right=True)
        return _nested_error(forward, levels, len(self.sizes), self.weights)


@dataclass(frozen=True)
class HierarchicalTopK:
    r"""The squared error of the k largest codes of each sample in modulus, for several k at once.

    One autoencoder is then good at each of these sparsities: keep the k largest of its codes.

    Parameters
    ----------
    ks : sequence of int
        Ascending; the last stands for all non-zeros.
    weights : sequence of float, optional
        One a k; equal ones of sum 1 by default.

    References
    ----------
    Balagansky et al. (2025), Train one sparse autoencoder across multiple sparsity budgets, arXiv:2505.24473.
    """

    ks: Sequence[int]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ks", _nested("ks", self.ks, self.weights))

    def refuses(self, n_components: int) -> str | None:
        """Return one sentence if there are fewer atoms than k."""
        return f"{self} needs more than n_components = {n_components} atoms" if self.ks[-1] > n_components else None

    def __call__(self, forward: Forward) -> Tensor:
        """Return the loss."""
        codes = forward.encoding.codes
        # entries row after row, the largest of each first: a stable sort by row of those sorted by size
        by_size = codes.values.detach().abs().argsort(descending=True, stable=True)
        order = by_size[codes.pattern.rows[by_size].argsort(stable=True)]
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order), device=order.device) - codes.pattern.offsets[codes.pattern.rows]
        ks = torch.tensor(self.ks, device=order.device)
        levels = torch.searchsorted(ks, ranks, right=True).clamp(max=len(self.ks) - 1)
        return _nested_error(forward, levels, len(self.ks), self.weights)


LOSSES: dict[str, type[Matryoshka] | type[HierarchicalTopK]] = {
    "matryoshka": Matryoshka,
    "hierarchical_topk": HierarchicalTopK,
}


def checked_loss(loss: Any, n_components: int) -> Matryoshka | HierarchicalTopK | None:
    """Return the data term (None: the squared error), or raise ValueError where it is no loss or does not fit."""
    if loss is None:
        return None
    if not isinstance(loss, Matryoshka | HierarchicalTopK):
        raise ValueError(f"loss must be None, Matryoshka(sizes) or HierarchicalTopK(ks), got {loss!r}")
    if sentence := loss.refuses(n_components):
        raise ValueError(sentence)
    return loss


def _nested_error(forward: Forward, levels: Tensor, n_levels: int, weights: Sequence[float] | None) -> Tensor:
    """Return the weighted sum over m of half the squared error of the codes up to level m, mean over the samples."""
    codes = forward.encoding.codes
    w = [1.0 / n_levels] * n_levels if weights is None else list(weights)
    residual, total = forward.residual, w[-1] * row_squared_norms(forward.residual)
    for level in range(n_levels - 1, 0, -1):  # from all codes down: the part of each level is taken away
        of_level = (levels == level).nonzero()[:, 0]
        counts = torch.bincount(codes.pattern.rows[of_level], minlength=codes.pattern.n_rows)
        pattern = Pattern.of_counts(counts, codes.pattern.indices[of_level], codes.pattern.n_columns)
        residual = residual + Codes(pattern, codes.values[of_level]).decode(forward.atoms)
        total = total + w[level - 1] * row_squared_norms(residual)
    return 0.5 * forward.mean(total)


def _nested(name: str, sizes: Sequence[Any], weights: Sequence[float] | None) -> tuple[int, ...]:
    """Return the sizes, checked."""
    if not len(sizes) or any(isinstance(n, bool) or not isinstance(n, Integral) for n in sizes):
        raise ValueError(f"{name} must be whole numbers, got {sizes!r}")
    numbers = [int(n) for n in sizes]
    if numbers[0] < 1 or any(a >= b for a, b in pairwise(numbers)):
        raise ValueError(f"{name} must be positive and ascending, got {sizes!r}")
    if weights is not None and (len(weights) != len(numbers) or not all(0 <= w < float("inf") for w in weights)):
        raise ValueError(f"weights must be {len(numbers)} finite numbers >= 0, one for each of {name}, got {weights!r}")
    return tuple(numbers)


def penalty(forward: Forward) -> Tensor:
    """Return the mean over the samples of R(z)."""
    return forward.mean(forward.encoding.penalty)


@dataclass(frozen=True)
class AuxK:
    """Half the squared error of the residual reconstructed by dead atoms alone, with their largest pre-activations.

    Dead atoms learn from this loss to explain the residual of the others, and come into use again. In large batches it
    uses every fourth sample: it has many times as many non-zeros a sample as the codes, and dead atoms come back nearly
    as soon.

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
        is_dead = forward.unused_for >= self.dead_after
        if forward.room_for_dead is None:
            atoms = is_dead.nonzero()[:, 0]
        else:  # the dead ones first, and others in the places that are left
            atoms = is_dead.byte().argsort(descending=True, stable=True)[: forward.room_for_dead]
        if not len(atoms):
            return forward.y.new_zeros(())
        encoding = forward.encoding
        mirror = 1.0 if encoding.regularizer.is_nonnegative else -1.0
        every = forward.every_for_dead
        u = encoding.pre_activation.columns(atoms, every)
        u = u if forward.room_for_dead is None else u * is_dead[atoms]
        among_dead = Pattern(*encoding.largest(u, self.k, mirror), n_columns=len(atoms))
        counts = among_dead.offsets.new_zeros(len(forward.y))
        counts[::every] = among_dead.offsets.diff()
        pattern = Pattern.of_counts(counts, atoms[among_dead.indices], len(forward.atoms))
        values = encoding.pre_activation.at(pattern, among_dead.gather(u))
        if forward.room_for_dead is not None:  # on a device every row has k entries, some of no rank
            values = values * (is_dead[pattern.indices] & ((values > 0) | (mirror == -1)))
        explained = replace(encoding.codes, pattern=pattern, values=values).decode(forward.atoms)
        unexplained = (forward.residual.detach() - explained)[::every]
        loss = self.weight * 0.5 * forward.mean(row_squared_norms(unexplained), every)
        if forward.room_for_dead is None:
            return loss
        return loss * mesh().atoms.any(is_dead.any())  # there may be room, and no dead atom any more


def standard(n_features: int, dead_after: int, data_term: Loss | None = None) -> list[Loss]:
    """Return the terms of the objective and AuxK, with half as many dead atoms a sample as features."""
    return [reconstruction if data_term is None else data_term, penalty, AuxK(dead_after, max(1, n_features // 2))]
