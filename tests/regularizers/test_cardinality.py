"""The gain rule against brute force: every support, and for each a scalar search that does not know the prox."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsae.regularizers import L0, L1, Box, Cardinality, NonNegative, SquaredL2, Zero

WEIGHTS = np.array([0.1, 0.9, 0.0, 0.5])
PARTNERS = [
    Zero(),
    NonNegative(),
    0.3 * L1(),
    0.3 * L1() + NonNegative(),
    0.5 * SquaredL2(),
    0.4 * L0(),
    0.4 * L0() + NonNegative(),
    0.2 * L1() + 0.3 * L0() + 0.5 * SquaredL2(),
    Box(-0.5, 1.0),
    Box(-1.0, 1.0),
    0.2 * L1() + Box(0.0, 1.0),
    WEIGHTS * L1(),
    WEIGHTS * L0() + NonNegative(),
    Box(-WEIGHTS, 2.0 * WEIGHTS),
]
GRID = np.arange(-600, 601) / 200  # holds 0, and every kink and bound of the partners


def scalar_optima(partner, u: np.ndarray, t: float) -> np.ndarray:
    """Return min_z 1/2 (z - u_i)^2 + t r_i(z) over a grid, for each i: an upper bound, good to the grid's step."""
    best = []
    for i, x in enumerate(u):
        r = partner if partner.is_uniform else partner.at(np.array([i]))
        candidates = np.append(GRID, x)
        best.append((0.5 * (candidates - x) ** 2 + t * r.value(candidates[:, None])).min())
    return np.array(best)


def brute_force(partner, u: np.ndarray, t: float, k: int) -> float:
    """Return the least objective over all supports of at most k of the entries."""
    free, pinned = scalar_optima(partner, u, t), 0.5 * u**2
    supports = [list(s) for size in range(k + 1) for s in combinations(range(len(u)), size)]
    return min(pinned.sum() - pinned[s].sum() + free[s].sum() for s in supports)


def objective(R, u, z, t):
    return 0.5 * ((z - u) ** 2).sum() + t * R.value(z)


@pytest.mark.parametrize("partner", PARTNERS, ids=repr)
@pytest.mark.parametrize("t", [0.3, 1.0, 6.0])
def test_no_support_is_better(partner, t):
    rng = np.random.default_rng(0)
    for k in range(5):
        R = partner + Cardinality(k)
        for u in rng.normal(size=(6, 4)):
            z = R.prox(u, t)
            assert (z != 0).sum() <= k
            found = brute_force(partner, u, t, k)
            assert objective(R, u, z, t) <= found + 1e-12
            assert found <= objective(R, u, z, t) + 1e-4  # the grid comes as close as its step


@pytest.mark.parametrize("partner", [p for p in PARTNERS if p.is_uniform], ids=repr)
def test_batch_scope_is_sample_scope_of_the_whole_matrix(partner):
    U = np.random.default_rng(1).normal(size=(3, 4))
    for k in range(5):
        R = partner + Cardinality(k, "batch")
        Z = R.prox(U, 0.7)
        np.testing.assert_array_equal(Z.ravel(), (partner + Cardinality(3 * k)).prox(U.ravel(), 0.7))
        assert (Z != 0).sum() <= 3 * k
        np.testing.assert_array_equal(R.value(Z), partner.value(Z))
        if (Z != 0).any():
            above = np.where(Z == 0, 0.5, Z) if not partner.is_scale_free else np.ones((3, 4))
            assert k == 4 or np.isinf(R.value(above)).all()


@pytest.mark.parametrize("partner", PARTNERS, ids=repr)
def test_batch_scope_against_brute_force(partner):
    U = np.random.default_rng(2).normal(size=(2, 4))
    R = partner + Cardinality(1, "batch")
    Z = R.prox(U, 0.8)
    free = np.concatenate([scalar_optima(partner, u, 0.8) for u in U])
    pinned = 0.5 * U.ravel() ** 2
    found = min(pinned.sum() - (pinned - free)[list(s)].sum() for s in combinations(range(8), 2))
    mine = 0.5 * ((Z - U) ** 2).sum() + 0.8 * R.value(Z).sum()
    assert mine <= found + 1e-12
    assert found <= mine + 1e-4


@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("partner", PARTNERS, ids=repr)
def test_numpy_and_torch_select_alike(partner, scope):
    rng = np.random.default_rng(3)
    for dtype in ("float32", "float64"):
        for U in (rng.normal(size=(30, 4)), rng.integers(-2, 3, size=(60, 4)) * 0.5):  # the second is full of ties
            U = U.astype(dtype)
            for k in (0, 1, 3, 4):
                R = partner + Cardinality(k, scope)
                ours, theirs = R.prox(U, 0.6), R.prox(torch.from_numpy(U), 0.6).numpy()
                assert ours.dtype == theirs.dtype == dtype
                np.testing.assert_array_equal(ours.view(np.uint8), theirs.view(np.uint8))


@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("partner", PARTNERS, ids=repr)
def test_support_holds_the_prox(partner, scope):
    U = np.random.default_rng(4).normal(size=(9, 4))
    R = partner + Cardinality(2, scope)
    Z = R.prox(U)
    for array in (U, torch.from_numpy(U)):
        offsets, indices = (np.asarray(part) for part in R.support_rule(4, "float64")(array))
        assert offsets[0] == 0
        assert offsets[-1] == len(indices)
        inside = np.zeros(U.shape, bool)
        for i in range(len(U)):
            row = indices[offsets[i] : offsets[i + 1]]
            assert (np.diff(row) > 0).all()
            inside[i, row] = True
        assert not Z[~inside].any()
        assert inside.sum() <= 2 * len(U)


def test_value_counts():
    R = 0.5 * L1() + Cardinality(2)
    np.testing.assert_array_equal(R.value(np.array([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0], [0, 0, 0]])), [1.5, np.inf, 0])
    batch = Cardinality(1, "batch")
    np.testing.assert_array_equal(batch.value(np.array([[1.0, 2.0], [0.0, 0.0]])), [0.0, 0.0])
    np.testing.assert_array_equal(batch.value(np.array([[1.0, 2.0], [0.0, 1.0]])), [np.inf, np.inf])


def test_gradient_flows_through_the_selected_entries_alone():
    U = torch.tensor([[3.0, -2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    R = 0.5 * L1() + 1.0 * SquaredL2() + Cardinality(2)
    R.prox(U).sum().backward()
    assert U.grad.tolist() == [[0.5, 0.5, 0.0]]


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=7),
    st.integers(0, 8),
    st.sampled_from([Zero(), NonNegative(), 0.5 * L1(), 2.0 * L0()]),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_among_equals_the_lowest_index(u, k, partner):
    u = np.array(u, float)
    alone = partner.prox(u)
    gains = 0.5 * u**2 - (0.5 * (alone - u) ** 2 + np.array([partner.value(z) for z in alone[:, None]]))
    ranked = sorted(range(len(u)), key=lambda i: (-gains[i], i))[:k]
    expected = np.zeros(len(u))
    expected[ranked] = alone[ranked]
    np.testing.assert_array_equal((partner + Cardinality(k)).prox(u), expected)
