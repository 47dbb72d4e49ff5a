"""Products with sparse codes on a CUDA device, from (offsets, indices, values) alone: no n x k x d or n x p tensor.

Sums run in float32 (float64 for float64), in an order that the pattern fixes: the same input gives the same bits.
A kernel reads memory row after row, so that each function copies tensors that are not contiguous.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ENTRIES = 8  # rows of a matrix fetched at once, to keep enough loads in flight


def product(offsets: Tensor, indices: Tensor, values: Tensor, D: Tensor) -> Tensor:
    """Return Z D of shape (n, d), in the dtype of D."""
    n, d = len(offsets) - 1, D.shape[1]
    out = torch.empty(n, d, dtype=D.dtype, device=D.device)
    block = _block(d)
    offsets, indices, values, D = (a.contiguous() for a in (offsets, indices, values, D))
    _sum_rows[(n, triton.cdiv(d, block))](
        offsets, indices, indices, values, D, out, d, INDIRECT=False, WIDE=_wide(D), ENTRIES=ENTRIES, BLOCK=block
    )
    return out


def transposed_product(offsets: Tensor, rows: Tensor, entries: Tensor, values: Tensor, G: Tensor) -> Tensor:
    """Return Z^T G of shape (p, d), in the dtype of G, for codes given by columns, see :func:`columns_of`."""
    p, d = len(offsets) - 1, G.shape[1]
    out = torch.empty(p, d, dtype=G.dtype, device=G.device)
    block = _block(d)
    offsets, rows, entries, values, G = (a.contiguous() for a in (offsets, rows, entries, values, G))
    _sum_rows[(p, triton.cdiv(d, block))](
        offsets, rows, entries, values, G, out, d, INDIRECT=True, WIDE=_wide(G), ENTRIES=ENTRIES, BLOCK=block
    )
    return out


def row_dots(offsets: Tensor, indices: Tensor, G: Tensor, D: Tensor) -> Tensor:
    """Return <G_i, D_j> for every entry (i, j), in the dtype of G."""
    n, d = G.shape
    out = torch.empty(len(indices), dtype=G.dtype, device=G.device)
    offsets, indices, G, D = (a.contiguous() for a in (offsets, indices, G, D))
    if n:
        _dots[(n,)](offsets, indices, G, D, out, d, WIDE=_wide(G), ENTRIES=ENTRIES, BLOCK=_block(d))
    return out


def columns_of(rows: Tensor, indices: Tensor, n_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the column offsets, the entries sorted by column (stable), and the row of each."""
    columns, entries = torch.sort(indices.int(), stable=True)  # half the passes of 64 bits
    bounds = torch.arange(n_columns + 1, device=indices.device, dtype=torch.int32)
    return torch.searchsorted(columns, bounds), entries, rows[entries]


def _block(d: int) -> int:
    return int(min(512, max(16, triton.next_power_of_2(d))))


def _wide(a: Tensor) -> bool:
    return a.dtype == torch.float64


@triton.jit
def _sum_rows(
    offsets,
    which,
    entries,
    values,
    M,
    out,
    d,
    INDIRECT: tl.constexpr,
    WIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write out_i = sum_e v_e M[which_e] over the entries e of i; the value of e is at entries_e where INDIRECT."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = tl.load(offsets + i)
    stop = tl.load(offsets + i + 1)
    total = tl.zeros((BLOCK,), dtype=tl.float64 if WIDE else tl.float32)
    at = start
    while at < stop:
        e = at + tl.arange(0, ENTRIES)
        there = e < stop
        j = tl.load(which + e, mask=there, other=0)
        where = tl.load(entries + e, mask=there, other=0) if INDIRECT else e
        v = tl.load(values + where, mask=there, other=0.0)
        m = tl.load(M + j[:, None] * d + c[None, :], mask=there[:, None] & (c < d)[None, :], other=0.0)
        total += tl.sum(v[:, None].to(total.dtype) * m.to(total.dtype), 0)
        at += ENTRIES
    tl.store(out + i * d + c, total.to(out.dtype.element_ty), mask=c < d)


@triton.jit
def _dots(
    offsets,
    indices,
    G,
    D,
    out,
    d: tl.constexpr,
    WIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + i)
    stop = tl.load(offsets + i + 1)
    at = start
    while at < stop:
        e = at + tl.arange(0, ENTRIES)
        there = e < stop
        j = tl.load(indices + e, mask=there, other=0)
        total = tl.zeros((ENTRIES,), dtype=tl.float64 if WIDE else tl.float32)
        for begin in range(0, d, BLOCK):
            c = begin + tl.arange(0, BLOCK)
            g = tl.load(G + i * d + c, mask=c < d, other=0.0).to(total.dtype)
            atoms = tl.load(D + j[:, None] * d + c[None, :], mask=there[:, None] & (c < d)[None, :], other=0.0)
            total += tl.sum(g[None, :] * atoms.to(total.dtype), 1)
        tl.store(out + e, total.to(out.dtype.element_ty), mask=there)
        at += ENTRIES
