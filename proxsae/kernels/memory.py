"""Large tensors in main memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from proxsae.formulas.arrays import name_of_dtype

ROWS = 512  # of a matrix at a time, so that intermediate results stay in the cache of a CPU


def rows_at_once(matrix: Tensor) -> int:
    """Return how many rows of a matrix are changed at a time: all on a device, where each piece is a launch."""
    return max(1, len(matrix)) if matrix.is_cuda else ROWS


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor without content, to be filled at once.

    NumPy allocates the memory, since it asks the system for huge pages and Torch does not. Small pages are cleared one
    by one on first touch, which takes longer than writing to them.
    """
    if dtype not in (torch.float32, torch.float64):
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(shape, name_of_dtype(dtype)))
