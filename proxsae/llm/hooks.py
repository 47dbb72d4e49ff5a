"""Run a decoder up to a block, from a block on, or with a block's output replaced.

``block=L`` is the residual stream after the first L blocks, which is ``hidden_states[L]`` of transformers: L = 1 is the
output of the first block. L runs from 1 to n_blocks - 1, so that at least one block remains to be run on the residual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Reached(Exception):  # noqa: N818 (it is a signal, no error)
    """Carries the residual out of the model, so that no later block runs."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__()
        self.residual = residual


def check_block(block: int, n_blocks: int, name: str) -> None:
    """Raise ValueError unless 1 <= block <= n_blocks - 1."""
    if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block < n_blocks:
        raise ValueError(
            f"block={block!r} was given, but {name} has {n_blocks} blocks, so block is an integer from 1 to "
            f"{n_blocks - 1} "
            "(the residual stream after that many blocks)."
        )


def residual_of(output: Any) -> Tensor:
    """Return the residual stream from what a block returns: a tensor, or a tuple that starts with it."""
    residual: Tensor = output[0] if isinstance(output, tuple) else output
    return residual


def _with_residual(output: Any, residual: Tensor) -> Any:
    return (residual, *output[1:]) if isinstance(output, tuple) else residual


@torch.inference_mode()
def run_until(model: nn.Module, blocks: nn.ModuleList, block: int, tokens: Tensor) -> Tensor:
    """Return the residual stream after `block` blocks; nothing after them is computed.

    Parameters
    ----------
    model : torch.nn.Module
        The causal language model.
    blocks : torch.nn.ModuleList
        Its decoder blocks.
    block : int
        Number of blocks to run.
    tokens : Tensor of shape (batch, length)
        Token ids.

    Returns
    -------
    Tensor of shape (batch, length, n_features)
    """

    def stop(_module: nn.Module, _args: Any, output: Any) -> None:
        raise _Reached(residual_of(output))

    handle = blocks[block - 1].register_forward_hook(stop)
    try:
        model(input_ids=tokens, use_cache=False)
    except _Reached as reached:
        return reached.residual
    finally:
        handle.remove()
    raise RuntimeError(f"The model never called its block number {block}, so its output could not be read.")


@contextmanager
def replaced(blocks: nn.ModuleList, block: int, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this context the output x of the first `block` blocks is replace(x) for all that follows."""

    def swap(_module: nn.Module, _args: Any, output: Any) -> Any:
        return _with_residual(output, replace(residual_of(output)))

    handle = blocks[block - 1].register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def resumed(blocks: nn.ModuleList, block: int, residual: Tensor, returns_tuple: bool) -> Iterator[None]:
    """Within this context the first `block` blocks compute nothing and hand `residual` to the rest.

    The blocks keep their places, so layer indices, rotary embeddings, masks and attention types of the rest stay right.
    """
    output = (residual,) if returns_tuple else residual

    def hand_over(*_args: Any, **_kwargs: Any) -> Any:
        return output

    skipped = list(blocks)[:block]
    # a forward set on the instance (by a quantiser, say) must come back as it was
    before = [module.__dict__.get("forward") for module in skipped]
    for module in skipped:
        module.forward = hand_over
    try:
        yield
    finally:
        for module, forward in zip(skipped, before, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def probe_output(model: nn.Module, blocks: nn.ModuleList, device: torch.device) -> tuple[int, bool]:
    """Run one token through the first block; return the residual's width and whether a block returns a tuple."""
    seen: list[Any] = []

    def stop(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(output)
        raise _Reached(residual_of(output))

    handle = blocks[0].register_forward_hook(stop)
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
    except _Reached as reached:
        return int(reached.residual.shape[-1]), isinstance(seen[0], tuple)
    finally:
        handle.remove()
    raise RuntimeError("The model never called its first block, so its residual stream could not be found.")
