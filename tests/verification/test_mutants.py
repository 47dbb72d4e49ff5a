"""Every wrong formula must be rejected, with a counterexample: mutants of ours, and what others shipped.

The proof is left out for most of them, so that the numerical oracles have to find the error by themselves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proxsae.kernels.top_k import top_k_mask
from proxsae.regularizers import (
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
    SquaredL2,
    Tanh,
    Tilt,
    cardinality,
)
from proxsae.regularizers.sums import WithBox, WithCount, WithRidge, WithTilt
from proxsae.regularizers.translated import TranslatedSeparable
from proxsae.verification import prove, verify

MUTANTS = {}


def mutant(original, name, **formulas):
    """Register the original with some of its formulas replaced."""
    cls = type(f"{type(original).__name__}Mutant", (type(original),), {**formulas})
    twin = object.__new__(cls)
    twin.__dict__.update(original.__dict__)
    MUTANTS[name] = twin


def soft(xp, u, t):
    return xp.sign(u) * xp.maximum(xp.abs(u) - t, 0.0)


W = np.array([0.2, 0.9, 0.5])

# --- soft threshold --------------------------------------------------------------------------------------------------
mutant(L1(), "l1: threshold 2t", prox_of=lambda s, xp, u, t: soft(xp, u, 2.0 * t))
mutant(L1(), "l1: threshold t/2", prox_of=lambda s, xp, u, t: soft(xp, u, 0.5 * t))
mutant(L1(), "l1: threshold t^2", prox_of=lambda s, xp, u, t: soft(xp, u, t * t))
mutant(L1(), "l1: threshold 1.0001 t", prox_of=lambda s, xp, u, t: soft(xp, u, 1.0001 * t))
mutant(L1(), "l1: sign lost", prox_of=lambda s, xp, u, t: xp.maximum(xp.abs(u) - t, 0.0))
mutant(L1(), "l1: sign of zero is one", prox_of=lambda s, xp, u, t: u - xp.where(u >= 0, t, -t))
mutant(L1(), "l1: not shrunk", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > t, u, 0.0))
mutant(L1(), "l1: negative side forgotten", prox_of=lambda s, xp, u, t: xp.where(u > 0, soft(xp, u, t), u))
mutant(L1(), "l1: negative side killed", prox_of=lambda s, xp, u, t: xp.maximum(u - t, 0.0))
mutant(L1(weight=0.4), "l1: weight not in the prox", weighted_prox=lambda s, xp, u, t: s.prox_of(xp, u, t))
mutant(L1(weight=0.4), "l1: step not in the prox", weighted_prox=lambda s, xp, u, t: s.prox_of(xp, u, s.weight))
mutant(L1(weight=0.4), "l1: weight not in the value", weighted_value=lambda s, xp, z: s.value_of(xp, z))
mutant(L1(weight=W), "l1: weights reversed", weighted_prox=lambda s, xp, u, t: soft(xp, u, t * s.weight[[2, 1, 0]]))
mutant(L1(weight=W), "l1: weights off by one", weighted_prox=lambda s, xp, u, t: soft(xp, u, t * s.weight[[1, 2, 0]]))
mutant(L1(weight=W), "l1: first weight for all", weighted_prox=lambda s, xp, u, t: soft(xp, u, t * s.weight[0]))
mutant(
    L1(),
    "l1: threshold from the whole row",
    prox_of=lambda s, xp, u, t: soft(xp, u, t * (1 + (u**2).sum(-1)[..., None])),
)
mutant(L1(), "l1: rescaled forgets the scale", rescaled=lambda s, scale: s)
mutant(L1(), "l1: claims to be non-negative", is_nonnegative=True)
mutant(L1(), "l1: claims to be scale-free", is_scale_free=True)

# --- hard threshold --------------------------------------------------------------------------------------------------
mutant(L0(), "l0: threshold t", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > t, u, 0.0))
mutant(L0(), "l0: the half forgotten", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > xp.sqrt(t), u, 0.0))
mutant(L0(), "l0: threshold 2 sqrt t", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > 2.0 * xp.sqrt(t), u, 0.0))
mutant(L0(), "l0: shrunk", prox_of=lambda s, xp, u, t: soft(xp, u, xp.sqrt(2.0 * t)))
mutant(L0(), "l0: missing jump", prox_of=lambda s, xp, u, t: u)
mutant(L0(), "l0: one-sided", prox_of=lambda s, xp, u, t: xp.where(u > xp.sqrt(2.0 * t), u, 0.0))
mutant(L0(), "l0: sign lost", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > xp.sqrt(2.0 * t), xp.abs(u), 0.0))
mutant(
    L0(weight=0.3),
    "l0: weight outside of the root",
    weighted_prox=lambda s, xp, u, t: xp.where(xp.abs(u) > xp.sqrt(2.0 * t) * s.weight, u, 0.0),
)
mutant(L0(), "l0: claims to be convex", is_convex=True)

# --- the other basic ones --------------------------------------------------------------------------------------------
mutant(SquaredL2(), "ridge: 1 + 2t", prox_of=lambda s, xp, u, t: u / (1.0 + 2.0 * t))
mutant(SquaredL2(), "ridge: a gradient step", prox_of=lambda s, xp, u, t: u * (1.0 - t))
mutant(SquaredL2(), "ridge: 1 + t^2", prox_of=lambda s, xp, u, t: u / (1.0 + t * t))
mutant(SquaredL2(), "ridge: value without its half", value_of=lambda s, xp, z: z * z)
mutant(NonNegative(), "relu: identity", prox_of=lambda s, xp, u, t: u)
mutant(NonNegative(), "relu: modulus", prox_of=lambda s, xp, u, t: xp.abs(u))
mutant(NonNegative(), "relu: shifted by the step", prox_of=lambda s, xp, u, t: xp.maximum(u - t, 0.0))
mutant(NonNegative(), "relu: leaky", prox_of=lambda s, xp, u, t: xp.maximum(u, 0.01 * u))
mutant(Box(-1.0, 2.0), "box: one bound", prox_of=lambda s, xp, u, t: xp.maximum(u, s.lower))
mutant(Box(-1.0, 2.0), "box: symmetric", prox_of=lambda s, xp, u, t: xp.minimum(xp.maximum(u, -s.upper), s.upper))
mutant(Box(-1.0, 2.0), "box: inside out", prox_of=lambda s, xp, u, t: xp.maximum(xp.minimum(u, s.lower), s.upper))
mutant(Box(-W, W), "box: bounds reversed", prox_of=lambda s, xp, u, t: xp.minimum(xp.maximum(u, -W[::-1]), W[::-1]))

# --- sums ------------------------------------------------------------------------------------------------------------
mutant(
    WithRidge(L1(), SquaredL2()),
    "elastic net: step not shrunk",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, u / (1.0 + t), t),
)
mutant(
    WithRidge(L1(), SquaredL2()),
    "elastic net: point not shrunk",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, u, t / (1.0 + t)),
)
mutant(
    WithBox(L1(), Box(0.5, 2.0)),
    "box: projected before a prox",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, s.outer.prox_of(xp, u, t), t),
)
mutant(
    WithCount(L1(), L0()),
    "count: step forgotten",
    prox_of=lambda s, xp, u, t: xp.where(s.inner.gain_of(xp, u, t) > 1.0, s.inner.weighted_prox(xp, u, t), 0.0),
)
mutant(
    WithCount(L1(), L0()),
    "count: gain of u itself",
    prox_of=lambda s, xp, u, t: xp.where(0.5 * u * u > t, s.inner.weighted_prox(xp, u, t), 0.0),
)
mutant(
    WithCount(L1(), L0()),
    "count: never zero",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, u, t),
)
mutant(
    WithTilt(L1(), Tilt(0.4)),
    "tilt: sign",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, u + 0.4 * t, t),
)
mutant(
    TranslatedSeparable(L1(), 0.7),
    "translation: not moved back",
    prox_of=lambda s, xp, u, t: s.inner.weighted_prox(xp, u - s.center, t),
)

# --- folded concave and fractional ------------------------------------------------------------------------------------


def firm(s, xp, u, t):
    a = xp.abs(u)
    rising = xp.maximum(a - t, 0.0) * (s.gamma / xp.where(t < s.gamma, s.gamma - t, 1.0))
    return xp.sign(u) * xp.where(a < s.gamma, rising, a)


def joined(s, xp, u, t):
    a, width = xp.abs(u), (s.a - 1.0) * s.knot
    rising = s.knot + (a - s.knot - t) * (width / xp.where(t < width, width - t, 1.0))
    return xp.sign(u) * xp.where(a <= s.knot + t, xp.maximum(a - t, 0.0), xp.where(a < s.a * s.knot, rising, a))


def scad_with_one_jump(s, xp, u, t):
    a, height = xp.abs(u), (s.a + 1.0) * s.knot
    return xp.sign(u) * xp.where(a > 0.5 * (t + height), a, xp.maximum(a - t, 0.0))


def larger_root_only(s, xp, u, t):
    a = xp.abs(u)
    discriminant = (a + s.delta) * (a + s.delta) - 4.0 * t
    root = xp.sqrt(xp.where(discriminant > 0, discriminant, 0.0))
    z = xp.where(discriminant > 0, xp.maximum(0.5 * (a - s.delta + root), 0.0), 0.0)
    return xp.sign(u) * z


mutant(MCP(2.0), "mcp: firm for large steps", prox_of=firm)
mutant(MCP(2.0), "mcp: soft up to gamma", prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) < 2.0, soft(xp, u, t), u))
mutant(MCP(1.0), "mcp: hard threshold throughout", prox_of=lambda s, xp, u, t: L0().prox_of(xp, u, 0.5 * s.gamma * t))
mutant(
    MCP(2.0),
    "mcp: hard threshold of l0",
    prox_of=lambda s, xp, u, t: xp.where(
        t < 2.0, firm(s, xp, u, t), xp.where(xp.abs(u) > xp.sqrt(2.0 * t), u, 0.0) * 1.01
    ),
)
mutant(SCAD(3.0), "scad: no jump for large steps", prox_of=joined)
mutant(SCAD(3.0), "scad: one jump for all steps", prox_of=scad_with_one_jump)
mutant(
    CappedL1(1.0),
    "capped l1: jump at the cap",
    prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > s.theta, u, soft(xp, u, t)),
)
mutant(
    CappedL1(1.0),
    "capped l1: large steps forgotten",
    prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) > s.theta + 0.5 * t, u, soft(xp, u, t)),
)
mutant(
    Huber(1.0),
    "huber: branch at alpha",
    prox_of=lambda s, xp, u, t: xp.where(xp.abs(u) <= s.alpha, u * (s.alpha / (s.alpha + t)), soft(xp, u, t)),
)
mutant(LogSum(0.5), "log-sum: zero not compared", prox_of=larger_root_only)
mutant(Lq(0.5), "lq: soft threshold", prox_of=lambda s, xp, u, t: soft(xp, u, t))
mutant(Lq(0.5), "lq: root of another power", prox_of=lambda s, xp, u, t: Lq(2 / 3).prox_of(xp, u, t))
mutant(Lq(0.5), "lq: threshold too low", prox_of=lambda s, xp, u, t: Lq(0.5).prox_of(xp, u * 1.05, t) / 1.05)
mutant(Tanh(1.0), "tanh: hard threshold", prox_of=lambda s, xp, u, t: L0().prox_of(xp, u, t))
mutant(
    AsymmetricL0(0.2, 2.0),
    "asymmetric: costs swapped",
    prox_of=lambda s, xp, u, t: AsymmetricL0(s.negative, s.positive).prox_of(xp, u, t),
)

# --- selection -------------------------------------------------------------------------------------------------------


def keep(R, xp, ranks, U, step, k=None):
    return xp.where(top_k_mask(ranks, R.k if k is None else k), R.partner.prox_on(xp, U, step), 0.0)


def largest_index(s, xp, U, step):
    flipped = s.ranks(xp, U, step, U)[..., ::-1]
    return xp.where(top_k_mask(flipped.copy(), s.k)[..., ::-1], s.partner.prox_on(xp, U, step), 0.0)


def down_the_columns(s, xp, U, step):
    return keep(s, xp, s.ranks(xp, U, step, U).T, U.T, step).T if U.ndim == 2 else U * 0.0


mutant(
    Cardinality(1), "top-k: of u, not abs(u)", prox_on=lambda s, xp, U, step: keep(s, xp, xp.maximum(U, 0.0), U, step)
)
mutant(
    Cardinality(1), "top-k: the smallest", prox_on=lambda s, xp, U, step: keep(s, xp, 1.0 / (1.0 + xp.abs(U)), U, step)
)
mutant(Cardinality(2), "top-k: one too many", prox_on=lambda s, xp, U, step: keep(s, xp, xp.abs(U), U, step, 3))
mutant(Cardinality(2), "top-k: one too few", prox_on=lambda s, xp, U, step: keep(s, xp, xp.abs(U), U, step, 1))
mutant(Cardinality(1), "top-k: down the columns", prox_on=down_the_columns)
mutant(Cardinality(1), "top-k: highest index at ties", prox_on=largest_index)
mutant(Cardinality(1), "top-k: value allows one more", value_on=lambda s, xp, Z: Cardinality(2).value_on(xp, Z))
mutant(
    NonNegative() + Cardinality(1),
    "top-k: abs(u) where codes are non-negative",
    ranks=lambda s, xp, U, step, Z: xp.abs(U),
)
mutant(
    W * L1() + Cardinality(1),
    "soft top-k: abs(u) where weights differ",
    ranks=lambda s, xp, U, step, Z: xp.abs(U),
)
mutant(
    Box(-1.0, 0.2) + Cardinality(1),
    "boxed top-k: abs(u) where the gain is another",
    ranks=lambda s, xp, U, step, Z: xp.abs(U),
)
mutant(
    0.5 * L1() + Cardinality(1),
    "soft top-k: partner forgotten",
    prox_on=lambda s, xp, U, step: xp.where(top_k_mask(xp.abs(U), s.k), U, 0.0),
)
mutant(
    Cardinality(1, "batch"),
    "batch top-k: row by row",
    prox_on=lambda s, xp, U, step: keep(s, xp, xp.abs(U), U, step),
)


def test_there_are_more_than_thirty():
    assert len(MUTANTS) > 30


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_rejected_without_a_proof(name):
    report = verify(MUTANTS[name], proof_timeout=0.0)
    assert not report.passed, name
    assert report.counterexample, name
    assert "raised" not in report.counterexample
    assert "FAILED" in str(report)


def test_larger_support_at_a_tie_is_rejected_by_the_proof():
    class AtTies(L0):
        def prox_of(self, xp, u, t):
            return xp.where(xp.abs(u) >= xp.sqrt(2.0 * t), u, 0.0)

    assert verify(AtTies(), proof_timeout=0.0).passed  # as good a minimiser, numerically
    report = verify(AtTies())
    assert not report.passed
    assert report.counterexample["fails"] == "the smaller support wins ties"


@pytest.mark.parametrize(
    "name",
    ["l1: threshold 1.0001 t", "l0: threshold t", "relu: leaky", "mcp: firm for large steps", "count: step forgotten"],
)
def test_proof_refutes_too(name):
    assert prove(MUTANTS[name]).verdict == "counterexample"


@pytest.mark.parametrize("name", [name for name in MUTANTS if "top-k" in name])
def test_no_wrong_selection_is_proved(name):
    assert prove(MUTANTS[name]).verdict in ("counterexample", "unknown")


@pytest.mark.parametrize("R", [Cardinality(2), Cardinality(40), L1() + Cardinality(2, "batch")], ids=repr)
def test_kernel_that_keeps_the_smallest_is_refuted(R, monkeypatch):
    monkeypatch.setattr(cardinality, "top_k_mask", lambda ranks, k: top_k_mask(100.0 - ranks, k))
    assert prove(R).verdict == ("counterexample" if R.k == 2 else "unknown")


@pytest.mark.parametrize("name", ["l0: threshold t", "mcp: firm for large steps", "huber: branch at alpha"])
def test_counterexample_can_be_checked_by_hand(name):
    found = verify(MUTANTS[name], proof_timeout=0.0).counterexample
    R = MUTANTS[name]

    def objective(z):
        return 0.5 * (z - found["u"]) ** 2 + found["t"] * R.value(np.array([z]))

    assert R.prox(np.array([found["u"]]), found["t"]) == found["claimed z"]
    assert objective(found["better z"]) < objective(found["claimed z"])
    np.testing.assert_allclose(
        [found["claimed objective"], found["better objective"]],
        [objective(found["claimed z"]), objective(found["better z"])],
        rtol=1e-12,
    )


# --- the four that shipped ----------------------------------------------------------------------------------------


def soft_threshold(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - t, 0.0)


def huber(z, alpha=0.5):
    return np.where(np.abs(z) <= alpha, z * z / (2 * alpha), np.abs(z) - alpha / 2)


def branch_at_alpha(u, t):
    return np.where(np.abs(u) <= 0.5, 0.5 * u / (0.5 + t), soft_threshold(u, t))


def log_penalty(z, lam=1.0, d=0.6):
    return lam * np.log(d + np.abs(z))


def wrong_log_prox(u, t, lam=1.0, d=0.6):
    discriminant = np.maximum((np.abs(u) + d) ** 2 - 2 * t * lam, 0.0)
    return np.sign(u) * np.maximum(0.5 * (np.abs(u) - d + np.sqrt(discriminant)), 0.0)


def mcp(z, gamma=2.0):
    a = np.abs(z)
    return np.where(a <= gamma, a - a * a / (2 * gamma), gamma / 2)


def firm_always(u, t, gamma=2.0):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(u) <= gamma, soft_threshold(u, t) * gamma / (gamma - t), u)


SHIPPED = {
    "l0 at t lam": (lambda z: 0.7 * (z != 0), lambda u, t: np.where(np.abs(u) > 0.7 * t, u, 0.0)),
    "huber branching at alpha": (
        huber,
        branch_at_alpha,
    ),
    "log penalty with 2 t lam": (log_penalty, wrong_log_prox),
    "mcp firm for t >= gamma": (mcp, firm_always),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_formula_that_shipped_is_rejected(name):
    value, prox = SHIPPED[name]
    report = verify(value=value, prox=prox)
    assert not report.passed
    found = report.counterexample
    assert found["better objective"] < found["claimed objective"]


def test_reports_are_values():
    report = verify(L1(), proof_timeout=0.0)
    assert report.passed
    assert not replace(report, checks=()).passed  # nothing checked is nothing verified
