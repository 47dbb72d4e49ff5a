"""Sums and products of rows, and largest entries: every number of rows and length beside the blocks they go by."""

import numpy as np
import pytest

from proxsae.solvers.compiled_rows import LOOK, add_rows, largest, products_of


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", range(10))
def test_rows_are_added(m, dtype):
    rng = np.random.default_rng(m)
    G, index, w = rng.standard_normal((12, 37)).astype(dtype), rng.integers(0, 12, 9), rng.standard_normal(9)
    a = rng.standard_normal(37).astype(dtype)
    expected = a + w[:m] @ G[index[:m]].astype(np.float64)
    add_rows(G, index, w, m, a)
    assert a.dtype == dtype
    np.testing.assert_allclose(a, expected, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", range(10))
def test_products_with_rows_are_written(m, dtype):
    rng = np.random.default_rng(m)
    D, index, x = rng.standard_normal((12, 37)).astype(dtype), rng.integers(0, 12, 9), rng.standard_normal(37)
    out = np.full(9, 7.0)
    products_of(D, index, m, x.astype(dtype), out)
    np.testing.assert_allclose(out[:m], D[index[:m]].astype(np.float64) @ x.astype(dtype), atol=1e-12)
    assert (out[m:] == 7.0).all()


@pytest.mark.parametrize("n", [0, 1, LOOK - 1, LOOK, LOOK + 1, 3 * LOOK + 5])
def test_the_largest_entry_is_found_wherever_it_is(n):
    rng = np.random.default_rng(n)
    for place in range(n):
        a = -rng.random(n)
        a[place] = rng.choice([-1e-9, 2.0, np.inf])
        assert largest(a) == a.max() == a[place]
    assert largest(np.full(n, -np.inf)) == -np.inf
