"""The argument u of a prox: block by block without graph for the selection, and with gradients at the codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from proxsae.encoders.codes import Codes
from proxsae.kernels.memory import empty
from proxsae.kernels.screening import screen_for
from proxsae.kernels.sparse import LinearAt, Pattern, joined, product, product_at, row_dots
from proxsae.kernels.top_k import Rule

BLOCK_SIZE = 2**23  # entries of a block of u: 32 MB in float32
Terms = tuple[tuple[float | Tensor, Codes], ...]  # codes with factors: their sum


@dataclass
class Columns:
    """The entries of u for some atoms and every `every`-th sample.

    They are copied from each block of u while it is in memory, for a loss that asks for them later.
    """

    atoms: Tensor
    every: int = 1
    u: Tensor | None = None


@dataclass(frozen=True)
class PreActivation:
    r"""u = x W^T + b_e + :math:`\sum_s c_s Z_s + \sum_s c'_s Z'_s S`, of shape (n_samples, n_components).

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_features)
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,) or None
        b_e.
    codes : tuple of (number or Tensor, Codes)
        c_s and Z_s: codes of earlier layers that u starts from.
    through : tuple of (number or Tensor, Codes)
        c'_s and Z'_s: codes of earlier layers that go through S.
    lateral : Tensor of shape (n_components, n_components) or None
        S.
    known : function without arguments, optional
        Returns x W^T without graph, where that is cheaper than the product.
    in_bfloat16 : bool
        Round the factors of x W^T, where no graph is needed, to bfloat16; the sums are float32.
    noted : Columns, optional
        The columns that :meth:`select` keeps where it computes u block by block.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    codes: Terms = ()
    through: Terms = ()
    lateral: Tensor | None = None
    known: Callable[[], Tensor] | None = None
    in_bfloat16: bool = False
    noted: Columns | None = None

    @cached_property
    @torch.no_grad()
    def without_graph(self) -> Tensor:
        """All entries."""
        if self.known is not None:
            u = self.known().clone() if self.bias is None else self.known() + self.bias
        elif self.in_bfloat16:
            u = in_bfloat16(self.x, self.weight, self.bias)
        else:
            u = torch.nn.functional.linear(self.x, self.weight, self.bias)
        for factor, Z in self.through:
            assert self.lateral is not None
            u = u + product(Z.pattern, factor * Z.values, self.lateral)
        for factor, Z in self.codes:
            u[Z.pattern.rows, Z.pattern.indices] += factor * Z.values
        return u

    def with_graph(self) -> Tensor:
        """Return all entries, with gradients."""
        u = torch.nn.functional.linear(self.x, self.weight, self.bias)
        for factor, Z in self.through:
            assert self.lateral is not None
            u = u + factor * Z.decode(self.lateral)
        for factor, Z in self.codes:
            u = u + factor * Z.to_dense()
        return u

    @torch.no_grad()
    def select(self, rule: Rule, *, by_rows: bool) -> tuple[Pattern, Tensor]:
        """Return the pattern that a rule gives for u, and the entries of u there, without graph.

        Parameters
        ----------
        rule : function of a Tensor of shape (n, n_components) that returns offsets and indices
        by_rows : bool
            Whether the rule treats each row by itself: in main memory u is then never held as a whole, and where a
            :class:`~proxsae.kernels.screening.Screen` is faster, not even a block of it.
        """
        if not by_rows or not self.is_in_blocks:
            pattern = Pattern(*rule(self.without_graph), n_columns=len(self.weight))
            return pattern, pattern.gather(self.without_graph)
        n, p, size = len(self.x), len(self.weight), self._block_length
        if (screen := screen_for(self.x, self.weight, self.bias, rule)) is not None:
            selected = [screen(x) for x in torch.split(self.x, size)]
            return joined([pattern for pattern, _ in selected]), torch.cat([entries for _, entries in selected])
        patterns, entries = [], []
        block = empty(size, p, dtype=self.x.dtype)
        if self.noted is not None:
            self.noted.u = empty(-(-n // self.noted.every), len(self.noted.atoms), dtype=self.x.dtype)
        for start, x in zip(range(0, n, size), torch.split(self.x, size), strict=True):
            u = block[: len(x)]
            if self.bias is None:
                torch.mm(x, self.weight.T, out=u)
            else:
                torch.addmm(self.bias, x, self.weight.T, out=u)
            patterns.append(Pattern(*rule(u), n_columns=p))
            entries.append(patterns[-1].gather(u))
            if self.noted is not None and self.noted.u is not None:
                first = -(-start // self.noted.every)  # of the samples looked at
                some = u[first * self.noted.every - start :: self.noted.every]
                torch.index_select(some, 1, self.noted.atoms, out=self.noted.u[first : first + len(some)])
        return joined(patterns), torch.cat(entries)

    @torch.no_grad()
    def columns(self, atoms: Tensor, every: int = 1) -> Tensor:
        """Return u of some atoms for every `every`-th sample, (ceil(n_samples / every), n_atoms), without graph."""
        if self._is_whole:
            return self.without_graph[::every, atoms]
        noted = self.noted
        if noted is not None and noted.u is not None and noted.every == every and torch.equal(noted.atoms, atoms):
            return noted.u
        bias = None if self.bias is None else self.bias[atoms]
        return torch.nn.functional.linear(self.x[::every], self.weight[atoms], bias)

    def at(self, pattern: Pattern, entries: Tensor | None = None) -> Tensor:
        """Return the entries at a pattern, with gradients that never fill the matrix.

        Parameters
        ----------
        pattern : Pattern
        entries : Tensor, optional
            The entries without graph, where they are known.
        """
        if entries is None:
            entries = self.entries(pattern)
        u: Tensor = LinearAt.apply(pattern, entries, self.x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        if not torch.is_grad_enabled():
            return u
        parts = [factor * Z.at(pattern) for factor, Z in self.codes]
        for factor, Z in self.through:
            assert self.lateral is not None
            parts.append(factor * product_at(pattern, Z.pattern, Z.values, self.lateral))
        for part in parts:
            u = u + (part - part.detach())  # the entries hold its value
        return u

    @property
    def is_in_blocks(self) -> bool:
        """Whether :meth:`select` by rows computes u block by block."""
        return not self._is_whole and not self.x.is_cuda and len(self.x) > self._block_length

    @property
    def _block_length(self) -> int:
        return max(256, BLOCK_SIZE // len(self.weight))

    @property
    def _is_whole(self) -> bool:
        """Whether u is used as a whole: it is there already, or it is more than one product of x and W."""
        is_product = self.known is None and not self.through and not self.codes and not self.in_bfloat16
        return "without_graph" in vars(self) or not is_product

    @torch.no_grad()
    def entries(self, pattern: Pattern) -> Tensor:
        """Return the entries at a pattern, without graph."""
        if self._is_whole:
            return pattern.gather(self.without_graph)
        entries = row_dots(pattern, self.x, self.weight)
        return entries if self.bias is None else entries + self.bias[pattern.indices]


def in_bfloat16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b_e in float32, with the factors of x W^T rounded to bfloat16.

    The bias goes through the same product as three columns that sum to it exactly, which spares a pass over the result.
    """
    if bias is None:
        return torch.mm(x.bfloat16(), weight.bfloat16().T, out_dtype=torch.float32)
    d = x.shape[1]
    wide = -(-(d + 3) // 8) * 8  # rows of 16 bytes
    left, right = (a.new_zeros(len(a), wide, dtype=torch.bfloat16) for a in (x, weight))
    left[:, :d], right[:, :d] = x, weight
    left[:, d : d + 3] = 1
    for i in range(3):
        right[:, d + i] = bias
        bias = bias - right[:, d + i]
    return torch.mm(left, right.T, out_dtype=torch.float32)
