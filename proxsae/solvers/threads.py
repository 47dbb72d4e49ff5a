"""Blocks of samples in threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import cache
from threading import current_thread
from typing import Any, TypeVar

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.kernels.threads import is_forked, note_threads

BLOCKS_PER_THREAD = 4  # samples take different times
GRAM_ROWS = 256
NAME = "proxsae-solver"  # the name of the threads

Result = TypeVar("Result")


def blocks_of(n_rows: int, size: int) -> list[slice]:
    """Return slices of at most `size` rows, at least one of them."""
    return [slice(first, first + size) for first in range(0, max(n_rows, 1), max(size, 1))]


def in_threads(
    work: Callable[[slice], Result], blocks: list[slice], on_interrupt: Callable[[], object] | None = None
) -> list[Result]:
    """Return the results of `work` for all blocks, in order; BLAS has one thread in each of the threads.

    Ctrl-C calls `on_interrupt`, where it is given, after which `work` should return soon. The threads are kept for the
    next call; a nested call of this function runs in the calling thread.
    """
    if min(n_threads(), len(blocks)) <= 1 or current_thread().name.startswith(NAME):
        return [work(block) for block in blocks]
    note_threads()
    pool = _pool(n_threads())
    with one_blas_thread():
        results: list[Future[Result]] = []
        try:
            results.extend(pool.submit(work, block) for block in blocks)
            return [result.result() for result in results]
        except KeyboardInterrupt:
            if on_interrupt is None:
                raise
            on_interrupt()
            rest = blocks[len(results) :]  # blocks that were not submitted before Ctrl-C
            results.extend(pool.submit(work, block) for block in rest)
            return [result.result() for result in results]
        finally:  # after an error no other block may go on
            for result in results:
                result.cancel()
            wait(results)


@cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix=NAME)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Give every BLAS one thread: more threads spin for a while after a product, and take cores from the next step."""
    limit: AbstractContextManager[Any] = _blas().limit(limits=1, user_api="blas")
    return limit


def by_blocks(work: Callable[[slice], None], n_rows: int) -> None:
    """Call `work`, a compiled loop, on slices of the rows in threads."""
    in_threads(work, blocks_of(n_rows, -(-n_rows // (BLOCKS_PER_THREAD * n_threads()))))


def gram_of(atoms: Array, dtype: Any = None) -> Array:
    """Return A A^T of a NumPy matrix, computed in its dtype and kept in another."""
    G, blocks = np.empty((len(atoms), len(atoms)), dtype or atoms.dtype), blocks_of(len(atoms), GRAM_ROWS)

    def fill(block: slice) -> None:
        G[block, block] = atoms[block] @ atoms[block].T
        G[block, : block.start] = products = atoms[block] @ atoms[: block.start].T
        G[: block.start, block] = products.T

    in_threads(fill, blocks[::-1])  # the long ones first
    return G


def n_threads() -> int:
    """Return the number of threads to use: that of Numba, at most one a core; one in a forked process."""
    import numba

    if is_forked():
        return 1
    threads: int = numba.config.NUMBA_NUM_THREADS
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    return min(threads, len(os.sched_getaffinity(0))) if has_affinity else threads


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
