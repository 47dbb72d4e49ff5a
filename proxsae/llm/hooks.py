"""Run a decoder up to a site, with the activations at a site replaced, or from a block on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from proxsae.llm.sites import Site


class _Reached(Exception):  # noqa: N818 (it is a signal, no error)
    """All sites have been read, so that nothing later runs."""


def activations_of(output: Any) -> Any:
    """Return the activations in the output of a module: a tensor, or the first member of a tuple or list."""
    return output[0] if isinstance(output, tuple | list) and output else output


def _with_activations(output: Any, activations: Tensor) -> Any:
    if isinstance(output, tuple | list):
        return type(output)([activations, *output[1:]])
    return activations


@torch.inference_mode()
def run_until(model: nn.Module, blocks: nn.ModuleList, sites: Sequence[Site], tokens: Tensor) -> list[Any]:
    """Return the outputs, or inputs, of the modules of the sites for tokens of shape (batch, length).

    Nothing after the last of these modules is computed.
    """
    found: dict[Site, Any] = {}

    def note(site: Site, output: Any) -> Any:
        # what comes after may change a tensor in place
        found[site] = output.clone() if isinstance(output, Tensor) and len(sites) > 1 else output
        if len(found) == len(set(sites)):
            raise _Reached
        return output

    with ExitStack() as stack:
        for site in set(sites):
            stack.enter_context(hooked(model, blocks, site, partial(note, site)))
        try:
            model(input_ids=tokens, use_cache=False)
        except _Reached:
            return [found[site] for site in sites]
    missing = next(site for site in sites if site not in found)
    raise ValueError(f"The model never calls the module of its site '{missing}', so nothing can be read there.")


@contextmanager
def replaced(
    model: nn.Module, blocks: nn.ModuleList, site: Site, replace: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within this context the activations x at the site are replace(x) for all that follows."""

    def swap(output: Any) -> Any:
        return _with_activations(output, replace(activations_of(output)))

    with hooked(model, blocks, site, swap):
        yield


@contextmanager
def hooked(model: nn.Module, blocks: nn.ModuleList, site: Site, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within this context `change` is applied to the output, or input, of the module of the site.

    The hook runs after every hook that the user has set there, so that it sees what the rest of the model sees.
    """
    module = site.module(model, blocks)
    if site.is_input:

        def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs), None)
            if name is None:
                raise ValueError(f"The module of the site '{site}' takes nothing, so nothing can be read there.")
            return args, kwargs | {name: change(kwargs[name])}

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _module, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


class _Skipped(nn.Module):
    """Stand-in for a block that is not run: it has the attributes of the block, but not its output."""

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["_block"] = block
        self.__dict__["_output"] = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the output given at the start."""
        return self.__dict__["_output"]


@contextmanager
def resumed(blocks: nn.ModuleList, n_done: int, residual: Tensor, like: Any) -> Iterator[None]:
    """Within this context the first blocks compute nothing and hand `residual` to the rest.

    The blocks keep their places, so layer indices, rotary embeddings, masks and attention types of the rest stay right;
    no hook on a skipped block runs, since it has run when the residual was read.

    Parameters
    ----------
    blocks : torch.nn.ModuleList
    n_done : int
        Blocks to skip.
    residual : Tensor of shape (batch, length, n_features)
    like : object
        An output of a block: a tensor, or a tuple or list whose other members become None.
    """
    is_sequence = isinstance(like, tuple | list)
    output = type(like)([residual, *[None] * (len(like) - 1)]) if is_sequence else residual
    before = list(blocks)[:n_done]
    for number, block in enumerate(before):
        blocks[number] = _Skipped(block, output)
    try:
        yield
    finally:
        for number, block in enumerate(before):
            blocks[number] = block
