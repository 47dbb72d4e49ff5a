"""Sites: the places in a decoder whose activations can be read and replaced.

A site is written as a short text, or a number for the residual stream:

==============================  ==========================================================================
``"block.15"``, or just ``15``  the residual stream after 15 blocks: what block number 15, counted from 1, returns
``"embed"``                     the residual stream before the first block
``"attn_out.15"``               what the attention module of block number 15 returns
``"mlp_in.15"``                 what its MLP takes: the stream behind the norm
``"mlp_hidden.15"``             the neurons of its MLP: what the last linear map in it takes
``"mlp_out.15"``                what its MLP returns
``"model.layers.14.mlp"``       what any module returns, by its path in the model; ``"in:model.layers.14.mlp"``
                                or ``"in:lm_head"`` what it takes
==============================  ==========================================================================

``"block.15"`` is ``hidden_states[15]`` of transformers and ``blocks.14.hook_resid_post`` of TransformerLens, which
counts from 0. It is the input of block 16. After the last block it is the stream before the final norm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

# names of the parts of a block in the decoders of transformers
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
_PARTS = {"attn_out": _ATTENTION, "mlp_in": _MLP, "mlp_hidden": _MLP, "mlp_out": _MLP}
_LAST_MAPS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "wo")  # of an MLP
_TEXT = re.compile(rf"(block|{'|'.join(_PARTS)})\.(\d{{1,6}})")
_PATH = re.compile(rf"(in:)?(?!(?:block|{'|'.join(_PARTS)})\.)\w+(?:\.\w+)+|in:\w+")


@dataclass(frozen=True)
class Site:
    """A place in a decoder.

    Parameters
    ----------
    block : int
        Number of a block, counted from 1; 0 is the input of the first block.
    what : {"residual", "attn_out", "mlp_in", "mlp_hidden", "mlp_out", "path"}, default="residual"
        The residual stream after that block, or what a part of that block takes or returns.
    path : str, default=""
        The path of any module, for "path"; ``in:`` before it stands for the input of the module.
    """

    block: int
    what: str = "residual"
    path: str = ""

    @classmethod
    def of(cls, given: Site | int | str) -> Site:
        """Return the site that a number or a text names.

        Raises
        ------
        ValueError
            If the number or text names no site.
        """
        if isinstance(given, Site):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return cls(given)
        if isinstance(given, str):
            if given == "embed":
                return cls(0)
            if re.fullmatch(r"-?\d{1,6}", given):
                return cls(int(given))
            if match := _TEXT.fullmatch(given):
                what, number = match.groups()
                return cls(int(number), "residual" if what == "block" else what)
            if _PATH.fullmatch(given):
                return cls(0, "path", given)
        raise ValueError(
            f"block={given!r} names no place in a model; allowed are a number of blocks such as 15, 'block.15' (the "
            f"same), {', '.join(repr(f'{part}.15') for part in _PARTS)}, 'embed', the path of a module with a dot in "
            "it, and 'in:lm_head', what a module at the top takes."
        )

    def __str__(self) -> str:
        if self.what == "path":
            return self.path
        if self.what == "residual":
            return f"block.{self.block}" if self.block else "embed"
        return f"{self.what}.{self.block}"

    @property
    def is_input(self) -> bool:
        """Whether the activations are what the module takes, not what it returns."""
        if self.what == "path":
            return self.path.startswith("in:")
        return self.what in ("mlp_in", "mlp_hidden") or (self.what == "residual" and self.block == 0)

    def check(self, n_blocks: int, name: str) -> None:
        """Raise ValueError unless a model of so many blocks has this site."""
        if self.what == "path":
            return
        least = 0 if self.what == "residual" else 1
        if self.what not in ("residual", *_PARTS) or not least <= self.block <= n_blocks:
            raise ValueError(
                f"block={str(self)!r} was given, but {name} has {n_blocks} blocks, numbered from 1 to {n_blocks}."
            )

    def is_of_stream(self, model: nn.Module, blocks: nn.ModuleList) -> bool:
        """Whether the activations are the residual stream, or what attention or an MLP adds to it."""
        if self.what != "path":
            return self.what in ("residual", "attn_out", "mlp_out")
        names = [name for name, module in model.named_modules() if any(module is block for block in blocks)]
        owner, _, part = self.path.rpartition(".")
        return self.path.removeprefix("in:") in names or (owner in names and part in (*_ATTENTION, *_MLP))

    def module(self, model: nn.Module, blocks: nn.ModuleList) -> nn.Module:
        """Return the module that returns the activations, or takes them.

        Raises
        ------
        ValueError
            If the block has no part of a known name, or the model no module of that path.
        """
        if self.what == "path":
            try:
                return model.get_submodule(self.path.removeprefix("in:"))
            except AttributeError:
                raise ValueError(
                    f"block={str(self)!r} was given, but {type(model).__name__} has no such module."
                ) from None
        block = blocks[max(self.block, 1) - 1]
        if self.what == "residual":
            return block
        part = self._part(block, _PARTS[self.what])
        return self._part(part, _LAST_MAPS) if self.what == "mlp_hidden" else part

    def _part(self, module: nn.Module, names: Sequence[str]) -> nn.Module:
        for name in names:
            if isinstance(part := getattr(module, name, None), nn.Module):
                return part
        parts = ", ".join(name for name, _ in module.named_children())
        raise ValueError(
            f"block={str(self)!r} was given, but a {type(module).__name__} has no part called {' or '.join(names)}; "
            f"its parts are {parts or 'none'}."
        )
