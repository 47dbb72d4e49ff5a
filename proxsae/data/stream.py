"""Rows in a fixed shuffled order, which a thread reads block by block ahead of their use."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Event
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from proxsae.data.rows import Rows, provenance_of
from proxsae.formulas.integers import checked_count

__all__ = ["ReadAhead", "ShuffledRows", "Stream"]

BUFFER_ROWS = 65_536
RUN = 1024  # rows of a store that stay together on their way into a block

Block = tuple[int, Callable[[], NDArray[Any]]]  # so many rows, and what reads them


class Stream(ABC):
    """Rows in a random order that is a function of (seed, epoch, position): blocks of rows, each shuffled.

    ``ProxSAE.fit`` and :func:`proxsae.fit_many` take one in place of X, and then draw in its order whatever
    `random_state` is.

    Attributes
    ----------
    seed : int
    info : dict
        The provenance of the rows.
    n_rows : int or None
        The number of rows of an epoch, where it is known in advance.
    """

    seed: int
    info: dict[str, Any]
    n_rows: int | None
    measured: ClassVar[tuple[str, ...]] = ()
    """Entries of `info` that follow from others or the first block, and that older checkpoints do not know."""

    @property
    def definition(self) -> str:
        """What fixes the rows that follow the first block, as a checkpoint keeps it."""
        known = {name: value for name, value in provenance_of(self).items() if name not in self.measured}
        told = json.dumps(known, sort_keys=True)
        names = {name: getattr(self, name, None) for name in ("n_rows", "buffer_rows", "seed")}
        words = [f"{name} {value}" for name, value in names.items()]
        return f"{', '.join(words)}, provenance with checksum {zlib.crc32(told.encode()):08x}"

    @abstractmethod
    def blocks(self, epoch: int, is_closed: Callable[[], bool]) -> Iterator[Block]:
        """Yield the blocks of one pass over the rows, before their rows are shuffled; end soon where all is closed."""

    def shuffled_blocks(
        self, start: int = 0, is_closed: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield shuffled blocks without end, from that which holds the row at a position, each with its first position.

        Raises
        ------
        ValueError
            If a pass gives no rows, or a row is not finite.
        """
        first = 0
        for epoch in count():
            before = first
            for number, (n_rows, read) in enumerate(self.blocks(epoch, is_closed)):
                if first + n_rows > start:
                    rows = read()[np.random.default_rng([self.seed, epoch, number]).permutation(n_rows)]
                    if not np.isfinite(rows).all():
                        at = first + int(np.flatnonzero(~np.isfinite(rows).all(-1))[0])
                        raise ValueError(f"Input X contains NaN or infinity: row {at} drawn from {self!r}")
                    yield first, rows
                first += n_rows
            if first == before:
                raise ValueError(f"{self!r} gives no rows in pass number {epoch + 1}, after {first} rows")


class ShuffledRows(Stream):
    """The rows of a matrix that is larger than memory: runs of 1024 rows in random order, shuffled within blocks.

    Parameters
    ----------
    X : store or memory map
        With a shape, a dtype and rows by slice.
    seed : int, default 0
    buffer_rows : int, default 65_536
        Rows of a block. Two blocks are in memory, and a third, from which the scale of the data is measured.
    """

    def __init__(self, X: Any, *, seed: int = 0, buffer_rows: int = BUFFER_ROWS) -> None:
        check_buffer(seed, buffer_rows)
        self.X, self.seed, self.buffer_rows = X, seed, buffer_rows
        self.info, self.n_rows = getattr(X, "info", {}), int(X.shape[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.X).__name__} of {self.X.shape[0]} rows, seed={self.seed})"

    def blocks(self, epoch: int, is_closed: Callable[[], bool]) -> Iterator[Block]:  # noqa: ARG002
        """Yield blocks of runs in random order."""
        n_rows, run = int(self.X.shape[0]), min(RUN, self.buffer_rows)
        starts = run * np.random.default_rng([self.seed, epoch]).permutation(-(-n_rows // run))
        for some in np.array_split(starts, -(-len(starts) // (self.buffer_rows // run))):
            slices = [slice(int(start), min(int(start) + run, n_rows)) for start in some]

            def read(slices: list[slice] = slices) -> NDArray[Any]:
                return np.concatenate([self.X[rows] for rows in slices])

            yield sum(rows.stop - rows.start for rows in slices), read


class ReadAhead:
    """The rows of a stream at positions that mostly rise; a thread reads the next block while the present one is used.

    Parameters
    ----------
    stream : Stream

    Attributes
    ----------
    head : Rows
        The first block.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._closed = Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proxsae-read-ahead")
        try:
            self._open(0)
        except BaseException:
            self.close()
            raise
        self.head = self._held[0][1]

    def _open(self, start: int) -> None:
        self._blocks = self.stream.shuffled_blocks(start, self._closed.is_set)
        self._held: list[tuple[int, Rows]] = []
        self._next: Future[tuple[int, NDArray[Any]]] = self._thread.submit(next, self._blocks)
        self._take()

    def _take(self) -> None:
        first, rows = self._next.result()
        self._held.append((first, Rows(rows, is_finite=True)))
        self._next = self._thread.submit(next, self._blocks)

    def read(self, start: int, n_rows: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
        """Return rows, and the seconds spent waiting for a block; rows before `start` are released."""
        began = perf_counter()
        waited = 0.0
        if start < self._held[0][0] or start > self._end:  # back after a divergence, or on after a resumption
            self._next.cancel()
            self._open(start)
            waited = perf_counter() - began
        while self._end < start + n_rows:
            self._take()
            waited = perf_counter() - began
        self._held = [(first, rows) for first, rows in self._held if first + len(rows) > start]
        stop = start + n_rows
        slices = [(rows, slice(max(start - first, 0), min(stop - first, len(rows)))) for first, rows in self._held]
        parts = [rows.read(some, dtype, device) for rows, some in slices if some.start < some.stop]
        return torch.cat(parts), waited

    @property
    def _end(self) -> int:
        first, rows = self._held[-1]
        return first + len(rows)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)


def check_buffer(seed: Any, buffer_rows: Any) -> None:
    """Raise ValueError unless a seed is an integer >= 0 and a block has rows."""
    checked_count("seed", seed, 0)
    checked_count("buffer_rows", buffer_rows)
