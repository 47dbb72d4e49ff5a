"""The type of a compiled scalar prox, its dead zone, and the compilation of loops by dtype."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numba
import numpy as np
from numba import float64, types, void

LARGEST = float(np.finfo(np.float64).max) / 16  # beyond, a sum of a few overflows

# `prox(u, t, parameters)` as :func:`proxsae.formulas.numba.compiled` writes it
prox64 = types.FunctionType(float64(float64, float64, float64[::1]))


def by_dtype(signature: Callable[[Any], Any], **options: Any) -> Callable[[Callable[..., None]], Callable[[Any], Any]]:
    """Turn a loop into a function of a dtype that returns the loop compiled for that dtype, on the first call.

    `signature` returns the signature of the loop for the type of its numbers.
    """

    def decorate(loop: Callable[..., None]) -> Callable[[Any], Any]:
        lock, loops = Lock(), dict[Any, Any]()

        def compiled(dtype: np.dtype[Any]) -> Any:
            with lock:  # not by two threads at once
                if dtype not in loops:
                    T = numba.from_dtype(dtype)
                    loops[dtype] = numba.njit(signature(T), nogil=True, cache=True, **options)(loop)
            return loops[dtype]

        return compiled

    return decorate


def uncounted(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a loop that other loops call, without reference counts: the loop may use arrays, but not make them.

    Otherwise threads would count, atomically, each reference to a row of a matrix that they share.
    """
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(_nrt=False, **options)
    return compiled


@numba.njit(void(prox64, float64[:, ::1], float64[::1], float64[:, ::1]), nogil=True, cache=True)
def dead_zones(prox, parameters, steps, ends):  # type: ignore[no-untyped-def]
    """Write the least and the largest number with prox 0; infinite where all numbers on that side have prox 0.

    Where no number has prox 0, the first is above the second, or both are the same infinity. Parameters have one row,
    and steps one number, for each pair of ends, or one for all.
    """
    number = np.array([LARGEST])
    bits = number.view(np.int64)  # positive floats are ordered as the integers of the same bits
    largest = bits[0]
    for i in range(len(ends)):
        parameter, t = parameters[i if len(parameters) > 1 else 0], steps[i if len(steps) > 1 else 0]
        for side in range(2):
            sign = 2.0 * side - 1.0
            low, high = -largest - 1, largest + 1  # the prox, which grows, is not beyond 0 at `low`, and is at `high`
            while low + 1 < high:
                middle = low // 2 + high // 2 + (low % 2 + high % 2) // 2  # the difference may overflow
                bits[0] = abs(middle)
                u = number[0] if middle >= 0 else -number[0]
                if sign * prox(sign * u, t, parameter) <= 0.0:
                    low = middle
                else:
                    high = middle
            bits[0] = min(abs(low), largest)
            end = np.inf if abs(low) >= largest else number[0]
            ends[i, side] = sign * (end if low >= 0 else -end)
