"""A function on a CUDA device as one launch: recorded once, then replayed without Python between its kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

N_PLAIN = 3  # calls that compile kernels and make buffers, before one is recorded


class Replay:
    """Calls of one function of tensors on a CUDA device, replayed from the fourth on."""

    def __init__(self) -> None:
        self.n_calls = 0
        self._waits = True
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, function: Callable[..., dict[str, Tensor]], *arguments: Tensor) -> dict[str, Tensor]:
        """Return what the function returns; its tensors hold until the next call.

        Parameters
        ----------
        function : callable
            The same function at every call. It launches the same kernels for tensors of the same shapes, keeps state in
            place, and returns a dict of tensors. A function that waits for the device is called without replay, and so
            is a call with other shapes than those recorded.
        *arguments : Tensor

        Warns
        -----
        UserWarning
            Where no call can be recorded; the function is then called as it is, now and later.
        """
        self.n_calls += 1
        if self.n_calls <= N_PLAIN:
            with waits_noted() as waits:
                results = function(*arguments)
            self._waits = bool(waits)
            return results
        if self._waits:
            return function(*arguments)
        if self._graph is None:
            try:
                self._record(function, *arguments)
            except RuntimeError as error:  # what the library says where a launch cannot be recorded
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                warnings.warn(
                    f"steps are launched kernel by kernel, for none could be recorded: {reason}", stacklevel=2
                )
                self._graph, self._waits = None, True
                return function(*arguments)
        if any(kept.shape != argument.shape for kept, argument in zip(self._arguments, arguments, strict=True)):
            return function(*arguments)
        for kept, argument in zip(self._arguments, arguments, strict=True):
            kept.copy_(argument)
        assert self._graph is not None
        self._graph.replay()
        return self._results

    def _record(self, function: Callable[..., dict[str, Tensor]], *arguments: Tensor) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        self._graph = torch.cuda.CUDAGraph()
        # other threads, such as one that reads rows ahead, may use the device meanwhile; a recording that fails leaves
        # its own stream in place, which the outer context takes away
        recording = torch.cuda.graph(self._graph, capture_error_mode="thread_local")
        with torch.cuda.stream(torch.cuda.current_stream()), recording:
            self._results = function(*self._arguments)


@contextmanager
def waits_noted() -> Iterator[list[str]]:
    """Collect Torch's warnings of operations that wait for the device; the list is complete when the context ends."""
    waits: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            waits.append(str(warning.message))
        elif "Synchronization debug mode is a prototype" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
