"""Selections in x W^T + b from a product of rounded factors, and from exact entries where rounding leaves a doubt.

A CPU with instructions for bfloat16 multiplies factors rounded to it at least twice as fast as float32. With x + dx and
w + dw in place of x and w, the error of a product is <dx, w + dw> + <x, dw>, at most ||dx|| ||w + dw|| + ||x|| ||dw||,
and these norms are known. These bounds leave few more entries than the rule selects; such entries are computed in
float32, and the rule selects from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.kernels.sparse import Pattern, row_dots
from proxsae.kernels.top_k import FEW_ROWS, ROOM, Largest, Outside, Rule, kept, packed

LARGE = 1024  # atoms from which it is worth it, with as many rows of as many features
MOST = 1 / 16  # share of the entries that may be in doubt: an exact entry costs several times as much
WITHIN = 1e-10, 1e10  # norms whose products neither overflow nor vanish in bfloat16
FLOAT32 = 2.0**-22  # four times what a float32 sum may round, an addend: the product and the exact entries are sums
ROOM_FOR_SUMS = 1.001  # for what norms round


@cache
def _multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products, and Torch uses them."""
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    has_instructions = any(features.get(name) for name in ("avx512bf16", "amx-bf16"))
    return has_instructions and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Rounded:
    """Rows of float32 numbers rounded to bfloat16.

    Attributes
    ----------
    bits : Tensor of shape (n, d), bfloat16
    sizes, losses : arrays of shape (n,)
        Norms of the rows, and of their rounding errors.
    """

    bits: Tensor
    sizes: Any
    losses: Any

    @classmethod
    def of(cls, A: Tensor) -> Rounded:
        """Round the rows of a matrix in main memory."""
        from proxsae.kernels.compiled_screening import to_bfloat16

        bits = np.empty(A.shape, np.uint16)
        sizes, losses = np.empty((2, len(A)), np.float32)
        to_bfloat16(A.detach().contiguous().numpy(), bits, sizes, losses)
        return cls(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16), sizes, losses)

    @property
    def are_within(self) -> Any:
        """A mask of the rows whose norms neither overflow nor vanish."""
        return (self.sizes == 0) | ((self.sizes >= WITHIN[0]) & (self.sizes <= WITHIN[1]))


class Screen:
    """A rule of selection for x W^T + b, as a function of x.

    Parameters
    ----------
    weight : Tensor of shape (p, d)
    bias : Tensor of shape (p,) or None
    rule : Largest or Outside
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rule: Largest | Outside) -> None:
        self.weight = weight.detach()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.rule = rule
        self.ends = [np.asarray(end, np.float32) for end in (rule.low, rule.high)] if isinstance(rule, Outside) else []
        self.rounded = Rounded.of(weight)
        sizes, losses = self.rounded.sizes, self.rounded.losses
        self.of_columns = np.float32(ROOM_FOR_SUMS) * np.stack([sizes + losses, losses])

    def __call__(self, x: Tensor) -> tuple[Pattern, Tensor]:
        """Return the pattern of the selected entries, and these entries."""
        near = self.near(x)
        entries = row_dots(near, x, self.weight) + self.bias[near.indices]
        offsets, numbers = self._among(near, entries)
        return Pattern(offsets, near.indices[numbers], n_columns=near.n_columns), entries[numbers]

    def near(self, x: Tensor) -> Pattern:
        """Return the pattern of the entries that the rule may select."""
        from proxsae.kernels.compiled_screening import near_largest, near_outside, write_near

        n, p = len(x), len(self.weight)
        rounded = Rounded.of(x)
        losses = np.float32(ROOM_FOR_SUMS) * rounded.losses + np.float32(x.shape[1] * FLOAT32) * rounded.sizes
        of_rows = np.stack([rounded.sizes, np.where(rounded.are_within, losses, np.float32(np.inf))])
        product = torch.mm(rounded.bits, self.rounded.bits.T).view(torch.int16).numpy().view(np.uint16)
        given = product, self.bias.numpy(), of_rows, self.of_columns
        held, counts = np.empty((n, min(p, ROOM // n)), np.int32), np.empty(n, np.int64)
        if isinstance(self.rule, Largest):
            near_largest(*given, self.rule.k, np.float32(self.rule.mirror), held, counts)
        else:
            near_outside(*given, *self.ends, held, counts)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        indices = np.empty(offsets[-1], np.int64)
        write_near(held, p, offsets, indices)
        return Pattern(torch.from_numpy(offsets), torch.from_numpy(indices), n_columns=p)

    def _among(self, near: Pattern, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offsets and the numbers of the entries that the rule selects among those given."""
        if isinstance(self.rule, Outside):
            low, high = (torch.from_numpy(end)[near.indices] for end in self.ends)
            return kept(near.offsets, torch.arange(len(entries)), (entries > high) | (entries < low))
        from proxsae.kernels.compiled_screening import largest_among

        k, mirror = min(self.rule.k, near.n_columns), np.float32(self.rule.mirror)
        held, counts = np.empty((near.n_rows, k), np.int64), np.empty(near.n_rows, np.int64)
        largest_among(near.offsets.numpy(), entries.numpy(), k, mirror, held, counts)
        offsets, numbers = packed(held, counts)
        return torch.from_numpy(offsets), torch.from_numpy(numbers)


def screen_for(x: Tensor, weight: Tensor, bias: Tensor | None, rule: Rule) -> Screen | None:
    """Return a screen where it is faster than the product in float32: on some CPUs, where few entries are in doubt."""
    p, is_float32 = len(weight), x.dtype == weight.dtype == torch.float32
    if (
        not isinstance(rule, Largest | Outside)
        or x.device.type != "cpu"
        or not is_float32
        or not _multiplies_bfloat16()
    ):
        return None
    if p < LARGE or x.numel() < LARGE**2 or (isinstance(rule, Largest) and not 0 < rule.k <= 0.5 * MOST * p):
        return None
    screen = Screen(weight, bias, rule)
    few = x[:: max(1, len(x) // FEW_ROWS)]
    is_worth_it = bool(screen.rounded.are_within.all()) and len(screen.near(few).indices) <= MOST * len(few) * p
    return screen if is_worth_it else None
