"""The activation store: activations of a language model on disk, each row traceable to its token."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from proxsae.data.shard import HARVEST_COUNTS, StoreError, check_content, map_shard, read_index, widened
from proxsae.data.stream import BUFFER_ROWS, ShuffledRows
from proxsae.formulas.integers import evenly_spaced

COMPARED = 256  # rows whose tokens are compared with those of another store
_OPEN_SHARDS = 256

Tensors = dict[str, NDArray[Any]]


class ActivationStore:
    """Activations on disk, read as if they were an array of shape (n_rows, n_features).

    Made by :func:`proxsae.llm.harvest`. The folder holds ``index.json`` and shards in safetensors format, each with
    ``activations`` (rows, n_features), ``context`` and ``position`` (rows,) and ``tokens`` (contexts, context_length).
    Shards are memory-mapped, so opening costs a header a shard and reading costs what is read. Indexing selects rows by
    an integer, a slice, or an array of integers or booleans, and returns a copy as a NumPy array. ``np.asarray(store)``
    reads everything.

    Opening checks the index and the size, types and shapes of every shard, and warns of a harvest that was interrupted
    or still runs.

    Parameters
    ----------
    path : str or path
        The folder.
    check : bool, default=True
        Compare the checksum of a shard when it is first read; False saves reading the whole shard.

    Attributes
    ----------
    shape : tuple of int
        (n_rows, n_features).
    sites : dict of str to slice
        The places at which the rows were read, each with its columns.
    dtype : numpy.dtype
        float32 or float16; float32 where bfloat16 is stored.
    info : dict
        The fields of the index: model, weights (their fingerprint), site, tokenizer, text, split, context_length, drop,
        excluded_tokens, dropped_positions, median_norm, complete (False until all are there) ..., and sums over the
        shards: rows, contexts, dropped_by_position, dropped_special, dropped_massive, and large_kept (rows kept whose
        norm is more than 10 times the median).

    Raises
    ------
    StoreError
        If the folder is not a store, or a file is missing, truncated, damaged or foreign; the message names file and
        field.
    """

    def __init__(self, path: str | os.PathLike[str], *, check: bool = True) -> None:
        self.path = Path(path)
        index = read_index(self.path)
        self._index = index
        for number in range(len(index["shards"])):
            self._map(number)
        self._row_starts = np.cumsum([0, *(shard["rows"] for shard in index["shards"])])
        self._context_starts = np.cumsum([0, *(shard["contexts"] for shard in index["shards"])])
        self.dtype = np.dtype("float32" if index["dtype"] == "bfloat16" else index["dtype"])
        self.shape = (int(self._row_starts[-1]), int(index["n_features"]))
        sums = ("rows", "contexts", *HARVEST_COUNTS)
        self.info: dict[str, Any] = {field: value for field, value in index.items() if field != "shards"}
        self.info |= {field: sum(shard[field] for shard in index["shards"]) for field in sums}
        self._check = check
        self._checked_shards: set[int] = set()
        self._open: OrderedDict[int, Tensors] = OrderedDict()
        self._first, self._columns = 0, slice(0, self.shape[1])
        if not index["complete"]:
            warnings.warn(
                f"'{path}' holds {len(self)} of the {index['n_tokens']} rows asked for: its harvest was interrupted or "
                "still runs.",
                stacklevel=2,
            )

    def part(self, start: int, stop: int) -> ActivationStore:
        """Return a store of the rows from `start` to before `stop`; nothing is read or copied."""
        start, stop, _ = slice(start, stop).indices(len(self))
        part = object.__new__(type(self))
        part.__dict__ |= self.__dict__
        part._first, part.shape = self._first + start, (max(stop - start, 0), self.shape[1])
        return part

    def shuffled(self, *, seed: int = 0, buffer_rows: int = BUFFER_ROWS) -> ShuffledRows:
        """Return the rows for a training in a shuffled order; see :class:`proxsae.data.stream.ShuffledRows`.

        Rows are read ahead and in long runs, as a store larger than the memory requires. The order is the same for
        every autoencoder, whatever its seed.
        """
        return ShuffledRows(self, seed=seed, buffer_rows=buffer_rows)

    @property
    def sites(self) -> dict[str, slice]:
        """The places with their columns."""
        ends = np.cumsum([0, *self.info["widths"]]).tolist()
        return dict(zip(self.info["site"].split(" "), map(slice, ends, ends[1:]), strict=True))

    def at(self, site: str) -> ActivationStore:
        """Return a store of the columns of one of the sites; nothing is read or copied."""
        if site not in self.sites:
            raise ValueError(f"'{self.path}' has no site {site!r}; it has {', '.join(map(repr, self.sites))}.")
        columns, number = self.sites[site], list(self.sites).index(site)
        part = self.part(0, len(self))
        width, first = columns.stop - columns.start, self._columns.start
        part._columns, part.shape = slice(first + columns.start, first + columns.stop), (len(self), width)
        medians = self.info["median_norms"][number : number + 1]
        part.info = {**self.info, "site": site, "widths": [width], "n_features": width, "median_norms": medians}
        part.info["median_norm"] = medians[0] if medians else 0.0
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy in another process maps the files itself
        names = ("_check", "_first", "_columns", "shape", "info")
        state = {name: getattr(self, name) for name in names}
        return ActivationStore, (self.path,), state

    def verify(self) -> None:
        """Read every shard and compare its checksum with the index.

        Raises
        ------
        StoreError
            If a checksum differs.
        """
        for shard in self._index["shards"]:
            check_content(self.path / shard["file"], shard)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return (
            f"ActivationStore('{self.path}', shape={self.shape}, dtype={self.dtype}, model='{self.info['model']}', "
            f"site='{self.info['site']}')"
        )

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, tuple):
            raise IndexError("A tuple was given, but a store is indexed by rows alone: store[rows][:, columns].")
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
        context, position = self._gather("context", checked), self._gather("position", checked)
        for name, places, n in (
            ("context", context, self._context_starts[-1]),
            ("position", position, self._index["context_length"]),
        ):
            if ((places < 0) | (places >= n)).any():
                raise StoreError(f"'{self.path}': a {name} of a row is outside 0 to {n - 1}.")
        return context, position

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

    def check_same_tokens(self, X: ActivationStore) -> None:
        """Raise ValueError where rows, as targets of those of X, are not of the same tokens; 256 are compared.

        Parts of one place of a store that is open are not compared: they may be cut apart to predict the next token.
        """
        if self._index is X._index and (self._first == X._first or self._columns == X._columns):
            return
        for row in evenly_spaced(len(self), COMPARED).tolist():
            (tokens, position), (its_tokens, its_position) = self.tokens_of(row), X.tokens_of(row)
            if position != its_position or not np.array_equal(tokens, its_tokens):
                raise ValueError(
                    f"row {row} of X and of Y are not of the same token: harvest both places at once, into one store"
                )

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
        flat = rows.reshape(-1) + self._first
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        width = (self.shape[1],) if name == "activations" else ()
        dtype = {"activations": self.dtype, "context": np.dtype(np.int64)}.get(name, np.dtype(np.int32))
        out = np.empty((len(flat), *width), dtype=dtype)
        bounds = np.searchsorted(ordered, self._row_starts)
        for number in np.flatnonzero(np.diff(bounds)):
            begin, end = bounds[number], bounds[number + 1]
            local = ordered[begin:end] - self._row_starts[number]
            part = self._shard(int(number))[name]
            if name == "activations":
                out[order[begin:end]] = widened(part[:, self._columns][local], self._index["dtype"])
            else:
                out[order[begin:end]] = part[local]
        return out.reshape((*rows.shape, *width))

    def _shard(self, number: int) -> Tensors:
        """Return the tensors of a shard; at most 256 stay mapped, since a process may hold only so many files."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if self._check and number not in self._checked_shards:
            shard = self._index["shards"][number]
            check_content(self.path / shard["file"], shard)
            self._checked_shards.add(number)
        self._open[number] = self._map(number)
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[number]

    def _map(self, number: int) -> Tensors:
        shard = self._index["shards"][number]
        return map_shard(self.path / shard["file"], shard, self._index)
