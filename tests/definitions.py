"""The regularizers of the tests by kind, with the definitions that a solver reads, and the sums that are special.

The zoo has one of every class; here are other parameters, whose formulas take other branches, and other sums.
"""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
from zoo import PER_COORDINATE

from proxsae.regularizers import (
    CEL0,
    L0,
    L1,
    MCP,
    SCAD,
    AsymmetricL0,
    Blocks,
    Box,
    CappedL1,
    Cardinality,
    Entmax,
    GroupCardinality,
    GroupL0,
    GroupL2,
    Huber,
    KSupport,
    KSupportNorm,
    L1Ball,
    L1MinusL2,
    L2Ball,
    LInf,
    LInfBall,
    LogSum,
    Lq,
    NonNegative,
    OfNorms,
    Simplex,
    SortedL1,
    SquaredL2,
    SumOfKLargest,
    Tanh,
    Tilt,
    Translated,
    TreeGroups,
    gated,
)

# --- one coordinate ---------------------------------------------------------------------------------------------------

SCALAR_CLASSES = [
    MCP(0.4),
    MCP(3.0),
    2.5 * MCP(1.0),
    SCAD(),
    SCAD(1.2, 0.5),
    3.0 * SCAD(2.1, 0.3),
    CappedL1(0.3),
    2.0 * CappedL1(2.0),
    CEL0(),
    CEL0(0.5, 2.0),
    CEL0(3.0, 0.2),
    Lq(0.5),
    Lq(2 / 3),
    0.3 * Lq(0.5),
    4.0 * Lq(2 / 3),
    Lq(0.01),
    Lq(0.3),
    Lq(0.9),
    Lq(0.999),
    LogSum(1.0),
    LogSum(0.1),
    3.0 * LogSum(0.5),
    Tanh(1.0),
    Tanh(0.3),
    2.0 * Tanh(2.0),
    Huber(1.0),
    2.0 * Huber(0.2),
    Tilt(0.7),
    2.0 * Tilt(-0.7),
    AsymmetricL0(0.5, 2.0),
    0.3 * AsymmetricL0(1.0, 0.0),
]
SCALARS_AT_LEAST_ZERO = [R + NonNegative() for R in SCALAR_CLASSES]
SCALAR_SUMS = [
    MCP(1.0) + SquaredL2(), 0.5 * Lq(0.5) + 2.0 * SquaredL2() + NonNegative(), SCAD() + 0.3 * L0(), LogSum(0.5) + L0(),
    gated(1.0, 0.3), gated(0.5, -0.4), gated(-1.0, 0.2), MCP(2.0) + Tilt(-0.6), L1() + Tilt(0.4) + Box(-0.5, 2.0),
    AsymmetricL0(0.2, 0.6) + L0() + Tilt(0.3), Translated(MCP(0.7), 1.5), 2.0 * Translated(L1(), -0.3) + NonNegative(),
    Translated(NonNegative() + L0(), 0.4) + SquaredL2(), Tanh(0.5) + SquaredL2() + L0() + Tilt(0.2) + NonNegative(),
]  # fmt: skip
SCALARS = SCALAR_CLASSES + SCALARS_AT_LEAST_ZERO + SCALAR_SUMS

# --- whole codes ------------------------------------------------------------------------------------------------------

P = 5
SLOPE = np.array([2.0, 1.2, 1.2, 0.3, 0.0])


def by_permutations(weights):
    """The sorted norm as the largest of all orders: the rearrangement inequality."""
    return lambda z: cp.maximum(*(np.array(w) @ cp.abs(z) for w in set(itertools.permutations(weights))))


def k_support_norm(k):
    """The gauge of the hull of k-sparse unit vectors: z as a sum of parts on k coordinates each."""

    def value(z):
        sets = list(itertools.combinations(range(P), k))
        parts = [cp.Variable(k) for _ in sets]
        rows = [np.eye(P)[:, list(s)] for s in sets]
        norm = sum(cp.norm2(part) for part in parts)
        return norm, [z == sum(row @ part for row, part in zip(rows, parts, strict=True))]

    return value


def k_support(k):
    def value(z):
        norm, constraints = k_support_norm(k)(z)
        return 0.5 * cp.square(norm), constraints

    return value


def scaled(weight, definition, nonnegative=False):
    def value(z):
        expression, constraints = definition(z)
        return weight * expression, [*constraints, z >= 0] if nonnegative else constraints

    return value


def inside(*constraints):
    return lambda z: (0.0, [constraint(z) for constraint in constraints])


NOT_NEGATIVE = lambda z: z >= 0  # noqa: E731
VECTOR_DEFINITIONS = [  # (R, its value and constraints in cvxpy, written from the definition)
    (Simplex(), inside(NOT_NEGATIVE, lambda z: cp.sum(z) == 1)),
    (Simplex(3.5), inside(NOT_NEGATIVE, lambda z: cp.sum(z) == 3.5)),
    (L1Ball(1.7), inside(lambda z: cp.norm1(z) <= 1.7)),
    (L1Ball() + NonNegative(), inside(NOT_NEGATIVE, lambda z: cp.sum(z) <= 1)),
    (L2Ball(1.3), inside(lambda z: cp.norm2(z) <= 1.3)),
    (L2Ball() + 0.4 * L1() + NonNegative(), lambda z: (0.4 * cp.norm1(z), [cp.norm2(z) <= 1, z >= 0])),
    (LInfBall(0.7), inside(lambda z: cp.norm_inf(z) <= 0.7)),
    (LInfBall(0.7) + NonNegative(), inside(NOT_NEGATIVE, lambda z: z <= 0.7)),
    (0.8 * LInf(), lambda z: (0.8 * cp.norm_inf(z), [])),
    (LInf() + NonNegative() + SquaredL2(), lambda z: (cp.max(z) + 0.5 * cp.sum_squares(z), [z >= 0])),
    (SortedL1(SLOPE), lambda z: (by_permutations(SLOPE)(z), [])),
    (0.5 * SortedL1(SLOPE) + NonNegative(), lambda z: (0.5 * by_permutations(SLOPE)(z), [z >= 0])),
    (SumOfKLargest(2), lambda z: (by_permutations([1, 1, 0, 0, 0])(z), [])),
    (0.4 * SumOfKLargest(9) + Tilt(0.2), lambda z: (0.4 * cp.norm1(z) + 0.2 * cp.sum(z), [])),
    (KSupport(1), lambda z: (0.5 * cp.square(cp.norm1(z)), [])),
    (KSupport(2), k_support(2)),
    (0.3 * KSupport(3) + NonNegative(), scaled(0.3, k_support(3), nonnegative=True)),
    (KSupport(7), lambda z: (0.5 * cp.sum_squares(z), [])),
    (KSupportNorm(1), lambda z: (cp.norm1(z), [])),
    (0.8 * KSupportNorm(2), scaled(0.8, k_support_norm(2))),
    (0.3 * KSupportNorm(3) + NonNegative(), scaled(0.3, k_support_norm(3), nonnegative=True)),
    (KSupportNorm(9), lambda z: (cp.norm2(z), [])),
]

# --- groups -----------------------------------------------------------------------------------------------------------

LABELS = [0, 2, 0, 3, 3, 2, 3]  # out of order, of different sizes, and group 1 is empty
MEMBERS = [[0, 2], [1, 5], [3, 4, 6]]
NESTED = [[0, 1], [0, 1, 2], [3], [3, 4], [0, 1, 2, 3, 4, 5, 6]]
TREE_WEIGHTS = [0.3, 0.1, 0.0, 0.9, 0.2]
GROUP_WEIGHTS = [0.5, 7.0, 1.5, 0.2]


def group_norms(z, costs):
    return sum(c * cp.norm2(z[g]) for c, g in zip(costs, MEMBERS, strict=True))


ROOTS = [np.sqrt(len(g)) for g in MEMBERS]
GROUP_DEFINITIONS = [  # (R, its value in cvxpy, whether z >= 0)
    (GroupL2(LABELS), lambda z: group_norms(z, ROOTS), False),
    (0.7 * GroupL2(LABELS, GROUP_WEIGHTS), lambda z: 0.7 * group_norms(z, [0.5, 1.5, 0.2]), False),
    (0.3 * L1() + 0.4 * GroupL2(LABELS), lambda z: 0.3 * cp.norm1(z) + 0.4 * group_norms(z, ROOTS), False),
    (GroupL2(LABELS) + NonNegative(), lambda z: group_norms(z, ROOTS), True),
    (
        0.2 * L1() + 0.5 * GroupL2(LABELS) + NonNegative(),
        lambda z: 0.2 * cp.norm1(z) + 0.5 * group_norms(z, ROOTS),
        True,
    ),
    (
        GroupL2(LABELS) + 0.5 * SquaredL2() + Tilt(-0.4) + np.arange(7) * 0.1 * L1(),
        lambda z: (
            group_norms(z, ROOTS)
            + 0.25 * cp.sum_squares(z)
            - 0.4 * cp.sum(z)
            + cp.norm1(cp.multiply(np.arange(7) * 0.1, z))
        ),
        False,
    ),
    (0.3 * TreeGroups(NESTED), lambda z: 0.3 * sum(np.sqrt(len(g)) * cp.norm2(z[g]) for g in NESTED), False),
    (
        TreeGroups(NESTED, TREE_WEIGHTS) + 0.1 * L1() + NonNegative(),
        lambda z: 0.1 * cp.norm1(z) + sum(c * cp.norm2(z[g]) for c, g in zip(TREE_WEIGHTS, NESTED, strict=True)),
        True,
    ),
]


COSTS = [0.5, 7.0, 1.5, 0.0]
EVEN_SCALARS = [
    L1(),
    L0(),
    MCP(2.0),
    SCAD(3.0, 0.5),
    CappedL1(0.9),
    CEL0(1.2, 0.4),
    Lq(0.5),
    Lq(0.3),
    LogSum(0.4),
    Huber(0.6),
    SquaredL2(),
    LInfBall(0.7),
    L1() + 0.5 * SquaredL2(),
    0.3 * L1() + L0(),
    L1() + Box(-0.8, 0.8),
]
INDICATORS = (Box,)


def conjugate(R, V):
    """Return R*(v) of each row v of a matrix, or of one vector."""
    assert R.has_conjugate
    R.check_width(V.shape[-1])
    return R.conjugate_unchecked(V) if V.ndim == 2 else float(R.conjugate_unchecked(V[None, :])[0])


def of_groups(r):
    return OfNorms(r, LABELS, None if isinstance(r, INDICATORS) else COSTS)


# --- translations and blocks ------------------------------------------------------------------------------------------

CENTER = np.array([0.5, -1.0, 0.0, 2.0])


def pairs(z):
    return cp.norm2(z[:2] - CENTER[:2]) + cp.norm2(z[2:] - CENTER[2:])


TRANSLATED_DEFINITIONS = [  # (R, its value in cvxpy, its domain)
    (Translated(LInf(), CENTER), lambda z: cp.norm_inf(z - CENTER), lambda z: []),
    (
        Translated(0.7 * GroupL2(2), CENTER) + SquaredL2(),
        lambda z: 0.7 * np.sqrt(2) * pairs(z) + 0.5 * cp.sum_squares(z),
        lambda z: [],
    ),
    (
        Translated(0.7 * L1(), CENTER) + NonNegative() + Tilt(CENTER),
        lambda z: 0.7 * cp.norm1(z - CENTER) + CENTER @ z,
        lambda z: [z >= 0],
    ),
    (
        Blocks([(LInf(), 3), (0.5 * L1() + NonNegative(), 1)]),
        lambda z: cp.norm_inf(z[:3]) + 0.5 * z[3],
        lambda z: [z[3] >= 0],
    ),
    (
        Blocks([(Simplex(), 2), (Huber(0.5), 2)]) + 0.3 * SquaredL2() + Tilt(-0.2),
        lambda z: cp.sum(cp.huber(z[2:], 0.5)) + 0.15 * cp.sum_squares(z) - 0.2 * cp.sum(z),
        lambda z: [z[:2] >= 0, cp.sum(z[:2]) == 1],
    ),
]


SELECTIONS = [
    Cardinality(2),
    Cardinality(2, "batch"),
    NonNegative() + Cardinality(2),
    0.3 * L1() + NonNegative() + Cardinality(2),
    PER_COORDINATE * L1() + Cardinality(2, "batch"),
]


# --- sums that no list above has --------------------------------------------------------------------------------------

OTHERS = [
    0.5 * Entmax(1.3, 2.0),
    0.7 * L1MinusL2() + NonNegative(),
    GroupL0(LABELS),
    0.3 * L1() + 0.5 * GroupL0(LABELS, GROUP_WEIGHTS) + NonNegative(),
    GroupCardinality(2, LABELS),
    0.3 * GroupL2(LABELS) + GroupL0(LABELS) + GroupCardinality(2, LABELS),
    *(1.5 * of_groups(r) for r in EVEN_SCALARS),
    Translated(MCP(1.0), CENTER),
    Translated(Simplex(2.0), 0.5),
    Blocks([(L0(), 1), (Cardinality(1), 2), (L1MinusL2(), 1)]),
    *SELECTIONS,
]
SPECIAL = [
    *SCALARS,
    *(R for R, _ in VECTOR_DEFINITIONS),
    *(R for R, _, _ in GROUP_DEFINITIONS),
    *(R for R, _, _ in TRANSLATED_DEFINITIONS),
    *OTHERS,
]
