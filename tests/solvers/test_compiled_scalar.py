"""Loops are compiled for the dtypes that are asked for, once."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from proxsae.solvers import compiled_scalar


def test_a_loop_is_compiled_once_for_a_dtype_that_is_asked_for(monkeypatch):
    compiled = []

    def njit(signature, **options):
        compiled.append((signature, options["fastmath"]))
        return lambda loop: (loop, signature)

    monkeypatch.setattr(compiled_scalar.numba, "njit", njit)
    by_dtype = compiled_scalar.by_dtype(lambda T: T[::1], fastmath=True)("a loop")
    assert compiled == []
    with ThreadPoolExecutor(4) as pool:
        loops = set(pool.map(by_dtype, [np.dtype(np.float32)] * 20))
    assert loops == {("a loop", numba.float32[::1])}
    assert compiled == [(numba.float32[::1], True)]
    assert by_dtype(np.dtype(np.float64)) == ("a loop", numba.float64[::1])
