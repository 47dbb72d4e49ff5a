"""Write an activation store, shard by shard, so that an interruption loses at most the shard being filled."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from proxsae.data.shard import (
    DTYPES,
    FORMAT,
    HARVEST_COUNTS,
    INDEX,
    VERSION,
    StoreError,
    check_content,
    map_shard,
    narrowed,
    read_index,
    shard_name,
    widened,
    write_file,
    write_index,
)
from proxsae.data.store import ActivationStore

_SHARD_BYTES = 32_000_000


class StoreWriter:
    """Collects batches of rows and writes a shard whenever 32 MB are full.

    A shard always ends with a batch, so that a resumed run has the same batches, and hence writes the same bytes, as a
    run that was never interrupted. A shard and the index are each written to a temporary name and renamed; the index
    names only shards that are whole. What a kill leaves of a shard is removed when the harvest goes on.

    Until it is closed, or its ``with`` block ends, or the process does, no other writer can open the folder, unless the
    store is complete. On a disk without locks nothing keeps another writer out, and what a kill leaves stays.

    Parameters
    ----------
    path : str or path
        The store's folder; made if it is missing.
    header : dict
        The fields of the index that identify the harvest; see :mod:`proxsae.data.shard`.
    resume : bool, default=True
        Continue an existing store with the same header. An existing store with another header, or any store if False,
        is an error.
    shard_bytes : int, default=32_000_000
        Size of the activations from which a shard is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: dict[str, Any],
        *,
        resume: bool = True,
        shard_bytes: int = _SHARD_BYTES,
    ) -> None:
        self.path = Path(path)
        if header["dtype"] not in DTYPES:
            raise ValueError(f"dtype={header['dtype']!r} was given; allowed are {', '.join(DTYPES)}.")
        self.index: dict[str, Any] = {"format": FORMAT, "version": VERSION, **header, "shards": []}
        self._row_bytes = header["n_features"] * narrowed(np.zeros(1, np.float32), header["dtype"]).itemsize
        self._shard_bytes = shard_bytes
        self._held: list[dict[str, NDArray[Any]]] = []
        self._counts = dict.fromkeys(HARVEST_COUNTS, 0)
        is_empty = not self.path.exists() or (self.path.is_dir() and not any(self.path.glob("[!.]*")))
        if not is_empty and not (self.path / INDEX).exists():
            raise StoreError(f"'{self.path}' exists and is no activation store; give a new or empty folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(self.path, os.O_RDONLY)
        self._closing = finalize(self, os.close, self._folder)
        try:
            is_there = (self.path / INDEX).exists()
            is_locked = self._lock()
            if is_locked is False and not (is_there and read_index(self.path)["complete"]):
                raise StoreError(f"'{self.path}' is being written by another harvest: give another folder.")
            if is_there:
                self._continue(header, resume)
                if is_locked:  # else what looks left behind may be of another writer at work
                    for half in self.path.glob(".shard-*.partial"):
                        half.unlink()
            else:
                write_index(self.path, self.index)
        except BaseException:
            self._unlock()  # the error would keep this object, and its lock
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    @property
    def rows(self) -> int:
        """Rows on disk and held."""
        return int(
            sum(shard["rows"] for shard in self.index["shards"]) + sum(len(part["position"]) for part in self._held)
        )

    @property
    def contexts(self) -> int:
        """Contexts on disk and held."""
        return int(
            sum(shard["contexts"] for shard in self.index["shards"]) + sum(len(part["tokens"]) for part in self._held)
        )

    def stored_contexts(self) -> Iterator[NDArray[np.int32]]:
        """Yield the token ids of every context on disk; the last shard, which may be half written, is read whole."""
        for shard in self.index["shards"]:
            path = self.path / shard["file"]
            if shard is self.index["shards"][-1]:
                check_content(path, shard)
            yield from map_shard(path, shard, self.index)["tokens"]

    def add(
        self,
        activations: NDArray[np.floating],
        context: NDArray[np.integer],
        position: NDArray[np.integer],
        tokens: NDArray[np.integer],
        counts: dict[str, int],
    ) -> None:
        """Add the rows of a batch: `context` counts within the batch, whose token ids are `tokens`."""
        stored = narrowed(activations, self.index["dtype"])
        if not np.isfinite(widened(stored, self.index["dtype"])).all():
            raise ValueError(
                f"Activations are not finite as {self.index['dtype']} (the largest is "
                f"{np.abs(activations).max():.3g}): give dtype='float32', or load the model with dtype=torch.float32."
            )
        part = {
            "activations": stored,
            "context": context.astype(np.int64) + self.contexts,
            "position": position.astype(np.int32),
            "tokens": tokens.astype(np.int32),
        }
        self._held.append(part)
        for name in HARVEST_COUNTS:
            self._counts[name] += counts[name]
        if sum(len(part["position"]) for part in self._held) * self._row_bytes >= self._shard_bytes:
            self._flush()

    def close(self) -> ActivationStore:
        """Write the rows that are held, mark the store complete and open it."""
        if self._held:
            self._flush()
        self.index["complete"] = True
        write_index(self.path, self.index)
        self._unlock()
        return ActivationStore(self.path)

    def _lock(self) -> bool | None:
        """Lock the folder; return True, False where another writer has it, or None where the disk knows no locks."""
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _unlock(self) -> None:
        if self._closing.alive:
            with suppress(OSError):
                fcntl.flock(self._folder, fcntl.LOCK_UN)  # a forked child holds the lock, too
            self._closing()

    def _flush(self) -> None:
        names = ("activations", "context", "position", "tokens")
        tensors = {name: np.concatenate([part[name] for part in self._held]) for name in names}
        written = {name: torch.from_numpy(array) for name, array in tensors.items()}
        if self.index["dtype"] == "bfloat16":
            written["activations"] = torch.from_numpy(tensors["activations"].view(np.int16)).view(torch.bfloat16)
        data = save(written)
        shard: dict[str, Any] = {
            "file": shard_name(len(self.index["shards"])),
            "rows": len(tensors["position"]),
            "contexts": len(tensors["tokens"]),
            "bytes": len(data),
            "crc32": zlib.crc32(data),
            **self._counts,
        }
        write_file(self.path / shard["file"], data)
        self.index["shards"].append(shard)
        write_index(self.path, self.index)
        self._held = []
        self._counts = dict.fromkeys(HARVEST_COUNTS, 0)

    def _continue(self, header: dict[str, Any], resume: bool) -> None:
        there = read_index(self.path)
        if not there["shards"]:
            write_index(self.path, self.index)
            return
        if not resume:
            raise StoreError(f"'{self.path}' holds a store already; give a new folder, or resume=True.")
        # what the first run measured, and how far it was to go, does not identify it; older ones lack model_type
        measured = {"complete", "dropped_positions", "median_norm", "median_norms", "model_type", "n_tokens"}
        of_the_file = {"format", "version", "shards"}
        for field in {**header, **there}:
            if field not in measured | of_the_file and there.get(field) != header.get(field):
                raise StoreError(
                    f"'{self.path}' holds a harvest with {field}={there.get(field)!r}, so one with "
                    f"{field}={header.get(field)!r} cannot be added; give another folder."
                )
        for shard in there["shards"]:
            map_shard(self.path / shard["file"], shard, there)
        self.index = there
