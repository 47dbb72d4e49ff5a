"""Sparse codes: the non-zeros of an (n_samples, n_components) matrix, with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from proxsae.kernels.sparse import Pattern, Product
from proxsae.kernels.top_k import pattern_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Codes:
    """Codes as a pattern and the values there; some of the values may be zero."""

    pattern: Pattern
    values: Tensor

    @classmethod
    def of_dense(cls, Z: Tensor) -> Codes:
        """Return the non-zeros of a matrix, with gradients."""
        pattern = Pattern(*pattern_of(Z != 0), n_columns=Z.shape[1])
        return cls(pattern, pattern.gather(Z))

    @classmethod
    def of_csr(cls, Z: Any) -> Codes:
        """Return the entries of a SciPy CSR matrix."""
        offsets, indices = (torch.from_numpy(part.astype("int64")) for part in (Z.indptr, Z.indices))
        return cls(Pattern(offsets, indices, Z.shape[1]), torch.from_numpy(Z.data))

    def decode(self, atoms: Tensor) -> Tensor:
        """Return Z D of shape (n_samples, n_features)."""
        result: Tensor = Product.apply(self.pattern, self.values, atoms)  # type: ignore[no-untyped-call]
        return result

    def at(self, pattern: Pattern) -> Tensor:
        """Return the entries at another pattern, zeros included."""
        keys = torch.cat([self.pattern.keys, self.pattern.keys.new_full((1,), -1)])  # missing entries are at the end
        values = torch.cat([self.values, self.values.new_zeros(1)])
        place = torch.searchsorted(self.pattern.keys, pattern.keys)
        return values[torch.where(keys[place] == pattern.keys, place, len(self.values))]

    @property
    def l0(self) -> Tensor:
        """The number of non-zeros of each sample."""
        return self.pattern.sums((self.values != 0).int())

    @property
    def active_atoms(self) -> Tensor:
        """A boolean (n_components,) tensor: which atoms some sample uses."""
        counts = torch.zeros(self.pattern.n_columns, dtype=torch.int32, device=self.values.device)
        return counts.index_add_(0, self.pattern.indices, (self.values != 0).int()) > 0

    def to_dense(self) -> Tensor:
        """Return the (n_samples, n_components) matrix."""
        Z = self.values.new_zeros(self.pattern.n_rows, self.pattern.n_columns)
        return Z.index_put((self.pattern.rows, self.pattern.indices), self.values)

    def to_csr(self) -> csr_matrix:
        """Return the codes as a SciPy CSR matrix without stored zeros."""
        import numpy as np
        from scipy.sparse import csr_matrix

        tensors = (self.values, self.pattern.indices, self.pattern.offsets)
        values, *pattern = (tensor.detach().cpu().numpy() for tensor in tensors)
        smallest = np.int32 if max(len(values), self.pattern.n_columns) < 2**31 else np.int64
        indices, offsets = (part.astype(smallest) for part in pattern)
        # a copy of the values, since zeros are then squeezed out in place
        csr = csr_matrix((values.copy(), indices, offsets), shape=(self.pattern.n_rows, self.pattern.n_columns))
        csr.eliminate_zeros()
        return csr
