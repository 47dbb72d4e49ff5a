"""The selections and sparse products against sorting and dense products."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxsae.kernels import top_k
from proxsae.kernels.sparse import (
    LinearAt,
    Pattern,
    Product,
    row_dots,
    row_dots_plain,
    transposed_product,
    transposed_product_plain,
)
from proxsae.kernels.top_k import Outside, matrix_support, pattern_of, row_support, top_k_mask
from proxsae.regularizers import parse


def mask_by_sorting(ranks: np.ndarray, k: int) -> np.ndarray:
    """Mark the k largest positive entries of each row, the lowest index among equals, by a stable sort."""
    order = np.argsort(-ranks, axis=-1, kind="stable")[:, :k]
    mask = np.zeros(ranks.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask & (ranks > 0)


def matrices(max_side: int = 200):
    # few distinct values, so that ties are the rule
    shape = st.tuples(st.integers(0, 4), st.integers(1, max_side))
    return st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: shape.flatmap(lambda s: arrays(dtype, s, elements=st.integers(-6, 6).map(float)))
    )


@settings(derandomize=True, deadline=None, max_examples=150)
@given(matrices(), st.integers(0, 220), st.sampled_from([-1.0, 1.0]))
def test_row_selection_is_a_stable_sort_in_every_version(U, k, mirror):
    ranks = np.maximum(U, mirror * U)
    expected = mask_by_sorting(ranks, k)
    np.testing.assert_array_equal(top_k_mask(ranks, k), expected)
    np.testing.assert_array_equal(top_k_mask(torch.from_numpy(ranks), k).numpy(), expected)
    for kind in (U, torch.from_numpy(U)):
        offsets, indices = row_support(kind, k, mirror)
        assert type(offsets) is type(kind)
        for got, wanted in zip((offsets, indices), pattern_of(expected), strict=True):
            np.testing.assert_array_equal(np.asarray(got), wanted)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(matrices(60), st.integers(0, 260), st.sampled_from([-1.0, 1.0]))
def test_matrix_selection_is_a_stable_sort_of_all_entries(U, k, mirror):
    ranks = np.maximum(U, mirror * U)
    expected = mask_by_sorting(ranks.reshape(1, -1), k).reshape(U.shape)
    for kind in (U, torch.from_numpy(U)):
        for got, wanted in zip(matrix_support(kind, k, mirror), pattern_of(expected), strict=True):
            np.testing.assert_array_equal(np.asarray(got), wanted)


def test_selection_of_a_wide_matrix_of_distinct_values():
    U = np.random.default_rng(0).normal(size=(300, 5000)).astype(np.float32)
    U[7, 40:] = -1e-30  # fewer positive ones than most k
    for k in (1, 32, 288, 700, 2500, 4999):
        for mirror in (-1.0, 1.0):
            expected = pattern_of(mask_by_sorting(np.maximum(U, mirror * U), k))
            for got, wanted in zip(row_support(U, k, mirror), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)
    offsets, indices = matrix_support(U, 32 * 300, -1.0)
    expected = pattern_of(mask_by_sorting(abs(U).reshape(1, -1), 32 * 300).reshape(U.shape))
    np.testing.assert_array_equal(offsets, expected[0])
    np.testing.assert_array_equal(indices, expected[1])


@pytest.fixture(params=[(7, 5), (60, 64), (60, 150)], ids=str)
def sparse_problem(request):
    n, d = request.param  # entries and features beyond what a loop takes at a time, and not
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(n, 11, generator=generator, dtype=torch.float64)
    Z[torch.rand(n, 11, generator=generator) < 0.7] = 0
    Z[3] = 0  # a row without codes, and a column that no row uses
    Z[:, 4] = 0
    pattern = Pattern(*pattern_of(Z != 0), n_columns=11)
    D = torch.randn(11, d, generator=generator, dtype=torch.float64)
    G = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return Z, pattern, D, G


def test_sparse_products_equal_dense_ones(sparse_problem):
    Z, pattern, D, G = sparse_problem
    values = pattern.gather(Z)
    assert torch.equal(values, Z[Z != 0])
    for dots in (row_dots, row_dots_plain):
        torch.testing.assert_close(dots(pattern, G, D), pattern.gather(G @ D.T))
    for product in (transposed_product, transposed_product_plain):
        torch.testing.assert_close(product(pattern, values, G), Z.T @ G)


def test_gradients_of_sparse_products(sparse_problem):
    Z, pattern, D, G = sparse_problem
    values = pattern.gather(Z).requires_grad_()
    torch.testing.assert_close(Product.apply(pattern, values, D), Z @ D)
    assert torch.autograd.gradcheck(lambda v, d: Product.apply(pattern, v, d), (values, D.clone().requires_grad_()))
    W, b = D.clone().requires_grad_(), torch.zeros(11, dtype=torch.float64, requires_grad=True)

    def entries(x, W, b):
        return LinearAt.apply(pattern, pattern.gather(x @ W.T + b).detach(), x, W, b)

    sparse = torch.autograd.grad(entries(G, W, b).square().sum(), (W, b))
    dense = torch.autograd.grad(pattern.gather(G @ W.T + b).square().sum(), (W, b))
    for got, wanted in zip(sparse, dense, strict=True):
        torch.testing.assert_close(got, wanted)


def test_empty_pattern():
    pattern = Pattern(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 6)
    D = torch.randn(6, 2)
    assert torch.equal(Product.apply(pattern, torch.zeros(0), D), torch.zeros(3, 2))
    assert torch.equal(transposed_product(pattern, torch.zeros(0), torch.randn(3, 2)), torch.zeros(6, 2))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(matrices(), st.integers(0, 5))
def test_entries_outside_an_interval_for_each_column(U, seed):
    low, high = np.sort(np.random.default_rng(seed).integers(-6, 7, size=(2, U.shape[1])), axis=0)
    expected = pattern_of((U > high) | (U < low))
    for room in (1, 3 * U.shape[1], top_k.ROOM):  # a row, three and all rows at a time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(top_k, "ROOM", room)
            for kind in (U, torch.from_numpy(U)):
                for got, wanted in zip(Outside(low, high)(kind), expected, strict=True):
                    np.testing.assert_array_equal(np.asarray(got), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "text",
    ["0.3*L1", "0.3*L1 + NonNegative", "0.3*L0", "w*L0 + NonNegative", "w*L1 + 0.5*SquaredL2", "NonNegative",
     "SquaredL2", "Box(0.0, 1.0) + 0.2*L0", "Box(-2.0, 1.0) + 0.2*L1", "Box(1.0, 2.0)", "Zero", "LogSum(0.5)"],
)  # fmt: skip
def test_the_dead_zone_is_where_the_prox_is_zero(text, dtype):
    R = parse(text, w=np.linspace(0, 2, 7))
    zone = R.dead_zone(7, dtype, step=0.7)
    if zone is None:
        assert R.prox(np.zeros(7, dtype), 0.7).all()
        return
    for end, outward in zip(zone, (-np.inf, np.inf), strict=True):
        finite = np.isfinite(end)
        inside = np.where(finite, end, np.copysign(1e30, outward)).astype(dtype)
        assert (R.prox(inside, 0.7) == 0).all()
        beyond = np.where(finite, np.nextafter(end, np.array(outward, dtype)), 0).astype(dtype)
        assert (R.prox(beyond, 0.7)[finite] != 0).all()
    U = np.random.default_rng(0).normal(size=(50, 7)).astype(dtype)
    for got, wanted in zip(R.support_rule(7, dtype, 0.7)(U), pattern_of(R.prox(U, 0.7) != 0), strict=True):
        np.testing.assert_array_equal(got, wanted)
