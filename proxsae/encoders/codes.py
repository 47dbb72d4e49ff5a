"""Sparse codes: the non-zeros of an (n_samples, n_components) matrix, with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from proxsae.kernels.sparse import Pattern, Product

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Codes:
    """Codes as a pattern and the values there; some of the values may be zero."""

    pattern: Pattern
    values: Tensor

    def decode(self, atoms: Tensor) -> Tensor:
        """Return Z D of shape (n_samples, n_features)."""
        result: Tensor = Product.apply(self.pattern, self.values, atoms)  # type: ignore[no-untyped-call]
        return result

    @property
    def mean_l0(self) -> float:
        """The mean number of non-zeros a sample."""
        return float((self.values != 0).sum()) / max(1, self.pattern.n_rows)

    @property
    def active_atoms(self) -> Tensor:
        """A boolean (n_components,) tensor: which atoms some sample uses."""
        used = self.pattern.indices[self.values != 0]
        return torch.bincount(used, minlength=self.pattern.n_columns) > 0

    def to_csr(self) -> csr_matrix:
        """Return the codes as a SciPy CSR matrix without stored zeros."""
        import numpy as np
        from scipy.sparse import csr_matrix

        parts: list[Any] = [
            part.detach().cpu().numpy() for part in (self.values, self.pattern.indices, self.pattern.offsets)
        ]
        smallest = np.int32 if max(len(parts[0]), self.pattern.n_columns) < 2**31 else np.int64
        parts[1:] = [part.astype(smallest) for part in parts[1:]]
        csr = csr_matrix(tuple(parts), shape=(self.pattern.n_rows, self.pattern.n_columns))
        csr.eliminate_zeros()
        return csr
