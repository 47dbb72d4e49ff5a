"""The regularizers that the other tests run over: one of every class, and the sums."""

from __future__ import annotations

import numpy as np

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
    Simplex,
    SortedL1,
    SquaredL2,
    SumOfKLargest,
    Tanh,
    Tilt,
    Translated,
    TreeGroups,
    Zero,
)

PER_COORDINATE = np.array([0.0, 0.2, 0.9, 0.4, 1.5])

SEPARABLE = [
    Zero(),
    L1(),
    0.3 * L1(),
    PER_COORDINATE * L1(),
    0.4 * L0(),
    PER_COORDINATE * L0(),
    0.7 * SquaredL2(),
    PER_COORDINATE * SquaredL2(),
    NonNegative(),
    Box(-0.5, 1.2),
    Box(0.25, 1.0),
    Box(-PER_COORDINATE, PER_COORDINATE),
    LInfBall(0.7),
    0.8 * MCP(2.0),
    0.8 * SCAD(3.0, 0.5),
    SCAD(3.7, 0.5 + PER_COORDINATE),
    0.8 * CappedL1(0.9),
    CEL0(1.2, 0.4),
    0.8 * Huber(0.6),
    Tilt(np.array([-0.5, -0.3, 0.4, 0.0, 1.0])),
    AsymmetricL0(0.2, 0.6),
    Translated(0.3 * L1(), 0.4),
]

TRANSCENDENTAL = [
    0.5 * Lq(0.5),
    0.5 * Lq(2 / 3),
    0.5 * Lq(0.3),
    0.5 * LogSum(0.4),
    0.5 * Tanh(0.7),
]

SUMS = [
    0.3 * L1() + NonNegative(),
    0.4 * L0() + NonNegative(),
    0.7 * SquaredL2() + NonNegative(),
    0.3 * L1() + 0.7 * SquaredL2(),
    0.3 * L1() + 0.7 * SquaredL2() + NonNegative(),
    PER_COORDINATE * L1() + 0.7 * SquaredL2() + NonNegative(),
    0.4 * L0() + 0.7 * SquaredL2(),
    0.4 * L0() + PER_COORDINATE * SquaredL2() + NonNegative(),
    0.3 * L1() + 0.4 * L0(),
    0.3 * L1() + PER_COORDINATE * L0() + NonNegative(),
    0.3 * L1() + 0.4 * L0() + 0.7 * SquaredL2(),
    0.3 * L1() + Box(-0.5, 1.2),
    0.4 * L0() + Box(-0.5, 1.2),
    0.3 * L1() + 0.4 * L0() + 0.7 * SquaredL2() + Box(-0.5, 1.2),
    0.8 * MCP(2.0) + NonNegative(),
    0.8 * MCP(2.0) + 0.7 * SquaredL2() + 0.2 * L0(),
    0.8 * Huber(0.6) + Box(-0.5, 1.2),
    0.4 * L0() + NonNegative() + Tilt(-0.3),
]

GROUPS = [0, 2, 0, 2, 1]
JOINT = [
    0.4 * GroupL2(GROUPS),
    0.3 * L1() + 0.4 * GroupL2(GROUPS) + NonNegative(),
    0.5 * GroupL0(GROUPS),
    GroupCardinality(1, GROUPS),
    0.2 * L1() + NonNegative() + GroupCardinality(1, GROUPS),
    0.3 * TreeGroups([[0, 1], [0, 1, 2], [3]]),
    Simplex(2.5),
    L1Ball(1.0),
    L2Ball(0.8),
    0.3 * LInf(),
    SortedL1([1.0, 0.6, 0.3, 0.3, 0.0]),
    0.3 * SumOfKLargest(2),
    0.3 * KSupport(2),
    0.3 * KSupportNorm(2),
    0.4 * KSupportNorm(3) + NonNegative() + Tilt(0.2),
    0.5 * L1MinusL2(),
    Entmax(1.5),
    Blocks([(0.3 * L1(), 2), (Simplex(), 3)]),
]
