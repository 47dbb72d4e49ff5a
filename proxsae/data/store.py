"""The activation store: rows of a residual stream on disk, each traceable to its token."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from proxsae.data.shard import INDEX, StoreError, checksum, map_shard, read_index

_OPEN_SHARDS = 256

Tensors = dict[str, NDArray[Any]]


class ActivationStore:
    """Activations on disk, read as if they were an array of shape (n_rows, n_features).

    Made by :func:`proxsae.llm.harvest` or opened with :meth:`open`. The folder holds ``index.json`` and shards in
    safetensors format, each with ``activations`` (rows, n_features), ``context`` and ``position`` (rows,) and
    ``tokens`` (contexts, context_length). Shards are memory-mapped, so opening costs a header a shard and reading
    costs what is read. Indexing takes an integer, a slice, or an array of integers or booleans, and returns a NumPy
    array, a copy. ``np.asarray(store)`` reads everything.

    Attributes
    ----------
    shape : tuple of int
        (n_rows, n_features).
    dtype : numpy.dtype
        float32 or float16.
    info : dict
        What the index says: model, block (the number of blocks applied), tokenizer, text, split, context_length,
        dropped_positions, median_norm, complete (False after an interruption) ..., and sums over the shards: rows,
        contexts, dropped_by_position, dropped_special, dropped_massive, and large_kept (rows kept whose norm is more
        than 10 times the median).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        index = read_index(self.path)
        self._index = index
        self._files = [shard["file"] for shard in index["shards"]]
        self._row_starts = np.cumsum([0, *(shard["rows"] for shard in index["shards"])])
        self._context_starts = np.cumsum([0, *(shard["contexts"] for shard in index["shards"])])
        self.dtype = np.dtype(index["dtype"])
        self.shape = (int(self._row_starts[-1]), int(index["n_features"]))
        sums = ("rows", "contexts", "dropped_by_position", "dropped_special", "dropped_massive", "large_kept")
        self.info: dict[str, Any] = {field: value for field, value in index.items() if field != "shards"}
        self.info |= {field: sum(shard[field] for shard in index["shards"]) for field in sums}
        # file handles are limited, so only so many shards stay mapped
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._map)
        for number in range(len(self._files)):
            self._map(number)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ActivationStore:
        """Open a store, checking the index and the size, types and shapes of every shard.

        The content is not read; :meth:`verify` checks it.

        Raises
        ------
        StoreError
            If the folder is not a store, or a file is missing, truncated or foreign; the message names file and field.
        """
        return cls(path)

    def verify(self) -> None:
        """Read every shard and compare its CRC-32 with the index.

        Raises
        ------
        StoreError
            If one differs.
        """
        for shard in self._index["shards"]:
            if checksum(self.path / shard["file"]) != shard["crc32"]:
                raise StoreError(
                    f"The shard '{self.path / shard['file']}' is damaged: its field 'crc32' in {INDEX} does not match."
                )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return (
            f"ActivationStore('{self.path}', shape={self.shape}, dtype={self.dtype}, model='{self.info['model']}', "
            f"block={self.info['block']})"
        )

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._gather("activations", np.arange(start, stop, step))
        rows = np.asarray(key)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"A mask of shape {rows.shape} was given for a store of {len(self)} rows.")
            rows = np.flatnonzero(rows)
        if rows.ndim == 0:
            row: NDArray[Any] = self._gather("activations", self._checked(rows.reshape(1)))[0]
            return row
        return self._gather("activations", self._checked(rows))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("An activation store can only be turned into an array by a copy.")
        rows: NDArray[Any] = self[:].astype(self.dtype if dtype is None else dtype, copy=False)
        return rows

    def trace(self, rows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return for each row the number of its context and its position there, two arrays of the shape of `rows`."""
        checked = self._checked(np.atleast_1d(np.asarray(rows)))
        return self._gather("context", checked), self._gather("position", checked)

    def tokens(self, context: int) -> NDArray[np.int32]:
        """Return the token ids of a context, shape (context_length,); the last context may end in padding."""
        number = int(np.searchsorted(self._context_starts, context, side="right")) - 1
        if not 0 <= context < self._context_starts[-1]:
            raise IndexError(f"context={context} was given for a store of {self._context_starts[-1]} contexts.")
        tokens: NDArray[np.int32] = self._shard(number)["tokens"][context - self._context_starts[number]]
        return np.array(tokens)

    def tokens_of(self, row: int) -> tuple[NDArray[np.int32], int]:
        """Return the token ids of a row's whole context and the position of the row's own token in it."""
        context, position = self.trace([row])
        return self.tokens(int(context[0])), int(position[0])

    def context_of(self, row: int, before: int = 10, after: int = 10) -> tuple[NDArray[np.int32], int]:
        """Return the token ids around a row's own token and where that token stands among them."""
        tokens, position = self.tokens_of(row)
        start = max(position - before, 0)
        return tokens[start : position + after + 1], position - start

    def _checked(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        if rows.size == 0:
            return np.zeros(rows.shape, dtype=np.int64)
        if rows.dtype.kind not in "iu":
            raise IndexError(f"Rows of type {rows.dtype} were given; integers, a slice or a boolean mask are allowed.")
        rows = rows.astype(np.int64)
        if rows.min() < -len(self) or rows.max() >= len(self):
            raise IndexError(
                f"Row {rows.max() if rows.max() >= len(self) else rows.min()} was asked of a store of {len(self)} rows."
            )
        return np.where(rows < 0, rows + len(self), rows)

    def _gather(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows in the order of the file and return them in the order asked for."""
        flat = rows.reshape(-1)
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        width = (self.shape[1],) if name == "activations" else ()
        dtype = {"activations": self.dtype, "context": np.dtype(np.int64)}.get(name, np.dtype(np.int32))
        out = np.empty((len(flat), *width), dtype=dtype)
        bounds = np.searchsorted(ordered, self._row_starts)
        for number in np.flatnonzero(np.diff(bounds)):
            begin, end = bounds[number], bounds[number + 1]
            local = ordered[begin:end] - self._row_starts[number]
            out[order[begin:end]] = self._shard(int(number))[name][local]
        return out.reshape((*rows.shape, *width))

    def _map(self, number: int) -> Tensors:
        return map_shard(self.path / self._files[number], self._index["shards"][number], self._index)
