"""The k largest entries of each row on a CUDA device: the maxima of chunks first, then only chunks that can matter.

The k-th largest maximum of a chunk is a bound that at least k entries reach, and hardly more than k chunks reach it.
After one pass over the matrix, k chunks of 64 entries are read in place of the whole row, and the few entries in them
that reach the bound are compared. Where k is too large a part of a row, or too large for one program, Torch selects.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_CHUNKS = 16
BLOCK = 2048  # entries of a row at once where all are looked at
MOST_HELD = 2**14  # entries of chunks in one program: more do not fit into its registers


def select_in_rows(U: Tensor, k: int, mirror: float) -> Tensor:
    """Return the columns, ascending, of the k entries of largest max(u, mirror u) of each row: (n, k), int64.

    Among equals the lowest column. Where a row has fewer than k positive ranks, the lowest columns of rank <= 0 fill
    the rest: their prox is 0. The device is not waited for.

    Parameters
    ----------
    U : Tensor of shape (n, p)
        float32, float16 or bfloat16.
    k : int
        From 1 to p.
    mirror : {-1.0, 1.0}
        The rank is the modulus for -1 and the entry itself for 1.
    """
    n, p = U.shape
    if k >= p:
        return torch.arange(p, device=U.device).repeat(n, 1)
    chunk = 64 if p >= 128 * k else 16
    n_chunks = triton.cdiv(p, chunk)
    held = max(16, triton.next_power_of_2(2 * k))
    if n_chunks < 2 * k or held * chunk > MOST_HELD:
        return _select_by_keys(U, k, mirror)
    U = U.contiguous()
    maxima = torch.empty(n, n_chunks, dtype=torch.int32, device=U.device)
    chunks = torch.empty(n, held, dtype=torch.int32, device=U.device)
    candidates = torch.empty(n, held, 2, dtype=torch.int32, device=U.device)
    bounds, counts = torch.empty(2, n, dtype=torch.int32, device=U.device)
    indices = torch.empty(n, k, dtype=torch.int64, device=U.device)
    signed = mirror == -1
    _chunk_maxima[(n, triton.cdiv(n_chunks, BLOCK_CHUNKS))](
        U, maxima, p, n_chunks, SIGNED=signed, CHUNK=chunk, BLOCK_CHUNKS=BLOCK_CHUNKS
    )
    _hold_chunks[(n,)](maxima, chunks, bounds, counts, n_chunks, k, HELD=held, WIDTH=triton.next_power_of_2(n_chunks))
    _hold_candidates[(n,)](
        U, chunks, bounds, counts, candidates, p, SIGNED=signed, HELD=held, CHUNK=chunk, num_warps=8 if held > 64 else 4
    )
    _select_candidates[(n,)](candidates, counts, indices, k, HELD=held, num_warps=2)
    _select_in_whole_rows[(n,)](U, counts, indices, p, k, SIGNED=signed, HELD=held, BLOCK=BLOCK)
    return indices


def _select_by_keys(U: Tensor, k: int, mirror: float) -> Tensor:
    """Return the same columns by Torch, from keys that differ within a row: the bits of the rank, then the column."""
    p = U.shape[1]
    ranks = (U.abs() if mirror == -1 else U).float()
    bits = torch.where(ranks > 0, ranks, 0.0).view(torch.int32).long()
    keys = (bits << 32) + torch.arange(p - 1, -1, -1, device=U.device)
    return keys.topk(k, dim=1, sorted=False).indices.sort(dim=1).values


@triton.jit
def _keys(u, SIGNED: tl.constexpr):
    """Return integers in the order of the ranks, 0 where not positive: floats > 0 compare as their bits."""
    rank = u.to(tl.float32)
    if SIGNED:
        rank = tl.abs(rank)
    return tl.where(rank > 0, rank.to(tl.int32, bitcast=True), 0)


@triton.jit
def _kth_largest(keys, k):
    """Return the largest t >= 0 that k keys reach, bit by bit; 0 where fewer than k are positive."""
    t = 0
    for i in range(31):
        higher = t | (1 << (30 - i))
        reached = tl.sum((keys >= higher).to(tl.int32))
        t = tl.where(reached >= k, higher, t)
    return t


@triton.jit
def _chunk_maxima(
    U,
    maxima,
    n_columns,
    n_chunks,
    SIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1) * BLOCK_CHUNKS + tl.arange(0, BLOCK_CHUNKS)
    column = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    u = tl.load(U + row * n_columns + column, mask=column < n_columns, other=0.0)
    tl.store(maxima + row * n_chunks + chunk, tl.max(_keys(u, SIGNED), 1), mask=chunk < n_chunks)


@triton.jit
def _hold_chunks(
    maxima,
    chunks,
    bounds,
    counts,
    n_chunks,
    k,
    HELD: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the k-th largest maximum, the chunks that reach it, HELD at most, and their number."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, WIDTH)
    largest = tl.load(maxima + row * n_chunks + chunk, mask=chunk < n_chunks, other=-1)
    bound = _kth_largest(largest, k)
    reaches = largest >= bound
    position = tl.cumsum(reaches.to(tl.int32), 0) - 1
    tl.store(chunks + row * HELD + position, chunk, mask=reaches & (position < HELD))
    tl.store(bounds + row, bound)
    tl.store(counts + row, tl.sum(reaches.to(tl.int32)))


@triton.jit
def _hold_candidates(
    U,
    chunks,
    bounds,
    counts,
    candidates,
    n_columns,
    SIGNED: tl.constexpr,
    HELD: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Write key and column of the entries that reach the bound, and their number in place of that of the chunks."""
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + row)
    if count <= HELD:
        slot = tl.arange(0, HELD)
        chunk = tl.load(chunks + row * HELD + slot, mask=slot < count, other=0)
        column = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
        there = (slot < count)[:, None] & (column < n_columns)
        u = tl.load(U + row * n_columns + column, mask=there, other=0.0)
        keys = tl.where(there, _keys(u, SIGNED), -1)
        reaches = (keys >= tl.load(bounds + row)).to(tl.int32)
        in_chunk = tl.sum(reaches, 1)
        before = tl.cumsum(in_chunk, 0) - in_chunk
        position = before[:, None] + tl.cumsum(reaches, 1) - 1
        to = candidates + (row * HELD + position) * 2
        fits = (reaches > 0) & (position < HELD)
        tl.store(to, keys, mask=fits)
        tl.store(to + 1, column, mask=fits)
        tl.store(counts + row, tl.sum(in_chunk))


@triton.jit
def _select_candidates(candidates, counts, indices, k, HELD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + row)
    if count <= HELD:
        slot = tl.arange(0, HELD)
        at = candidates + (row * HELD + slot) * 2
        keys = tl.load(at, mask=slot < count, other=-1)
        column = tl.load(at + 1, mask=slot < count, other=0)
        threshold = _kth_largest(keys, k)
        room = k - tl.sum((keys > threshold).to(tl.int32))
        tied = keys == threshold
        keep = (keys > threshold) | (tied & (tl.cumsum(tied.to(tl.int32), 0) <= room))
        position = tl.cumsum(keep.to(tl.int32), 0) - 1
        tl.store(indices + row * k + position, column.to(tl.int64), mask=keep)


@triton.jit
def _select_in_whole_rows(
    U,
    counts,
    indices,
    n_columns: tl.constexpr,
    k,
    SIGNED: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Select in rows with too many candidates to hold: ties, or too few positive entries. Slow, and rarely needed."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(counts + row) > HELD:
        entry = tl.arange(0, BLOCK)
        threshold = 0
        for i in range(31):
            higher = threshold | (1 << (30 - i))
            reached = 0
            for start in range(0, n_columns, BLOCK):
                there = start + entry < n_columns
                u = tl.load(U + row * n_columns + start + entry, mask=there, other=0.0)
                reached += tl.sum((_keys(u, SIGNED) >= higher).to(tl.int32))
            threshold = tl.where(reached >= k, higher, threshold)
        above = 0
        for start in range(0, n_columns, BLOCK):
            u = tl.load(U + row * n_columns + start + entry, mask=start + entry < n_columns, other=0.0)
            above += tl.sum((_keys(u, SIGNED) > threshold).to(tl.int32))
        tied_before = 0
        written = 0
        for start in range(0, n_columns, BLOCK):
            there = start + entry < n_columns
            u = tl.load(U + row * n_columns + start + entry, mask=there, other=0.0)
            keys = tl.where(there, _keys(u, SIGNED), -1)
            tied = (keys == threshold).to(tl.int32)
            keep = (keys > threshold) | ((tied > 0) & (tied_before + tl.cumsum(tied, 0) <= k - above))
            position = written + tl.cumsum(keep.to(tl.int32), 0) - 1
            tl.store(indices + row * k + position, (start + entry).to(tl.int64), mask=keep)
            tied_before += tl.sum(tied)
            written += tl.sum(keep.to(tl.int32))
