"""Rows in random order from anything that can be indexed: arrays, memory maps, tensors, activation stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class BatchOrder:
    """The rows of each training batch: one random permutation an epoch, batches always full.

    It is a function of the seed and the number of rows drawn, so that a resumed run draws what the first would have.

    Parameters
    ----------
    n_rows, batch_size : int
        A batch never exceeds the data.
    seed : int
    n_drawn : int, default 0
        Rows drawn so far.
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int, n_drawn: int = 0) -> None:
        self.n_rows = n_rows
        self.batch_size = min(batch_size, n_rows)
        self.seed = seed
        self.n_drawn = n_drawn
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def next(self) -> Any:
        """Return the row indices of the next batch, ascending: reading in order is faster and a sum has no order."""
        epoch, start = divmod(self.n_drawn, self.n_rows)
        rows = self._order(epoch)[start : start + self.batch_size]
        if len(rows) < self.batch_size:
            rows = np.concatenate([rows, self._order(epoch + 1)[: self.batch_size - len(rows)]])
        self.n_drawn += self.batch_size
        return np.sort(rows)

    def _order(self, epoch: int) -> Any:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
        return self._permutation


def read_rows(X: Any, rows: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return rows of X as a tensor on the device.

    Parameters
    ----------
    X : array, memory map, tensor or activation store of shape (n_samples, n_features)
    rows : slice or integer array

    Raises
    ------
    ValueError
        If a value is NaN or infinite, naming the first such row.
    """
    if isinstance(X, Tensor):
        batch = X[torch.as_tensor(rows) if isinstance(rows, np.ndarray) else rows]
    else:
        batch = torch.from_numpy(np.array(X[rows], dtype=_numpy_name(dtype)))
    batch = batch.detach().to(device=device, dtype=dtype)
    finite = torch.isfinite(batch).all(-1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        where = int(rows[first]) if isinstance(rows, np.ndarray) else (rows.start or 0) + first
        raise ValueError(f"Input X contains NaN or infinity: row {where} of {X.shape[0]} is the first such row read")
    return batch


def evenly_spaced(n_rows: int, most: int) -> Any:
    """Return the indices of at most `most` evenly spaced rows."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, most)).astype(np.int64))


def moments(X: Any, dtype: torch.dtype, device: torch.device, max_rows: int = 131_072) -> tuple[Tensor, float]:
    """Return the mean row and the mean norm of the centred rows, from evenly spaced rows, read block by block."""
    n_rows = X.shape[0]
    chosen = evenly_spaced(n_rows, max_rows)
    blocks = np.array_split(chosen, max(1, len(chosen) // 8192))
    total = torch.zeros(X.shape[1], dtype=torch.float64, device=device)
    for rows in blocks:
        total += read_rows(X, rows, dtype, device).sum(0, dtype=torch.float64)
    mean = total / len(chosen)
    norms = 0.0
    for rows in blocks:
        centred = read_rows(X, rows, dtype, device) - mean.to(dtype)
        norms += float(torch.linalg.vector_norm(centred, dim=-1).sum(dtype=torch.float64))
    return mean.to(dtype), norms / len(chosen)


def _numpy_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_row_source(X: Any) -> bool:
    """Whether X is read row by row: a memory map, a torch tensor, or a store with shape, dtype and rows by index."""
    if isinstance(X, np.memmap) or type(X).__module__.startswith("torch"):
        return True
    in_memory = isinstance(X, np.ndarray) or hasattr(X, "iloc") or hasattr(X, "toarray")
    return not in_memory and hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "__getitem__")


def code_dtype(X: Any) -> str:
    """Return the dtype of codes of X: float64 for float64, else float32."""
    return "float64" if str(X.dtype).endswith("float64") else "float32"


def torch_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
