"""Threads and fork: a forked child has none of the threads of its parent, and must not wait for them.

OpenMP, on which Torch and Numba run, hangs in such a child. A child of a process that has computed here therefore
computes in one thread, as the workers of a Torch DataLoader do; a child of a process that has not computed yet has all
threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any

_in_turn = Lock()  # a loop has all threads, and Numba's own layer of threads takes no second one beside it
_computing = {"process": 0}  # the process in which threads were first used; a fork copies the number


def note_threads() -> None:
    """Note that this process uses threads from now on, unless it was forked off a process that did."""
    _computing["process"] = _computing["process"] or os.getpid()


def is_forked() -> bool:
    """Whether threads were used before this process was forked off."""
    return _computing["process"] not in (0, os.getpid())


def _compute_in_one_thread() -> None:
    if _computing["process"] and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


os.register_at_fork(after_in_child=_compute_in_one_thread)


def parallel_loops(**options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function with parallel loops, and without for a forked process."""
    import numba

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        threaded = numba.njit(cache=True, parallel=True, **options)(function)
        twin = FunctionType(function.__code__, function.__globals__, function.__name__)
        twin.__qualname__ = f"{function.__qualname__}_alone"  # by which Numba caches it, whatever the options
        alone = numba.njit(cache=True, **options)(twin)

        def call(*arrays: Any) -> None:
            note_threads()
            if is_forked():
                alone(*arrays)
                return
            with _in_turn:
                threaded(*arrays)

        return call

    return decorate
