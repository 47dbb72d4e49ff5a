"""Threads and fork: a child of a process whose threads have run must not wait for threads that it does not have.

OpenMP, on which Torch and Numba run, hangs there. Who computes after a fork therefore does it in one thread, as the
workers of a Torch DataLoader do. A child of a process that has not computed yet has all threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba

_computing = {"process": 0}  # the process in which threads were first used; a fork copies the number


def is_forked() -> bool:
    """Whether threads were used before this process was forked off."""
    _computing["process"] = _computing["process"] or os.getpid()
    return _computing["process"] != os.getpid()


def one_thread_after_fork() -> None:
    """Let Torch compute in one thread where more would hang."""
    if is_forked():
        import torch

        torch.set_num_threads(1)


def parallel_loops(**options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function with parallel loops, and without for a forked process."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        threaded = numba.njit(cache=True, parallel=True, **options)(function)
        twin = FunctionType(function.__code__, function.__globals__, function.__name__)
        twin.__qualname__ = f"{function.__qualname__}_alone"  # by which Numba caches it, whatever the options
        alone = numba.njit(cache=True, **options)(twin)

        def call(*arrays: Any) -> None:
            (alone if is_forked() else threaded)(*arrays)

        return call

    return decorate
