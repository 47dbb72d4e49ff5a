"""A user's function of Torch tensors, called with NumPy arrays."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def on_arrays(function: Callable[..., Any], *probe: Any) -> Callable[..., Any]:
    """Return the function as one of NumPy arrays: by way of tensors where it takes the probe in that form alone.

    Parameters
    ----------
    function : callable
        Of an array, or of a tensor, and perhaps of more arguments.
    probe : array, and further arguments
        What it is tried on; the function comes back as it is where it takes neither form.
    """
    for called in _readings(function):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's functions do not like tensors
                result = called(np.copy(probe[0]), *probe[1:])
        except Exception:  # noqa: S112 - a user's function may raise anything at what it was not written for
            continue
        return called if called is not function or not hasattr(result, "detach") else _called(function, None)
    return function


def _readings(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield the function as one of arrays and, if Torch is in use, of tensors: a module with its weights in float64."""
    yield function
    if "torch" in sys.modules:
        yield _called(function, "float64")
        if hasattr(function, "double"):
            yield _called(copy.deepcopy(function).double(), "float64")
        yield _called(function, "float32")


def _called(function: Callable[..., Any], dtype: str | None) -> Callable[..., Any]:
    """Return the function with its first argument made a tensor, if a dtype is given, and tensors made arrays again."""

    def called(z: Any, *more: Any) -> Any:
        if dtype is not None:
            import torch

            z = torch.as_tensor(z, dtype=getattr(torch, dtype))
        result = function(z, *more)
        return result.detach().cpu().numpy() if hasattr(result, "detach") else result

    return called
