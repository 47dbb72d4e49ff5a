"""Sites: the places in a decoder whose activations can be read and replaced.

A site is written as a short text, or a number for the residual stream:

==============================  ==========================================================================
``"block.15"``, or just ``15``  the residual stream after 15 blocks: what block number 15, counted from 1, returns
``"embed"``                     the residual stream before the first block
``"attn_out.15"``               what the attention module of block number 15 returns
``"mlp_out.15"``                what the MLP of block number 15 returns
==============================  ==========================================================================

``"block.15"`` is ``hidden_states[15]`` of transformers and ``blocks.14.hook_resid_post`` of TransformerLens, which
counts from 0. The last one is the stream before the final norm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

# how the parts of a block are called by the decoders of transformers
_PARTS = {
    "attn_out": ("self_attn", "attn", "attention", "self_attention"),
    "mlp_out": ("mlp", "feed_forward", "ffn", "block_sparse_moe"),
}
_TEXT = re.compile(r"(block|attn_out|mlp_out)\.(\d{1,6})")


@dataclass(frozen=True)
class Site:
    """A place in a decoder.

    Parameters
    ----------
    block : int
        Number of a block, counted from 1; 0 is what enters the first.
    what : {"residual", "attn_out", "mlp_out"}, default="residual"
        The residual stream after that block, or what a part of that block returns.
    """

    block: int
    what: str = "residual"

    @classmethod
    def of(cls, given: Site | int | str) -> Site:
        """Return the site that a number or a text names.

        Raises
        ------
        ValueError
            If it names none.
        """
        if isinstance(given, Site):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return cls(given)
        if isinstance(given, str):
            if given == "embed":
                return cls(0)
            if given.isdecimal() and len(given) <= 6:
                return cls(int(given))
            if match := _TEXT.fullmatch(given):
                what, number = match.groups()
                return cls(int(number), "residual" if what == "block" else what)
        raise ValueError(
            f"block={given!r} names no place in a model; allowed are a number of blocks such as 15, 'block.15' (the "
            "same), 'attn_out.15', 'mlp_out.15' and 'embed'."
        )

    def __str__(self) -> str:
        if self.what == "residual":
            return f"block.{self.block}" if self.block else "embed"
        return f"{self.what}.{self.block}"

    def check(self, n_blocks: int, name: str) -> None:
        """Raise ValueError unless a model of so many blocks has this site."""
        least = 0 if self.what == "residual" else 1
        if self.what not in ("residual", *_PARTS) or not least <= self.block <= n_blocks:
            raise ValueError(
                f"block={str(self)!r} was given, but {name} has {n_blocks} blocks, numbered from 1 to {n_blocks}."
            )

    def module(self, blocks: nn.ModuleList) -> nn.Module:
        """Return the module that returns the activations; of "embed" the first block, which takes them.

        Raises
        ------
        ValueError
            If the block has no part of a known name.
        """
        block = blocks[max(self.block, 1) - 1]
        if self.what == "residual":
            return block
        for name in _PARTS[self.what]:
            if isinstance(part := getattr(block, name, None), nn.Module):
                return part
        parts = ", ".join(name for name, _ in block.named_children())
        raise ValueError(
            f"block={str(self)!r} was given, but a {type(block).__name__} has no part called "
            f"{' or '.join(_PARTS[self.what])}; its parts are {parts}."
        )
