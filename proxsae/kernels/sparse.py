"""Products with sparse codes, of which only the pattern (offsets, indices) and the values are stored. Torch tensors.

Codes Z are (n, p) with the entries of row i at ``offsets[i]:offsets[i+1]``. Each product has a plain version, in torch
operations for any device, a compiled one for main memory and one in Triton for CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from proxsae.kernels.dispatch import on_cuda
from proxsae.kernels.memory import empty


@dataclass(frozen=True)
class Pattern:
    """The positions of the non-zeros of an (n, n_columns) code matrix."""

    offsets: Tensor
    indices: Tensor
    n_columns: int

    @classmethod
    def of_counts(cls, counts: Tensor, indices: Tensor, n_columns: int) -> Pattern:
        """Return the pattern with so many entries in each row."""
        return cls(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), indices, n_columns)

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    @cached_property
    def rows(self) -> Tensor:
        """The row of each entry."""
        counts = self.offsets.diff()
        rows = torch.arange(self.n_rows, device=counts.device)
        return torch.repeat_interleave(rows, counts, output_size=len(self.indices))  # the size known, nothing waits

    @cached_property
    def keys(self) -> Tensor:
        """The flat index of each entry in the matrix, row by row, ascending."""
        return self.rows * self.n_columns + self.indices

    @cached_property
    def by_column(self) -> tuple[Any, Any, Any]:
        """Column offsets, entries sorted by column, and their rows, shared by all products with this pattern.

        NumPy arrays in main memory, tensors on CUDA.
        """
        if on_cuda(self.indices):
            from proxsae.kernels.triton_sparse import columns_of as columns_on_cuda

            return columns_on_cuda(self.rows, self.indices, self.n_columns)
        from proxsae.kernels.compiled_sparse import columns_of

        return columns_of(self.offsets.numpy(), self.indices.numpy(), self.n_columns)  # type: ignore[no-any-return]

    def gather(self, U: Tensor) -> Tensor:
        """Return the entries of a dense (n, n_columns) matrix at the pattern."""
        needs_graph = U.requires_grad and torch.is_grad_enabled()
        if needs_graph or U.device.type != "cpu" or U.dtype not in (torch.float32, torch.float64):
            return U[self.rows, self.indices]
        from proxsae.kernels.compiled_sparse import gather

        out = U.new_empty(len(self.indices))
        gather(*(a.detach().numpy() for a in (self.offsets, self.indices, U, out)))
        return out

    def sums(self, values: Tensor) -> Tensor:
        """Return the sums over the entries of each row, of one value an entry; (n,)."""
        return values.new_zeros(self.n_rows).index_add(0, self.rows, values)


def joined(patterns: list[Pattern]) -> Pattern:
    """Return the pattern of matrices one below another."""
    counts = torch.cat([pattern.offsets.diff() for pattern in patterns])
    return Pattern.of_counts(counts, torch.cat([pattern.indices for pattern in patterns]), patterns[0].n_columns)


def product(pattern: Pattern, values: Tensor, D: Tensor) -> Tensor:
    """Return Z D of shape (n, d)."""
    if on_cuda(D):
        from proxsae.kernels.triton_sparse import product as on_device

        return on_device(pattern.offsets, pattern.indices, values.detach(), D.detach())
    return torch.nn.functional.embedding_bag(
        pattern.indices, D, pattern.offsets, per_sample_weights=values, mode="sum", include_last_offset=True
    )


def row_dots(pattern: Pattern, G: Tensor, D: Tensor) -> Tensor:
    """Return <G_i, D_j> for every entry (i, j) of the pattern: the gradient of the values of Z D."""
    if on_cuda(G):
        from proxsae.kernels.triton_sparse import row_dots as on_device

        return on_device(pattern.offsets, pattern.indices, G, D.detach())
    if G.device.type != "cpu":
        return row_dots_plain(pattern, G, D)
    from proxsae.kernels.compiled_sparse import row_dots as compiled

    out = torch.empty(len(pattern.indices), dtype=G.dtype)
    arguments = (pattern.offsets, pattern.indices, G.contiguous(), D.detach().contiguous(), out)
    compiled(*(a.numpy() for a in arguments))
    return out


def row_dots_plain(pattern: Pattern, G: Tensor, D: Tensor) -> Tensor:
    """Return :func:`row_dots` by torch operations, in chunks of bounded memory."""
    chunk = max(1, 2**26 // max(1, G.shape[1]))
    parts = [
        (G[rows] * D[indices]).sum(-1)
        for rows, indices in zip(torch.split(pattern.rows, chunk), torch.split(pattern.indices, chunk), strict=True)
    ]
    return torch.cat(parts) if parts else G.new_zeros(0)


def transposed_product(pattern: Pattern, values: Tensor, G: Tensor) -> Tensor:
    """Return Z^T G of shape (n_columns, d): the gradient of D in Z D."""
    if on_cuda(G):
        from proxsae.kernels.triton_sparse import transposed_product as on_device

        offsets, entries, rows = pattern.by_column
        return on_device(offsets, rows, entries, values, G)
    if G.device.type != "cpu":
        return transposed_product_plain(pattern, values, G)
    from proxsae.kernels.compiled_sparse import SLAB, to_slabs
    from proxsae.kernels.compiled_sparse import transposed_product as compiled

    offsets, entries, rows = pattern.by_column
    slabs = empty(-(-G.shape[1] // SLAB), len(G), SLAB, dtype=G.dtype)
    to_slabs(G.contiguous().numpy(), slabs.numpy())
    out = empty(pattern.n_columns, G.shape[1], dtype=G.dtype)
    compiled(offsets, rows, values.numpy()[entries], slabs.numpy(), out.numpy())
    return out


def transposed_product_plain(pattern: Pattern, values: Tensor, G: Tensor) -> Tensor:
    """Return :func:`transposed_product` by a sparse matrix product of torch."""
    where = torch.stack([pattern.indices, pattern.rows])
    Z_T = torch.sparse_coo_tensor(where, values, (pattern.n_columns, pattern.n_rows), check_invariants=False)
    result: Tensor = torch.sparse.mm(Z_T, G)
    return result


def pairs(left: Pattern, right: Pattern) -> tuple[Tensor, Tensor]:
    """Return every pair of an entry of one pattern and an entry of the other in the same row, by their numbers."""
    counts, first = right.offsets.diff()[left.rows], right.offsets[left.rows]
    before = counts.cumsum(0) - counts
    of_left = torch.repeat_interleave(torch.arange(len(left.indices), device=counts.device), counts)
    within = torch.arange(len(of_left), device=counts.device) - before[of_left]
    return of_left, first[of_left] + within


def product_at(at: Pattern, pattern: Pattern, values: Tensor, S: Tensor) -> Tensor:
    """Return the entries of Z S at another pattern, with gradients: a pair of entries a multiplication."""
    left, right = pairs(pattern, at)
    weights = S.reshape(-1).index_select(0, pattern.indices[left] * S.shape[1] + at.indices[right])
    return values.new_zeros(len(at.indices)).index_add(0, right, values[left] * weights)


class LinearAt(torch.autograd.Function):
    """The entries of x W^T + b at a pattern, with gradients that never fill the matrix.

    The values come in as `entries`, gathered from a dense product without graph.
    """

    @staticmethod
    def forward(ctx: Any, pattern: Pattern, entries: Tensor, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:  # noqa: ARG004
        """Return the entries."""
        ctx.pattern = pattern
        ctx.save_for_backward(x, W)
        return entries.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, W and b."""
        (gradient,) = gradients
        x, W = ctx.saved_tensors
        for_x = product(ctx.pattern, gradient, W) if ctx.needs_input_grad[2] else None
        for_W = transposed_product(ctx.pattern, gradient, x) if ctx.needs_input_grad[3] else None
        needs_b = ctx.needs_input_grad[4]
        for_b = torch.zeros_like(W[:, 0]).index_add_(0, ctx.pattern.indices, gradient) if needs_b else None
        return None, None, for_x, for_W, for_b


class Product(torch.autograd.Function):
    """Z D for sparse codes Z, with sparse gradients for the values and the transposed product for D."""

    @staticmethod
    def forward(ctx: Any, pattern: Pattern, values: Tensor, D: Tensor) -> Tensor:
        """Return Z D."""
        ctx.pattern = pattern
        ctx.save_for_backward(values, D)
        return product(pattern, values, D)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the values and of D."""
        (gradient,) = gradients
        values, D = ctx.saved_tensors
        for_values = row_dots(ctx.pattern, gradient, D) if ctx.needs_input_grad[1] else None
        for_D = transposed_product(ctx.pattern, values, gradient) if ctx.needs_input_grad[2] else None
        return None, for_values, for_D
