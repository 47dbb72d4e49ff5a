"""Large tensors in main memory that are filled at once, as every step makes them anew."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor without content in memory of NumPy, which asks the system for huge pages, as Torch does not.

    Small pages, cleared one by one on first touch, take longer than what is written to them.
    """
    if dtype not in (torch.float32, torch.float64):
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))
