"""A user's own value and prox: right published formulas pass, wrong ones of every kind fail with a counterexample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from long_runs import apart_from
from scipy.special import wrightomega

from proxsae.regularizers import L1
from proxsae.verification import verify


def soft(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - t, 0.0)


def project_to_simplex(u, total=1.0):
    descending = np.sort(u)[::-1]
    thresholds = (np.cumsum(descending) - total) / np.arange(1, len(u) + 1)
    return np.maximum(u - thresholds[np.flatnonzero(descending > thresholds)[-1]], 0.0)


def project_to_l1_ball(u, radius=1.0):
    return u if np.abs(u).sum() <= radius else np.sign(u) * project_to_simplex(np.abs(u), radius)


def is_in_simplex(z):
    return 0.0 if (z >= 0).all() and np.isclose(z.sum(), 1.0) else np.inf


def group_soft(u, t):
    norm = np.linalg.norm(u)
    return u * max(1.0 - t / norm, 0.0) if norm > 0 else u


def half_threshold(u, t):
    """Xu et al. (2012), for 1/2 (z - u)^2 + t |z|^(1/2): their lambda is 2 t."""
    a, lam = np.abs(u), 2.0 * t
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.arccos(np.clip(lam / 8.0 * (a / 3.0) ** -1.5, -1, 1))
    root = 2.0 / 3.0 * u * (1.0 + np.cos(2.0 * np.pi / 3.0 - 2.0 / 3.0 * angle))
    return np.where(a > 54 ** (1 / 3) / 4 * lam ** (2 / 3), root, 0.0)


def firm(u, t, lam=0.6, gamma=2.5):
    """MCP of Zhang, lam |z| - z^2 / (2 gamma), for every step."""
    a = np.abs(u)
    if t < gamma:
        return np.where(a <= gamma * lam, soft(u, t * lam) / (1.0 - t / gamma), u)
    return np.where(a > lam * math.sqrt(gamma * t), u, 0.0)


def mcp(z, lam=0.6, gamma=2.5):
    a = np.abs(z)
    return np.where(a <= gamma * lam, lam * a - a * a / (2 * gamma), gamma * lam**2 / 2)


def log_sum_prox(u, t, d=0.4):
    a = np.abs(u)
    discriminant = (a + d) ** 2 - 4 * t
    z = np.maximum(0.5 * (a - d + np.sqrt(np.maximum(discriminant, 0.0))), 0.0)
    better = (0.5 * (z - a) ** 2 + t * np.log1p(z / d) < 0.5 * a**2) & (discriminant > 0)
    return np.where(better, np.sign(u) * z, 0.0)


def python_huber(z):
    return 0.5 * z * z if abs(z) <= 1 else abs(z) - 0.5


def python_huber_prox(u, t):
    return u / (1 + t) if abs(u) <= 1 + t else u - math.copysign(t, u)


SORTED_WEIGHTS = np.array([1.0, 0.6, 0.3])


def sorted_l1(z):
    return float(np.sort(np.abs(z))[::-1] @ SORTED_WEIGHTS)


def sorted_l1_prox(u, t):
    order = np.argsort(-np.abs(u))
    v = np.abs(u)[order] - t * SORTED_WEIGHTS
    blocks = []
    for x in v:  # pool adjacent violators of a descending fit
        blocks.append([x, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] <= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    fit = np.concatenate([np.full(count, max(total / count, 0.0)) for total, count in blocks])
    z = np.empty_like(u)
    z[order] = np.sign(u)[order] * fit
    return z


def top_2(z):
    return 0.0 if (z != 0).sum() <= 2 else np.inf


def keep_2(u, t):
    z = np.zeros_like(u)
    kept = np.argsort(-np.abs(u), kind="stable")[:2]
    z[kept] = u[kept]
    return z


WEIGHTS = np.array([0.3, 1.2, 0.0, 2.0])

RIGHT = {
    "zero": (lambda z: 0.0 * z, lambda u, t: u),
    "l1": (lambda z: np.abs(z), soft),
    "l1 of a code": (lambda z: np.abs(z).sum(), soft),
    "weighted l1": (lambda z: WEIGHTS * np.abs(z), lambda u, t: soft(u, t * WEIGHTS)),
    "weights of any length": (
        lambda z: np.abs(z) * np.arange(1, len(z) + 1),
        lambda u, t: soft(u, t * np.arange(1, len(u) + 1)),
    ),
    "elastic net": (lambda z: 0.3 * np.abs(z) + 0.5 * z * z, lambda u, t: soft(u, 0.3 * t) / (1 + t)),
    "l0": (lambda z: 1.0 * (z != 0), lambda u, t: np.where(np.abs(u) > math.sqrt(2 * t), u, 0.0)),
    "l0 with the other tie": (lambda z: 1.0 * (z != 0), lambda u, t: np.where(np.abs(u) >= math.sqrt(2 * t), u, 0.0)),
    "jumprelu": (lambda z: np.where(z < 0, np.inf, 1.0 * (z != 0)), lambda u, t: u * (u > math.sqrt(2 * t))),
    "box": (lambda z: np.where((z < -1) | (z > 2), np.inf, 0.0), lambda u, t: np.clip(u, -1, 2)),
    "box with slack": (lambda z: np.where((z < -1e-9) | (z > 1 + 1e-9), np.inf, 0.0), lambda u, t: np.clip(u, 0, 1)),
    "two points": (
        lambda z: np.where((z == -1) | (z == 1.37), 0.0, np.inf),
        lambda u, t: np.where(u > 0.185, 1.37, -1.0),
    ),
    "huber in plain python": (np.vectorize(python_huber), np.vectorize(python_huber_prox)),
    "mcp at all steps": (mcp, firm),
    "log sum": (lambda z: np.log1p(np.abs(z) / 0.4), log_sum_prox),
    "half threshold": (lambda z: np.sqrt(np.abs(z)), half_threshold),
    "pinball": (
        lambda z: np.maximum(0.8 * z, -0.2 * z),
        lambda u, t: u - np.clip(u, -0.2 * t, 0.8 * t),
    ),
    "hinge": (
        lambda z: np.maximum(0.0, 1.0 - z),
        lambda u, t: np.where(u < 1 - t, u + t, np.where(u > 1, u, 1.0)),
    ),
    "logarithmic barrier": (
        lambda z: np.where(z > 0, -np.log(np.where(z > 0, z, 1.0)), np.inf),
        # The form that does not cancel for u < 0.
        lambda u, t: np.where(u > 0, 0.5 * (u + np.sqrt(u * u + 4 * t)), 2 * t / (np.sqrt(u * u + 4 * t) - u)),
    ),
    "negative entropy": (
        lambda z: np.where(z < 0, np.inf, z * np.log(np.where(z > 0, z, 1.0))),
        lambda u, t: t * wrightomega(u / t - 1 - np.log(t)),
    ),
    "translated": (lambda z: np.abs(z - 57.3), lambda u, t: 57.3 + soft(u - 57.3, t)),
    "tilted": (lambda z: -3.0 * z, lambda u, t: u + 3.0 * t),
    "l2": (np.linalg.norm, group_soft),
    "l2 ball": (lambda z: 0.0 if z @ z <= 1 else np.inf, lambda u, t: u / max(1.0, np.linalg.norm(u))),
    "simplex": (is_in_simplex, lambda u, t: project_to_simplex(u)),
    "l1 ball": (
        lambda z: 0.0 if np.abs(z).sum() <= 1 + 1e-9 else np.inf,
        lambda u, t: project_to_l1_ball(u),
    ),
    "largest modulus": (lambda z: np.abs(z).max(), lambda u, t: u - t * project_to_l1_ball(u / t)),
    "sorted l1": (sorted_l1, sorted_l1_prox),
    "two largest": (top_2, keep_2),
    "mean square difference": (
        lambda z: 0.5 * (z[0] - z[1]) ** 2,
        lambda u, t: np.array([u[0] + t * (u[0] + u[1]), u[1] + t * (u[0] + u[1])]) / (1 + 2 * t),
    ),
}


# where 3 does not fit, or is enough
LENGTHS = {"weighted l1": 4, "weights of any length": 3, "weights reversed": 4, "mean square difference": 2}


# Theirs are in the catalogue too, which is verified.
SLOW = ("simplex", "weighted l1", "l1 ball", "l2 ball", "largest modulus", "two largest")


@pytest.mark.parametrize("name", apart_from(SLOW, RIGHT))
def test_published_formula_passes(name):
    value, prox = RIGHT[name]
    report = verify(value=value, prox=prox, n=LENGTHS.get(name))
    assert report.passed, str(report)


def test_formula_for_small_steps_only():
    textbook = lambda u, t: np.where(np.abs(u) <= 1.5, soft(u, 0.6 * t) / (1 - t / 2.5), u)  # noqa: E731
    assert verify(value=mcp, prox=textbook, steps=(0.1, 1.0, 2.4)).passed
    assert not verify(value=mcp, prox=textbook, steps=(0.1, 1.0, 2.6)).passed
    with pytest.raises(ValueError, match=r"steps must be a tuple of positive and finite numbers, got \(0.0,\)"):
        verify(value=mcp, prox=textbook, steps=(0.0,))


@pytest.mark.parametrize("n", [None, 1, 5, 9])
def test_length_of_the_code_may_be_given(n):
    assert verify(value=np.linalg.norm, prox=group_soft, n=n).passed


def test_prox_of_single_numbers():
    prox = np.vectorize(lambda u, t: math.copysign(max(abs(u) - t, 0.0), u))
    assert verify(value=np.abs, prox=prox).passed
    assert not verify(value=np.abs, prox=np.vectorize(lambda u, t: max(abs(u) - t, 0.0))).passed


def bend(u):
    return np.abs(u) * np.sin(u)


WRONG = {
    "non-symmetric": (np.abs, lambda u, t: np.maximum(u - t, 0.0) - np.maximum(-u - 0.9 * t, 0.0)),
    "wrong for large steps": (np.abs, lambda u, t: soft(u, t) if t < 50 else soft(u, 0.99 * t)),
    "wrong for tiny steps": (np.abs, lambda u, t: soft(u, t) if t > 1e-3 else u),
    "wrong for negative u": (np.abs, lambda u, t: np.where(u < 0, u, soft(u, t))),
    "wrong beyond 300": (np.abs, lambda u, t: np.where(np.abs(u) > 300, u, soft(u, t))),
    "wrong within 1e-3": (lambda z: z * z, lambda u, t: np.where(np.abs(u) < 1e-3, u, u / (1 + 2 * t))),
    "wrong between 1.7 and 1.8": (np.abs, lambda u, t: np.where((u > 1.7) & (u < 1.8), u, soft(u, t))),
    "off by 1e-5": (np.abs, lambda u, t: soft(u, t) + 1e-5),
    "off by 1e-4 relative": (lambda z: 0.5 * z * z, lambda u, t: u / (1 + t) * 1.0001),
    "outside of the domain": (lambda z: np.where(z < 0, np.inf, z), lambda u, t: soft(u, t)),
    "just outside of the domain": (lambda z: np.where(z < 0, np.inf, 0.0), lambda u, t: np.maximum(u, -1e-3)),
    "never defined": (np.abs, lambda u, t: u * np.nan),
    "undefined at zero": (np.linalg.norm, lambda u, t: u / np.linalg.norm(u) * max(np.linalg.norm(u) - t, 0.0)),
    "raises": (np.abs, lambda u, t: [][0]),
    "of another shape": (np.linalg.norm, lambda u, t: u[:1]),
    "gradient step": (lambda z: 0.5 * z * z, lambda u, t: u - t * u),
    "sine": (lambda z: 0.5 * z * z, lambda u, t: np.sin(u)),
    "not a prox of anything": (np.abs, lambda u, t: bend(u)),
    "gelu as relu": (
        lambda z: np.where(z < 0, np.inf, 0.0),
        lambda u, t: 0.5 * u * (1 + np.tanh(0.79788456 * (u + 0.044715 * u**3))),
    ),
    "coordinates interact": (np.abs, lambda u, t: np.sign(u) * np.maximum(np.abs(u) - t * np.ones_like(u).sum(), 0)),
    "threshold by the norm": (lambda z: np.abs(z).sum(), group_soft),
    "norm by the threshold": (np.linalg.norm, soft),
    "simplex by division": (
        is_in_simplex,
        lambda u, t: np.maximum(u, 0) / np.maximum(u, 0).sum() if (u > 0).any() else np.full(len(u), 1 / len(u)),
    ),
    "softmax as sparsemax": (is_in_simplex, lambda u, t: np.exp(u - u.max()) / np.exp(u - u.max()).sum()),
    "sorted l1 without pooling": (
        sorted_l1,
        lambda u, t: soft(u, t * SORTED_WEIGHTS[np.argsort(np.argsort(-np.abs(u)))]),
    ),
    "top-2 without signs": (top_2, lambda u, t: u * (u >= np.sort(u)[-2])),
    "group norm squared": (np.linalg.norm, lambda u, t: u * max(1 - t / max(u @ u, 1e-12), 0.0)),
    "weights reversed": (lambda z: WEIGHTS * np.abs(z), lambda u, t: soft(u, t * WEIGHTS[::-1])),
    "cubed step": (lambda z: 0.5 * z * z, lambda u, t: u / (1 + t**3)),
    "l2 only below 50": (np.linalg.norm, lambda u, t: group_soft(u, t) if np.linalg.norm(u) < 50 else u),
    "missed minimum far away": (
        lambda z: np.where(np.abs(z - 57.3) < 0.5, -10.0, 0.0),
        lambda u, t: u,
    ),
    "half threshold without its jump": (
        lambda z: np.sqrt(np.abs(z)),
        lambda u, t: np.where(
            np.abs(u) > 0.9 * 54 ** (1 / 3) / 4 * (2 * t) ** (2 / 3), half_threshold(u * 1.2, t) / 1.2, 0.0
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pair_is_rejected_with_a_counterexample(name):
    report = verify(value=WRONG[name][0], prox=WRONG[name][1], n=LENGTHS.get(name))
    assert not report.passed
    assert report.counterexample


def test_precise_numbers_in_the_counterexample():
    found = verify(value=lambda z: 1.0 * (z != 0), prox=lambda u, t: np.where(np.abs(u) > t, u, 0.0)).counterexample
    for z, objective in (("claimed z", "claimed objective"), ("better z", "better objective")):
        assert found[objective] == 0.5 * (found[z] - found["u"]) ** 2 + found["t"] * (found[z] != 0)
    assert found["better objective"] < found["claimed objective"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "verify takes a regularizer or its text, or both value= and prox="),
        ({"value": np.abs}, "verify takes a regularizer"),
        ({"R": "L1", "value": np.abs, "prox": soft}, "verify takes a regularizer"),
        ({"R": 3}, "verify takes a regularizer"),
        ({"value": np.abs, "prox": soft, "proof_timeout": 1.0}, "proof_timeout is for a regularizer"),
        ({"value": 3, "prox": soft}, "value must be a function, got int"),
        ({"value": np.abs, "prox": "soft"}, "prox must be a function, got str"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(TypeError, match=message):
        verify(**arguments)


def test_value_that_fits_no_code():
    with pytest.raises(ValueError, match="for n = 3, 8, 40; another length is given by n="):
        verify(value=lambda z: np.ones((2, 2)), prox=soft)
    with pytest.raises(ValueError, match="does not for n=5"):
        verify(value=lambda z: WEIGHTS * np.abs(z), prox=soft, n=5)


def test_no_argument_is_ignored():
    report = verify("L1", n=7, steps=(1.0, 2.0), proof_timeout=0.0)
    assert report.passed
    for check in report.checks:
        if "t from" in check.covers:
            assert "t from 1 to 2" in check.covers, check.covers
        if "of length" in check.covers:
            assert "of length 7" in check.covers, check.covers
    assert sum("t from" in check.covers for check in report.checks) > 3
    assert sum("of length 7" in check.covers for check in report.checks) > 3
    with pytest.raises(ValueError, match=r"has 3 entries and the codes have 4"):
        verify(np.ones(3) * L1(), n=4)
    for steps in ((-1.0,), (), 1.0):
        with pytest.raises(ValueError, match="steps must be a tuple of positive and finite numbers, got"):
            verify("L1", steps=steps)
    for subject in ({"R": "L1"}, {"value": np.abs, "prox": soft}):
        for n in (0, -1, 2.5):
            with pytest.raises(ValueError, match="n must be an integer >= 1, got"):
                verify(**subject, n=n)


def test_at_most_eight_coordinates_are_searched():
    """Of 15 coordinates with weights of their own."""
    report = verify(np.arange(1.0, 16.0) * L1(), effort="quick", proof_timeout=0.0)
    searched = [check.method for check in report.checks if "search over the line" in check.method]
    assert len(searched) == 8
    assert searched[-1].endswith("coordinate 14")


class WrongBeyondTwo(L1):
    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.abs(u) - xp.where(t > 2.0, 1.1 * t, t), 0.0)


def test_a_regularizer_may_be_claimed_for_some_steps_only():
    assert not verify(WrongBeyondTwo(), proof_timeout=0.0).passed
    report = verify(WrongBeyondTwo(), steps=(0.5, 1.9))
    assert report.passed, str(report)
    assert {check.method: check.verdict for check in report.checks}["proof"] == "undecided"
    assert not verify(WrongBeyondTwo(), steps=(0.5, 2.1), proof_timeout=0.0).passed
