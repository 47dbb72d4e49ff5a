"""The choice of a kernel: compiled loops in main memory, Triton on CUDA, the plain version elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import array_api_compat


def on_cuda(a: Any) -> bool:
    """Whether the Triton kernels take this array: a CUDA tensor, where Triton is installed."""
    return array_api_compat.is_torch_array(a) and a.device.type == "cuda" and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
