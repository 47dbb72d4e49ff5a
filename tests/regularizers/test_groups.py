"""Group penalties: against cvxpy where convex, against every choice of groups where not."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from definitions import GROUP_DEFINITIONS, GROUP_WEIGHTS, LABELS, MEMBERS

from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    Box,
    Cardinality,
    GroupCardinality,
    GroupL0,
    GroupL2,
    NonNegative,
    SquaredL2,
    TreeGroups,
)


def points(n=6, p=7):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(n, p)) * 2, np.zeros((1, p)), np.eye(1, p, 2) * -3])


@pytest.mark.parametrize(
    ("R", "value", "nonnegative"), GROUP_DEFINITIONS, ids=lambda x: repr(x) if hasattr(x, "prox") else ""
)
def test_convex_group_penalties_solve_their_problem(R, value, nonnegative):
    assert R.is_convex
    assert R.is_nonnegative == nonnegative
    for t in (0.4, 2.0):
        for u, claimed in zip(points(), R.prox(points(), t), strict=True):
            z = cp.Variable(7, nonneg=nonnegative)
            problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - u) + t * value(z)))
            problem.solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(claimed, z.value, atol=2e-4)
            assert 0.5 * np.sum((claimed - u) ** 2) + t * R.value(claimed) <= problem.value + 1e-7
            z.value = claimed
            assert R.value(claimed) == pytest.approx(value(z).value, abs=1e-9)


def by_choice(R, partner, u, t, counted):
    """The least of 1/2 ||z - u||^2 + t R(z): every set of groups, the rest zero, the partner's prox inside."""
    best = np.inf
    for kept in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
        inside = np.isin(np.arange(7), [i for g in kept for i in MEMBERS[g]])
        z = np.where(inside, partner.prox(np.where(inside, u, 0.0), t), 0.0)
        cost = counted(kept)
        best = min(best, 0.5 * np.sum((z - u) ** 2) + t * (partner.value(z) + cost))
    return best


PARTNERS = [
    None,
    NonNegative(),
    0.3 * L1(),
    0.5 * MCP(1.0) + NonNegative(),
    0.2 * L0(),
    0.3 * GroupL2(LABELS),
    0.2 * GroupL2(LABELS, GROUP_WEIGHTS) + 0.1 * L1() + NonNegative() + SquaredL2(),
]


@pytest.mark.parametrize("partner", PARTNERS, ids=repr)
@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
def test_group_selections_are_the_best_choice_of_groups(partner, t):
    def whole(R):
        return R if partner is None else partner + R

    alone = 0.0 * L1() if partner is None else partner
    count = 0.6 * GroupL0(LABELS, GROUP_WEIGHTS)
    costs = [0.6 * GROUP_WEIGHTS[label] for label in (0, 2, 3)]
    cases = [
        (whole(0.8 * GroupL0(LABELS)), lambda kept: 0.8 * len(kept)),
        (whole(count), lambda kept: sum(costs[g] for g in kept)),
        (whole(GroupCardinality(1, LABELS)), lambda kept: 0 if len(kept) <= 1 else np.inf),
        (whole(GroupCardinality(2, LABELS)), lambda kept: 0 if len(kept) <= 2 else np.inf),
        (whole(count) + GroupCardinality(2, LABELS), lambda k: sum(costs[g] for g in k) if len(k) <= 2 else np.inf),
    ]
    for R, counted in cases:
        for u in points():
            z = R.prox(u, t)
            value = 0.5 * np.sum((z - u) ** 2) + t * R.value(z)
            assert value == pytest.approx(by_choice(R, alone, u, t, counted), abs=1e-12)


def test_a_group_size_means_consecutive_groups():
    U = np.random.default_rng(2).normal(size=(9, 6))
    for R, S in (
        (GroupL2(3), GroupL2([0, 0, 0, 1, 1, 1])),
        (GroupCardinality(1, 2), GroupCardinality(1, [0, 0, 1, 1, 2, 2])),
    ):
        assert np.array_equal(R.prox(U), S.prox(U))
    assert np.array_equal(GroupCardinality(2, 1).prox(U), Cardinality(2).prox(U))


def test_ties_thresholds_and_empty_input():
    u = np.array([3.0, 4.0, 0.0, 0.0, -4.0, 3.0])
    assert np.array_equal(GroupCardinality(1, 2).prox(u), [3, 4, 0, 0, 0, 0])
    assert not GroupL0(6).prox(np.array([[1.0, 1.0, 1.0, 1.0, 0, 0]]), 2.0).any()  # ||u||^2 / 2 = 2 = t: zero wins
    assert not GroupL2(2, [5.0, 5.0, 5.0]).prox(u).any()  # ||u_g|| = t c_g
    assert not GroupCardinality(0, 2).prox(u).any()
    assert GroupL2(2).prox(np.zeros((0, 6))).shape == (0, 6)
    assert GroupL2(np.array([], dtype=int)).prox(np.zeros((4, 0))).shape == (4, 0)
    assert np.array_equal(GroupCardinality(9, 2).prox(u), u)
    assert np.signbit(GroupL2(2).prox(-0.0 * u)).sum() == 0


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: GroupL2(0), "at least 1"),
        (lambda: GroupL2([0.5, 1.0]), "integer label"),
        (lambda: GroupL2([0, 1], [1.0]), "labels go from 0 to 1"),
        (lambda: GroupL2(4).prox(np.zeros(6)), "cannot be split into groups of 4"),
        (lambda: GroupL2([0, 1]).prox(np.zeros(6)), "2 labels and the codes have 6"),
        (lambda: GroupL2(2, [1.0]).prox(np.zeros(6)), "1 entries for 3 groups"),
        (lambda: GroupCardinality(-1, 2), "s must be an integer >= 0"),
        (lambda: TreeGroups([[0, 1], [1, 2]]), "nested or disjoint"),
        (lambda: TreeGroups([[0, 5]]).prox(np.zeros(3)), "index 5 and the codes have 3"),
        (lambda: GroupL2(2) + MCP(), "no calculus rule"),
        (lambda: GroupL2(2) + GroupL2(3), "no calculus rule"),
        (lambda: GroupL2(2) + GroupL0(3), "no calculus rule"),
        (lambda: GroupL2(2) + Cardinality(3), "no calculus rule"),
        (lambda: GroupL0(2) + Box(1.0, 2.0), "no calculus rule"),
        (lambda: np.ones(2) * GroupL2(2), "one number >= 0"),
        (lambda: GroupL2(2).prox(np.zeros((3, 4)), np.ones((3, 4))), "one step for each code"),
    ],
)
def test_bad_input_is_refused_in_words(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
