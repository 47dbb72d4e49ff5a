"""Blocks of features with separate units: the features that a crosscoder codes together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from proxsae.data.rows import Rows
from proxsae.formulas.integers import is_count
from proxsae.training.scaling import Scaling


@dataclass(frozen=True)
class FeatureBlocks:
    r"""Features side by side, :math:`x = (s_1 x^1, \dots, s_B x^B)`; a plain autoencoder has one block of scale 1.

    The model is one of :math:`(x^1, \dots, x^B)`, and its atoms have norm 1 in :math:`\sum_b \|d^b\|_2`. Codes and
    atoms may be rescaled against one another, and so :math:`R(z) = \lambda \|z\|_1` is then the penalty of Lindsey et
    al. (2024) on atoms of any norm, :math:`\lambda \sum_i |z_i| \sum_b \|d_i^b\|_2`; its prox takes :math:`\lambda`
    off every code, whatever blocks the atom is in. A cardinality selects by :math:`z_i \sum_b \|d_i^b\|_2`, as the
    BatchTopK crosscoder of Minder et al. (2025) does.

    Attributes
    ----------
    sizes : tuple of int
        How many features each block has.
    scales : tuple of float
        :math:`s_b`, in units of which centred rows of the block have mean norm sqrt(size).

    References
    ----------
    Lindsey, Templeton, Marcus, Conerly, Batson and Olah (2024), Sparse crosscoders for cross-layer features and model
    diffing, Transformer Circuits; Minder, Dumas, Juang, Chughtai and Nanda (2025), Overcoming sparsity artifacts in
    crosscoders to interpret chat-tuning, arXiv:2504.02922.
    """

    sizes: tuple[int, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        checked_sizes(self.sizes)
        if len(self.scales) != len(self.sizes) or not all(0 < scale < math.inf for scale in self.scales):
            raise ValueError(f"the blocks of sizes {self.sizes} have no scales {self.scales}")

    @classmethod
    def one(cls, n_features: int) -> FeatureBlocks:
        """Return the single block of a plain autoencoder."""
        return cls((n_features,), (1.0,))

    @classmethod
    def of(cls, rows: Rows, sizes: Sequence[int] | None, device: torch.device) -> FeatureBlocks:
        """Return the blocks of rows with their scales; one block as the rows are, where no sizes are given."""
        if sizes is None:
            return cls.one(rows.shape[1])
        scales = [Scaling.of(rows, rows.dtype, device, columns).scale for columns in columns_of(sizes)]
        return cls(tuple(sizes), tuple(scales))

    @property
    def columns(self) -> list[slice]:
        """The features of each block."""
        return columns_of(self.sizes)

    @property
    def units(self) -> Tensor | None:
        """The scale of each feature, (n_features,), float64; None where all are 1."""
        if len(self.sizes) == 1:
            return None
        return torch.tensor(self.scales, dtype=torch.float64).repeat_interleave(torch.tensor(self.sizes))

    def in_data_units(self, rows: Any) -> Any:
        """Return what the model computes, an array, in the units of the data."""
        return rows if self.units is None else rows * self.units.numpy()

    def norms(self, atoms: Tensor) -> Tensor:
        """Return the norm of each block of each atom, (n_components, n_blocks)."""
        return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in self._parts(atoms)], dim=1)

    def shares(self, atoms: Any) -> Any:
        """Return the share of each block in the norm of each atom, (n_components, n_blocks), from ``components_``."""
        norms = self.norms(torch.as_tensor(atoms))
        return (norms / norms.sum(1, keepdim=True)).numpy()

    def norm(self, atoms: Tensor) -> Tensor:
        """Return the norm of each atom, the sum of the norms of its blocks, (n_components, 1)."""
        return self.norms(atoms).sum(1, keepdim=True)

    def slope(self, atoms: Tensor) -> Tensor:
        """Return the gradient of the norm at atoms of norm 1: each block over its norm, zeros where it is zero."""
        if len(self.sizes) == 1:
            return atoms
        norms = [torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in self._parts(atoms)]
        parts = zip(self._parts(atoms), norms, strict=True)
        return torch.cat([part / torch.where(norm > 0, norm, 1.0) for part, norm in parts], dim=1)

    def _parts(self, atoms: Tensor) -> list[Tensor]:
        return [atoms[:, columns] for columns in self.columns]


def columns_of(sizes: Sequence[int]) -> list[slice]:
    """Return the features of each of the blocks side by side."""
    return [slice(*edge) for edge in pairwise(accumulate(sizes, initial=0))]


def checked_sizes(sizes: Any) -> tuple[int, ...] | None:
    """Return the sizes of blocks as a tuple, or raise ValueError unless they are positive whole numbers."""
    if sizes is None:
        return None
    is_sequence = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not is_sequence or not sizes or not all(map(is_count, sizes)):
        raise ValueError(f"blocks must be a list of positive whole numbers, the features of each, got {sizes!r}")
    return tuple(int(n) for n in sizes)
