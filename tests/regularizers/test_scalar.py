"""The scalar catalogue: values against their defining integrals, proxes against a search of the whole line."""

import itertools

import numpy as np
import pytest
from definitions import SCALAR_CLASSES, SCALARS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from proxsae.regularizers import (
    CEL0,
    L0,
    L1,
    MCP,
    SCAD,
    AsymmetricL0,
    Box,
    CappedL1,
    Cardinality,
    Huber,
    LogSum,
    Lq,
    NonNegative,
    Tanh,
    Tilt,
    Translated,
    get,
)

STEPS = (0.03, 0.5, 1.0, 3.0, 20.0)


def objective(R, z, u, t):
    """F(z) = (z - u)^2 / 2 + t R(z) for an array of scalars z."""
    return 0.5 * (z - u) ** 2 + t * R.value(z[:, None])


def least(R, u, t):
    """The least of F on the whole line: zero, u, a dense grid, and every valley of it searched again on finer grids."""
    reach = abs(u) + 3.0
    z = np.union1d(np.linspace(-reach, reach, 2001), [0.0, u])
    F = objective(R, z, u, t)
    best = F.min()
    padded = np.concatenate([[np.inf], F, [np.inf]])
    valleys = np.flatnonzero((padded[:-2] >= F) & (padded[2:] >= F) & np.isfinite(F))
    for i in valleys[np.argsort(F[valleys])[:4]]:
        low, high = z[max(i - 1, 0)], z[min(i + 1, len(z) - 1)]
        for _ in range(5):
            fine = np.linspace(low, high, 101)
            F_fine = objective(R, fine, u, t)
            j, width = F_fine.argmin(), (high - low) / 50
            low, high = fine[j] - width, fine[j] + width
            best = min(best, F_fine[j])
    return best


def points():
    """Inputs where the formulas branch, and a few others."""
    return np.concatenate([np.linspace(-5, 5, 11), [0.05, 0.31, -0.77, -1.21, 1.47, 2.63, 40.0, -40.0]])


@pytest.mark.parametrize("R", SCALARS, ids=repr)
def test_prox_is_the_least_on_the_whole_line(R):
    for t in STEPS:
        U = points()
        Z = R.prox(U[:, None], t)[:, 0]
        for u, z in zip(U, Z, strict=True):
            excess = objective(R, np.array([z]), u, t)[0] - least(R, u, t)
            assert excess <= 1e-9 * (1 + u * u), f"{R}: prox_{t}({u}) = {z}"


@pytest.mark.parametrize("R", SCALARS, ids=repr)
@settings(derandomize=True, deadline=None, max_examples=8)
@given(u=st.floats(-30, 30), t=st.floats(1e-3, 100))
def test_prox_is_the_least_for_any_input_and_step(R, u, t):
    z = R.prox(np.array([u]), t)
    assert objective(R, z, u, t)[0] <= least(R, u, t) + 1e-9 * (1 + u * u + t)


SLOPES = {  # the definitions by their slopes, as their authors give them
    MCP(1.7): lambda x: max(1 - x / 1.7, 0),
    SCAD(3.0, 0.6): lambda x: 1.0 if x <= 0.6 else max(3.0 * 0.6 - x, 0) / ((3.0 - 1) * 0.6),
    CappedL1(0.8): lambda x: float(x < 0.8),
    CEL0(2.0, 0.7): lambda x: 4.0 * max(np.sqrt(1.4) / 2.0 - x, 0),
    LogSum(0.4): lambda x: 1 / (x + 0.4),
    Tanh(0.5): lambda x: 2 / np.cosh(2 * x) ** 2,
    Huber(0.9): lambda x: min(x / 0.9, 1),
    Lq(0.7): lambda x: 0.7 * x**-0.3,
    Lq(0.5): lambda x: 0.5 * x**-0.5,
}


@pytest.mark.parametrize("R", SLOPES, ids=repr)
def test_value_is_the_integral_of_the_slope(R):
    for z in (0.1, 0.5, 0.75, 1.3, 4.0):
        expected = (
            quad(SLOPES[R], 0, z, points=[0.3, 0.6, 0.8, 1.2, 1.7, 1.8])[0]
            if z > 2
            else quad(SLOPES[R], 0, z, limit=200)[0]
        )
        assert R.value(np.array([z])) == pytest.approx(expected, abs=2e-7)
        assert R.value(np.array([-z])) == R.value(np.array([z]))


THRESHOLDS = [  # (R, step, the jump from zero): at the jump itself the smaller support wins
    (MCP(1.0), 4.0, 2.0), (CappedL1(0.5), 4.0, 2.0), (SCAD(3.0, 1.0), 9.0, 6.0), (CEL0(1.0, 2.0), 1.0, 2.0),
    (Lq(0.5), 1.0, 1.5), (AsymmetricL0(2.0, 0.5), 1.0, 2.0), (L1(), 2.0, 2.0), (MCP(3.0), 2.0, 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("R", "t", "jump"), THRESHOLDS, ids=repr)
def test_zero_wins_at_the_threshold_and_not_beyond(R, t, jump):
    assert R.prox(np.array([jump]), t)[0] == 0
    assert R.prox(np.array([jump * (1 + 1e-12)]), t)[0] > 0
    assert R.prox(np.array([-jump]), t)[0] <= 0


@pytest.mark.parametrize(
    "r", [MCP(1.0), SCAD(), 0.7 * Lq(0.5), CappedL1(0.5), LogSum(0.3), AsymmetricL0(0.1, 0.4), Tilt(-0.3)], ids=repr
)
@pytest.mark.parametrize("sign", [False, True])
def test_cardinality_takes_any_partner(r, sign):
    partner = r + NonNegative() if sign else r
    rng = np.random.default_rng(3)
    for k, t in itertools.product((1, 2), (0.5, 2.0)):
        R = partner + Cardinality(k)
        for u in rng.normal(size=(20, 4)) * 2:
            z = R.prox(u, t)
            assert np.count_nonzero(z) <= k
            free = partner.prox(u, t)
            candidates = [np.where(np.isin(range(4), kept), free, 0.0) for kept in itertools.combinations(range(4), k)]
            F = [0.5 * np.sum((c - u) ** 2) + t * partner.value(c) for c in candidates]
            assert 0.5 * np.sum((z - u) ** 2) + t * R.value(z) == pytest.approx(min(F), abs=1e-12)


def test_per_coordinate_parameters_act_each_on_its_own():
    gamma, weight = np.array([0.3, 1.0, 5.0]), np.array([0.5, 1.0, 2.0])
    U = np.random.default_rng(4).normal(size=(30, 3)) * 3
    together = (weight * MCP(gamma) + NonNegative()).prox(U, 1.5)
    for i in range(3):
        alone = (weight[i] * MCP(gamma[i]) + NonNegative()).prox(U[:, [i]], 1.5)
        assert np.array_equal(together[:, [i]], alone)


def test_lq_takes_a_number_of_any_kind():
    assert Lq(np.float32(0.5)) == Lq(np.array(0.5)) == Lq(0.5)


def test_limits_of_lq_are_hard_and_soft():
    U = np.linspace(-5, 5, 101)[:, None]
    np.testing.assert_allclose(Lq(1e-9).prox(U, 0.7), L0().prox(U, 0.7), atol=1e-6)
    np.testing.assert_allclose(Lq(1 - 1e-9).prox(U, 0.7), L1().prox(U, 0.7), atol=1e-6)


def test_named_activations_are_their_formulas():
    u = np.linspace(-4, 4, 801)
    firm = np.sign(u) * np.where(abs(u) <= 1, 0, np.where(abs(u) <= 3, 3 * (abs(u) - 1) / 2, abs(u)))
    np.testing.assert_allclose(get("firm", lam=1.0, mu=3.0).prox(u), firm, atol=1e-12)
    two_sided = np.where((u > 1.5) | (u < -0.55), u, 0)
    assert np.array_equal(get("jumprelu2", positive=1.5, negative=0.55).prox(u), two_sided)
    for threshold, shift in ((1.503, 0.5), (0.255, -0.75), (0.2, 0.905)):
        expected = np.maximum(u - shift, 0) * (u > threshold)
        np.testing.assert_allclose(get("gated", threshold=threshold, shift=shift).prox(u), expected, atol=1e-12)


def test_cel0_has_the_prox_of_l0_from_unit_step_on():
    U = np.random.default_rng(5).normal(size=(50, 4)) * 2
    for a, t in ((1.0, 1.0), (0.5, 4.0), (2.0, 1.0)):
        assert np.array_equal(CEL0(a, 0.8).prox(U, t), (0.8 * L0()).prox(U, t))


def test_zero_weight_is_no_penalty():
    U = np.linspace(-3, 3, 13)[:, None]
    for R in SCALAR_CLASSES:
        if not R.is_indicator:
            np.testing.assert_allclose((0.0 * R).prox(U), U, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: MCP(0.0), "gamma must be positive"), (lambda: SCAD(1.0), "a must exceed 1"),
        (lambda: Lq(1.0), "between 0 and 1"), (lambda: Lq(np.array([0.5])), "q must be a finite number > 0"),
        (lambda: Lq(None), "q must be a finite number > 0"),
        (lambda: CappedL1(-1.0), "theta"), (lambda: LogSum(0.0), "delta"),
        (lambda: Tanh(0.0), "scale"), (lambda: Huber(-1.0), "alpha"), (lambda: AsymmetricL0(-1.0, 0.0), "positive"),
        (lambda: CEL0(0.0), "a must be positive"), (lambda: MCP() + SCAD(), "no calculus rule"),
        (lambda: MCP() + Box(-1, 1), "no calculus rule"),
        (lambda: Translated(L1(), 1.0) + Cardinality(2), "no calculus rule"), (lambda: -1.0 * MCP(), "weight"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_in_words(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
