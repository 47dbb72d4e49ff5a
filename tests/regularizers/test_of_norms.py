"""Any scalar regularizer of the norms of groups: against the scalar prox on rays, brute force, and the old formulas."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from definitions import EVEN_SCALARS, INDICATORS, LABELS, MEMBERS, conjugate, of_groups

from proxsae import ProxSAE, solve
from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    SCAD,
    Cardinality,
    GroupCardinality,
    GroupL0,
    GroupL2,
    Huber,
    L2Ball,
    LInfBall,
    Lq,
    NonNegative,
    Numeric,
    OfNorms,
    Separable,
    SquaredL2,
)


def points(n=40, p=7):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(n, p)) * 2, np.zeros((1, p)), np.eye(1, p, 2) * -3])


@pytest.mark.parametrize("r", EVEN_SCALARS, ids=repr)
@pytest.mark.parametrize("t", [0.2, 1.0, 5.0])
def test_each_group_moves_along_its_ray_by_the_scalar_prox(r, t):
    R = of_groups(r)
    costs = [1, 1, 1] if isinstance(r, INDICATORS) else [0.5, 1.5, 0.0]
    for u, z in zip(points(), R.prox(points(), t), strict=True):
        value = 0.0
        for members, cost in zip(MEMBERS, costs, strict=True):
            norm = np.linalg.norm(u[members])
            shrunk = r.prox(np.array([norm]), t * cost)[0] if cost else min(norm, 0.8 if "Box" in repr(r) else np.inf)
            expected = u[members] * (shrunk / norm) if norm else 0 * u[members]
            np.testing.assert_allclose(z[members], expected, rtol=1e-12, atol=1e-15)
            if cost:
                value += cost * r.value(np.array([min(shrunk, 0.8) if "Box" in repr(r) else shrunk]))
        assert R.value(z) == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("r", EVEN_SCALARS, ids=repr)
def test_no_other_code_is_better(r):
    """Random directions and lengths, in groups of two: nothing of the norm enters but its definition."""
    R = OfNorms(r, 2)
    rng = np.random.default_rng(1)
    radii = np.concatenate([[0.0], np.geomspace(1e-3, 8, 80)])
    angles = np.linspace(0, 2 * np.pi, 73)[:-1]
    Z = (radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], -1)).reshape(-1, 2)
    values = R.value(Z)
    for t in (0.3, 2.0):
        for u in rng.normal(size=(20, 2)) * 2:
            p = R.prox(u, t)
            claimed = 0.5 * ((p - u) ** 2).sum() + t * R.value(p)
            assert claimed <= (0.5 * ((Z - u) ** 2).sum(-1) + t * values).min() + 1e-12


def test_the_named_norms_are_of_norms():
    U = points()
    for t in (0.3, 1.0, 4.0):
        for one, other in (
            (GroupL2(LABELS), OfNorms(L1(), LABELS, np.sqrt([2.0, 0.0, 2.0, 3.0]))),
            (0.7 * GroupL0(LABELS), OfNorms(0.7 * L0(), LABELS)),
            (L2Ball(1.3), OfNorms(LInfBall(1.3))),
        ):
            np.testing.assert_allclose(one.prox(U, t), other.prox(U, t), rtol=1e-14, atol=1e-15)
            np.testing.assert_allclose(one.value(U), other.value(U), rtol=1e-14)
    assert issubclass(GroupL2, OfNorms)
    assert issubclass(L2Ball, OfNorms)


@pytest.mark.parametrize("r", [L1(), Huber(0.6), SquaredL2(), LInfBall(0.7), L1() + 0.5 * SquaredL2()], ids=repr)
def test_the_conjugate_is_the_supremum(r):
    R = of_groups(r) if isinstance(r, INDICATORS) else OfNorms(0.8 * r, LABELS, [0.5, 7.0, 1.5, 0.9])
    assert R.is_convex
    assert R.has_conjugate
    assert R.has_conjugate_with_ridge
    rng = np.random.default_rng(2)
    Z = R.prox(3 * rng.normal(size=(500, 7)))
    for whole in (R, R + 0.4 * SquaredL2()):
        V = rng.normal(size=(20, 7)) * np.resize([0.1, 0.5, 1.0], 20)[:, None]
        bounds = conjugate(whole, V)
        assert (whole.value(Z)[:, None] + bounds - Z @ V.T >= -1e-9).all()
        z = whole.prox(points())  # u - z is a subgradient at z: there the inequality is an equation
        found = conjugate(whole, (points() - z) * (1 - 1e-12))
        np.testing.assert_allclose(whole.value(z) + found, ((points() - z) * z).sum(-1), rtol=1e-6, atol=1e-6)


def by_choice(r, u, t, most, price):
    """The least objective over every set of kept groups, the scalar prox inside."""
    R = OfNorms(r, LABELS)
    best = np.inf
    for kept in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(most + 1)):
        inside = np.isin(np.arange(7), [i for g in kept for i in MEMBERS[g]])
        z = np.where(inside, R.prox(np.where(inside, u, 0.0), t), 0.0)
        best = min(best, 0.5 * np.sum((z - u) ** 2) + t * (R.value(z) + price * len(kept)))
    return best


@pytest.mark.parametrize("r", [r for r in EVEN_SCALARS if not isinstance(r, INDICATORS)], ids=repr)
def test_counts_of_groups_keep_what_gains_most(r):
    for t in (0.3, 1.5):
        for R, most, price in (
            (OfNorms(r, LABELS) + GroupCardinality(1, LABELS), 1, 0.0),
            (OfNorms(r, LABELS) + 0.4 * GroupL0(LABELS), 3, 0.4),
            (OfNorms(r, LABELS) + 0.4 * GroupL0(LABELS) + GroupCardinality(2, LABELS), 2, 0.4),
        ):
            for u in points(8):
                z = R.prox(u, t)
                assert 0.5 * np.sum((z - u) ** 2) + t * R.value(z) == pytest.approx(by_choice(r, u, t, most, price))


@pytest.mark.parametrize("r", [MCP(1.5), SCAD(3.0, 0.5), Lq(0.5), L0()], ids=repr)
def test_a_partner_goes_first_under_a_norm_that_is_not_convex(r):
    """Sparse group MCP and its like, against a grid of the plane."""
    axis = np.linspace(-4, 4, 321)
    Z = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    for R in (0.3 * L1() + OfNorms(r, 2), 0.3 * L1() + OfNorms(r, 2) + NonNegative() + 0.2 * SquaredL2()):
        values = R.value(Z)
        for u in np.random.default_rng(3).normal(size=(15, 2)) * 2:
            p = R.prox(u, 0.8)
            claimed = 0.5 * ((p - u) ** 2).sum() + 0.8 * R.value(p)
            assert claimed <= (0.5 * ((Z - u) ** 2).sum(-1) + 0.8 * values).min() + 1e-12


def test_weights_are_one():
    assert OfNorms(0.5 * MCP(3.0), 2) == 0.5 * OfNorms(MCP(3.0), 2)
    assert OfNorms(MCP(), 2) + OfNorms(MCP(), 2) == 2 * OfNorms(MCP(), 2)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: OfNorms(NonNegative(), 2), "one even scalar regularizer"),
        (lambda: OfNorms(np.ones(3) * L1(), 2), "one even scalar regularizer"),
        (lambda: OfNorms(GroupL2(2), 2), "one even scalar regularizer"),
        (lambda: OfNorms(LInfBall(), 2, [1.0, 2.0]), "takes no group_weights"),
        (lambda: OfNorms(L1(), None, [1.0, 2.0]), "labels go from 0 to 0"),
        (lambda: OfNorms(L1(), 2) + OfNorms(L1(), 3), "no calculus rule"),
        (lambda: OfNorms(L1(), 2) + Cardinality(2), "no calculus rule"),
    ],
)
def test_bad_input_is_refused_in_words(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


# --- the ends of the range of the numbers ---------------------------------------------------------------------------


def test_squares_neither_overflow_nor_underflow():
    big, one = np.float32([3e20, 4e20]), np.float32([1e20, 1, 1])
    assert GroupL2(2).value(big) == pytest.approx(5e20 * 2**0.5, rel=1e-6)
    np.testing.assert_allclose(L2Ball(1).prox(one), np.float32([1, 1e-20, 1e-20]), rtol=1e-6)
    np.testing.assert_allclose(L2Ball(1).prox(np.array([1e200, 1e0, 0])), [1, 1e-200, 0], rtol=1e-14)
    np.testing.assert_allclose(GroupL2(2).prox(np.array([3e200, 4e200])), [3e200, 4e200], rtol=1e-14)
    assert np.array_equal(L2Ball(1).prox(np.float32([1e-30, 1e-30])), np.float32([1e-30, 1e-30]))
    tiny = np.float32([1e-45, 1e-30, 3e-38, 0])
    assert np.array_equal((0 * GroupL2(2)).prox(tiny), tiny)
    assert np.array_equal((0 * GroupL0(2)).prox(tiny), tiny)
    largest = np.full(2, np.finfo(np.float32).max)
    assert np.array_equal(GroupL2(2).prox(largest), largest)
    np.testing.assert_allclose(L2Ball(1).prox(largest), np.float32([0.5**0.5] * 2), rtol=1e-6)
    assert L2Ball(1).value(np.float32([1e-30, 1e30])) == np.inf
    assert conjugate(GroupL2(2), np.float32([1e-30, 1e-30])) == 0
    assert conjugate(L2Ball(1), np.array([3e200, 4e200])) == pytest.approx(5e200)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-300, -30, -1, 0, 1, 30, 300])
@pytest.mark.parametrize(
    "partner", [None, 0 * L1(), NonNegative(), 0 * OfNorms(MCP(), 2), np.zeros(6) * L1()], ids=repr
)
def test_the_largest_groups_are_kept_at_every_scale(dtype, exponent, partner):
    if dtype is np.float32 and abs(exponent) > 30:
        return
    u = (10.0**exponent * np.array([0.2, 1, 2, 0.1, 1.5, 1.4])).astype(dtype)
    R = GroupCardinality(1, 2) if partner is None else partner + GroupCardinality(1, 2)
    assert np.array_equal(R.prox(u), u * [0, 0, 0, 0, 1, 1])
    C = Cardinality(2) if partner is None or not partner.is_separable else partner + Cardinality(2)
    assert np.array_equal(C.prox(u), u * [0, 0, 1, 0, 1, 0])
    assert np.array_equal(R.prox(torch.from_numpy(u)).numpy(), R.prox(u))


def test_small_groups_beside_large_ones_are_kept():
    u = np.float32([1e30, 0, 1e-30, 0, 0, 0])
    assert np.array_equal(GroupCardinality(2, 2).prox(u), u)
    assert np.array_equal((np.zeros(6) * L1() + Cardinality(2)).prox(u), u)
    u = np.float32([1e15, 0, 1e-30, 0, 0, 0])
    assert np.array_equal((0.0 * L0() + np.zeros(6) * L1()).prox(u), u)


def test_a_constraint_has_no_weight():
    for R in (NonNegative(), L2Ball(2.0), Cardinality(2), GroupCardinality(1, 2), LInfBall(0.3)):
        assert 0 * R == R
        assert 3.0 * R == R
    assert 0 * (L1() + Cardinality(2)) == 0 * L1() + Cardinality(2)
    u = np.array([1.0, 2.0, 3.0])
    assert np.array_equal((0 * (L1() + Cardinality(2))).prox(u), [0, 2, 3])


# --- one line, and everything else ----------------------------------------------------------------------------------


def test_group_mcp_costs_one_line(tmp_path):
    R = 0.05 * OfNorms(MCP(3.0), 4)
    rng = np.random.default_rng(0)
    D = np.linalg.qr(rng.normal(size=(12, 8)))[0].T
    X = rng.normal(size=(30, 8)) @ D
    found = solve(X, D, R)
    assert found.converged.all()
    assert found.certificate_kind == "fixed-point residual"
    assert solve(X, D, 0.05 * OfNorms(Huber(0.1), 4) + 0.01 * SquaredL2()).certificate_kind == "duality gap"
    sae = ProxSAE(R, n_components=8, n_steps=20, random_state=0).fit(X)
    sae.save(tmp_path / "sae.safetensors")
    again = ProxSAE.load(tmp_path / "sae.safetensors")
    assert again.regularizer == R
    assert np.array_equal(again.transform(X).toarray(), sae.transform(X).toarray())


def test_a_scalar_of_ones_own_is_taken():
    class Cauchy(Separable, named=False):
        is_symmetric = True
        is_convex = False

        def value_of(self, xp, z):
            return xp.abs(z) * xp.abs(z)

        def prox_of(self, xp, u, t):
            return u / (1.0 + 2.0 * t)

        def in_units(self, scale):
            return self

    u = points()
    np.testing.assert_allclose(OfNorms(Cauchy(), LABELS).prox(u), u / 3.0)


def test_the_group_lasso_of_huber_solves_its_problem():
    R = OfNorms(0.4 * Huber(0.5), LABELS)
    for u, claimed in zip(points(5), R.prox(points(5), 1.3), strict=True):
        z, norms = cp.Variable(7), cp.Variable(3)
        value = 0.4 * cp.sum(cp.huber(norms, 0.5)) / (2 * 0.5)
        bounds = [cp.norm2(z[g]) <= norms[i] for i, g in enumerate(MEMBERS)]
        cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + 1.3 * value), bounds).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(claimed, z.value, atol=2e-4)


def test_a_scalar_without_a_degree_changes_its_units():
    R, U = OfNorms(0.3 * Numeric(lambda z: np.log1p(z * z), limit=20.0), 2), points(5, 4)
    np.testing.assert_allclose(R.rescaled(2.0).value(2.0 * U), 4.0 * R.value(U), rtol=1e-12)
    np.testing.assert_allclose(R.rescaled(2.0).prox(2.0 * U), 2.0 * R.prox(U), rtol=1e-12)
