"""Formulas as libraries publish them and as people write them, right and subtly wrong, judged by `verify`."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from long_runs import apart_from
from scipy.special import lambertw

from proxsae.verification import verify


def entries(function):
    """Make a function of arrays of one of single numbers, as people write it."""
    return np.vectorize(function, otypes=[float])


def soft(u, t):
    return np.sign(u) * np.maximum(np.abs(u) - t, 0.0)


def soft_number(x, lam):
    return x - lam if x > lam else x + lam if x < -lam else 0


def hard(u, t):
    return np.where(np.abs(u) > np.sqrt(2 * t), u, 0.0)


BUFFERS: dict[tuple[int, ...], np.ndarray] = {}


def into_a_buffer(u, t):
    buffer = BUFFERS.setdefault(u.shape, np.empty_like(u))
    buffer[:] = soft(u, t)
    return buffer


def in_place(u, t):
    u[np.abs(u) <= t] = 0
    u -= t * np.sign(u)
    return u


def scad(z, lam=0.5, a=3.7):
    z = np.abs(z)
    middle = (2 * a * lam * z - z * z - lam * lam) / (2 * (a - 1))
    return np.where(z <= lam, lam * z, np.where(z <= a * lam, middle, (a + 1) * lam * lam / 2))


def scad_prox(u, t, lam=0.5, a=3.7, middle_steps=True):
    b = np.abs(u)
    if t < a - 1:
        rising = ((a - 1) * u - np.sign(u) * a * lam * t) / (a - 1 - t)
        return np.where(b <= (1 + t) * lam, soft(u, t * lam), np.where(b <= a * lam, rising, u))
    if t < a + 1 and middle_steps:
        return np.where(b <= lam * (t + a + 1) / 2, soft(u, t * lam), u)
    return np.where(b > lam * math.sqrt(t * (a + 1)), u, 0.0)


def mcp(lam, gamma):
    def value(z):
        a = np.abs(z)
        return np.where(a <= gamma * lam, lam * a - a * a / (2 * gamma), gamma * lam * lam / 2)

    def prox(u, t):
        a = np.abs(u)
        if t < gamma:
            return np.where(a <= gamma * lam, soft(u, lam * t) / (1 - t / gamma), u)
        return np.where(a > lam * math.sqrt(gamma * t), u, 0.0)

    return value, prox


def transformed_l1(u, t, late=1.0):
    """2 |z| / (1 + |z|) (Zhang and Xin), its jump at `late` times the right place."""
    a = np.abs(u)
    angle = np.arccos(np.clip(1 - 27 * t / (1 + a) ** 3, -1, 1))
    root = 2 / 3 * (1 + a) * np.cos(angle / 3) - 2 / 3 + a / 3
    return np.where(a <= late * (2 * t if t <= 0.25 else math.sqrt(4 * t) - 0.5), 0.0, np.sign(u) * root)


def power_4_3(u, t):
    x = np.sqrt(u * u + 256 * t**3 / 729)
    return u + 4 * t / (3 * 2 ** (1 / 3)) * (np.cbrt(x - u) - np.cbrt(x + u))


def power_4(u, t, c=27):
    x = np.sqrt(u * u + 1 / (c * t))
    return np.cbrt((x + u) / (8 * t)) - np.cbrt((x - u) / (8 * t))


def logistic_prox(u, t):
    low, high = u, u + t
    for _ in range(90):
        middle = 0.5 * (low + high)
        slope = t / (1 + math.exp(middle)) if middle < 700 else 0.0
        low, high = (low, middle) if middle - u > slope else (middle, high)
    return 0.5 * (low + high)


KNOTS = np.sort(np.random.default_rng(5).uniform(-8, 8, 33))
SLOPES = np.sort(np.random.default_rng(6).uniform(-3, 3, 34))


def many_kinks(z):
    return SLOPES[0] * z + sum(
        (b - a) * np.maximum(z - k, 0) for k, a, b in zip(KNOTS, SLOPES, SLOPES[1:], strict=False)
    )


def many_kinks_prox(u, t):
    pieces = np.clip(u - t * SLOPES[:, None], np.append(-np.inf, KNOTS)[:, None], np.append(KNOTS, np.inf)[:, None])
    return pieces[np.argmin(0.5 * (pieces - u) ** 2 + t * many_kinks(pieces), axis=0), np.arange(len(u))]


def group_soft(u, t):
    norm = np.linalg.norm(u)
    return (1 - t / norm) * u if norm > t else 0 * u


def pairs_soft(u, t):
    return np.concatenate([group_soft(pair, t) for pair in u.reshape(-1, 2)])


def norms_of_pairs(z):
    return np.linalg.norm(z.reshape(-1, 2), axis=1).sum()


def at_most(k):
    return lambda z: 0.0 if np.count_nonzero(z) <= k else np.inf


def keep(k):
    return lambda u, t: u * np.isin(np.arange(len(u)), np.argsort(-np.abs(u), kind="stable")[:k])


def simplex(u):
    d = np.sort(u)[::-1]
    return np.maximum(u - ((np.cumsum(d) - 1) / np.arange(1, len(u) + 1)).max(), 0.0)


def in_simplex(z):
    return 0 if (z >= 0).all() and abs(z.sum() - 1) < 1e-8 else np.inf


def second_order_cone(u, t):
    x, s = u[:-1], u[-1]
    norm = np.linalg.norm(x)
    if norm <= abs(s):
        return u if s >= 0 else 0 * u
    return 0.5 * (1 + s / norm) * np.append(x, norm)


WEIGHTS = np.random.default_rng(7).uniform(0, 2, 40)
EXCHANGED = WEIGHTS.copy()
EXCHANGED[[11, 37]] = WEIGHTS[[37, 11]]

STYLES = {
    "numbers": (entries(math.fabs), entries(soft_number)),
    "lists": (lambda z: [abs(x) for x in z], lambda u, tau: [soft_number(x, tau) for x in u]),
    "tensors": (torch.abs, torch.nn.functional.softshrink),
    "module": (torch.nn.LeakyReLU(-1.0), lambda u, t: torch.nn.Softshrink(t)(u)),
    "matrices": (lambda z: np.abs(z[None]).sum(axis=1), lambda u, t: soft(u[None], t)[0]),
    "named step": (np.abs, lambda u, step: soft(u, t=step)),
    "changes its input": (np.abs, in_place),
    "returns its buffer": (np.abs, into_a_buffer),
    "single precision": (np.abs, lambda u, t: soft(u.astype(np.float32), np.float32(t))),
    "value in single precision": (lambda z: np.float32(np.abs(z).sum()), soft),
    "truth values": (lambda z: z != 0, hard),
    "integers": (
        entries(lambda z: 0 if z in (-1, 0, 1) else math.inf),
        entries(lambda u, t: max(-1, min(1, round(u)))),
    ),
    "a large number for infinity": (lambda z: np.where(z < 0, 1e300, 0.0), lambda u, t: np.maximum(u, 0)),
    "terms of the sum, sorted": (
        lambda z: np.sort(np.abs(z))[::-1] * (np.arange(len(z)) < 1),
        lambda u, t: u - t * np.sign(u) * simplex(np.abs(u) / t) if np.abs(u).sum() > t else 0 * u,
    ),
}

RIGHT = {
    "scad": (scad, scad_prox),
    "mcp, knee at 1e-3": mcp(1e-3, 1.0),
    "mcp, knee at 1e3": mcp(1.0, 1e3),
    "transformed l1": (lambda z: 2 * np.abs(z) / (1 + np.abs(z)), transformed_l1),
    "power 3/2": (
        lambda z: np.abs(z) ** 1.5,
        lambda u, t: u + 9 * t * t * np.sign(u) / 8 * (1 - np.sqrt(1 + 16 * np.abs(u) / (9 * t * t))),
    ),
    "power 4/3": (lambda z: np.abs(z) ** (4 / 3), power_4_3),
    "power 4": (lambda z: z**4, power_4),
    "logistic, overflowing": (lambda z: np.log(1 + np.exp(-z)), entries(logistic_prox)),
    "entropy, overflowing": (
        lambda z: np.where(z < 0, np.inf, z * np.log(np.where(z > 0, z, 1))),
        lambda u, t: t * np.real(lambertw(np.exp(u / t - 1) / t)),
    ),
    "barrier, NaN outside": (lambda z: -np.log(z), lambda u, t: (u + np.sqrt(u * u + 4 * t)) / 2),
    "barrier of numbers": (
        entries(lambda z: -math.log(z) if z > 0 else math.inf),
        entries(lambda u, t: (u + math.sqrt(u * u + 4 * t)) / 2),
    ),
    "integer lattice": (lambda z: np.where(z == np.round(z), 0.0, np.inf), lambda u, t: np.round(u)),
    "two points with slack": (
        lambda z: np.where(np.abs(np.abs(z) - 1 / 3) < 1e-12, 0, np.inf),
        lambda u, t: np.where(u > 0, 1 / 3, -1 / 3),
    ),
    "thirty-three kinks": (many_kinks, many_kinks_prox),
    "groups by reshaping": (norms_of_pairs, pairs_soft),
    "eight largest": (at_most(8), keep(8)),
    "second-order cone": (
        lambda z: 0 if np.linalg.norm(z[:-1]) <= z[-1] + 1e-9 * (1 + abs(z[-1])) else np.inf,
        second_order_cone,
    ),
    "simplex": (in_simplex, lambda u, t: simplex(u)),
}

WRONG = {
    **{
        f"window at {c}": (np.abs, lambda u, t, c=c: np.where(np.abs(u - c) < 0.01, u, soft(u, t)))
        for c in (0.77, 3.905, 13.37)
    },
    "window of a sum": (lambda z: np.abs(z).sum(), lambda u, t: np.where(np.abs(u + 5.43) < 0.01, u, soft(u, t))),
    "steps from 4 to 10": (np.abs, lambda u, t: soft(u, 1.1 * t if 4 < t < 10 else t)),
    "steps from 1.2 to 1.9": (np.abs, lambda u, t: soft(u, 1.02 * t if 1.2 < t < 1.9 else t)),
    "l0: jump late by 0.1 %": (lambda z: 1.0 * (z != 0), lambda u, t: hard(u / 1.001, t) * 1.001),
    "l0 of a code: jump late by 1 %": (
        lambda z: float(np.count_nonzero(z)),
        lambda u, t: np.where(np.abs(u) > 1.01 * np.sqrt(2 * t), u, 0.0),
    ),
    "scad: middle steps forgotten": (scad, lambda u, t: scad_prox(u, t, middle_steps=False)),
    "mcp, knee at 1e-3: off by 2 %": (mcp(1e-3, 1.0)[0], mcp(1e-3, 1.02)[1]),
    "transformed l1: jump late by 1 %": (
        lambda z: 2 * np.abs(z) / (1 + np.abs(z)),
        lambda u, t: transformed_l1(u, t, late=1.01),
    ),
    "power 4: 25 for 27": (lambda z: z**4, lambda u, t: power_4(u, t, 25)),
    "logistic: sign": (lambda z: np.log(1 + np.exp(-z)), entries(lambda u, t: -logistic_prox(-u, t))),
    "barrier: 3.9 for 4": (lambda z: -np.log(z), lambda u, t: (u + np.sqrt(u * u + 3.9 * t)) / 2),
    "thirty-three kinks: one off": (
        many_kinks,
        lambda u, t: (lambda z: np.where(z == KNOTS[20], z + 3e-3, z))(many_kinks_prox(u, t)),
    ),
    "longer codes": (np.abs, lambda u, t: soft(u, t if len(u) < 5 else 1.05 * t)),
    "longer codes of a norm": (np.linalg.norm, lambda u, t: group_soft(u, t if len(u) < 5 else 1.05 * t)),
    "two of forty weights exchanged": (lambda z: WEIGHTS @ np.abs(z), lambda u, t: soft(u, t * EXCHANGED)),
    "other groups": (norms_of_pairs, lambda u, t: pairs_soft(u.reshape(2, -1).T.ravel(), t).reshape(-1, 2).T.ravel()),
    "nine for eight": (at_most(8), keep(9)),
    "half precision": (np.abs, lambda u, t: soft(u, t).astype(np.float16)),
    "random": (np.abs, lambda u, t: soft(u, t) + 1e-3 * np.random.default_rng().normal(size=np.shape(u))),
    "no number in a branch": (abs, np.vectorize(lambda u, t: u - t if u > t else u + t if u < -t else None)),
    "infinite at zero": (np.abs, lambda u, t: np.where(u == 0, 1 / (u * u), soft(u, t))),
    "value minus infinity": (lambda z: np.log(np.abs(z)), lambda u, t: u),
}


LENGTHS = {"groups by reshaping": 4, "two of forty weights exchanged": 40, "other groups": 8}  # where 3 does not fit


@pytest.mark.parametrize("name", apart_from(["eight largest"], [*STYLES, *RIGHT]))
def test_right_formula_passes(name):
    value, prox = (STYLES | RIGHT)[name]
    report = verify(value=value, prox=prox, n=LENGTHS.get(name))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_formula_is_rejected(name):
    report = verify(value=WRONG[name][0], prox=WRONG[name][1], n=LENGTHS.get(name))
    assert not report.passed, str(report)
    assert report.counterexample


def test_exception_is_reported_with_its_point():
    def prox(u, t):
        return max(u - t, 0.0) if u > -t else {}["negative"]

    report = verify(value=abs, prox=entries(prox))
    assert not report.passed
    found = report.counterexample
    assert min(found["u"]) <= -found["t"]
    assert found["raised"] == "KeyError('negative')"
    assert "the prox raises an exception" in str(report)


@pytest.mark.parametrize(
    ("prox", "words"),
    [
        (lambda u, t: np.append(u, 0.0), "prox must return an array of the shape of u, (3,)"),
        (lambda u, t: None, "prox must return an array of the shape of u, (3,)"),
        (lambda u, t: u * np.nan, "the prox is not finite"),
    ],
)
def test_what_is_no_code_is_named(prox, words):
    assert words in " ".join(str(verify(value=np.linalg.norm, prox=prox)).split())


def test_prox_without_a_step_is_named():
    with pytest.raises(
        TypeError, match=r"prox must take a point and a step, prox\(u, t\), but its arguments are \(u\)"
    ):
        verify(value=np.abs, prox=lambda u: u)


def test_value_that_is_no_number_is_named():
    for value in (lambda z: "one", lambda z: np.sqrt(z.astype(complex)), lambda z: 1 / 0):
        with pytest.raises(
            ValueError, match=r"value must take an array of shape \(n,\) and return n real numbers, or one"
        ):
            verify(value=value, prox=soft)


def test_functions_of_single_numbers_are_told_of_vectorize():
    words = r"must take an array of shape \(n,\) and takes single numbers only; np.vectorize\(f, otypes=\[float\]\)"
    with pytest.raises(TypeError, match=f"value {words}"):
        verify(value=math.fabs, prox=soft)
    with pytest.raises(TypeError, match=f"prox {words}"):
        verify(value=np.abs, prox=soft_number)


# --- the verdict does not depend on the clock ----------------------------------------------------------------------


class Counted:
    """A function that counts its calls, and the clock of a machine a million times slower."""

    def __init__(self, function):
        self.function, self.calls, self.numbers = function, 0, 0

    def __call__(self, *arguments):
        self.calls += 1
        self.numbers += np.size(arguments[0])
        return self.function(*arguments)


def spike(u, t):
    return np.where(np.abs(np.abs(u) - 3.217) < 0.004, 0.0, soft(u, t))


def test_a_spike_is_seen_however_slow_the_value_is(monkeypatch):
    looked_at = []
    for seconds_a_call in (1e-9, 1.0):
        value = Counted(np.abs)
        now = iter(range(10**9))
        for clock in ("perf_counter", "monotonic", "time"):
            monkeypatch.setattr(time, clock, lambda now=now, pace=seconds_a_call: pace * next(now))
        report = verify(value=value, prox=spike)
        assert not report.passed
        looked_at.append((value.calls, value.numbers, report.counterexample["u"]))
    assert looked_at[0] == looked_at[1]


def test_effort_fixes_how_much_is_looked_at():
    numbers = {}
    for effort in ("quick", "full"):
        value = Counted(np.abs)
        assert verify(value=value, prox=soft, effort=effort).passed
        numbers[effort] = value.numbers
    assert 20 * numbers["quick"] < numbers["full"]
    assert not verify(value=np.abs, prox=lambda u, t: soft(u, 1.05 * t), effort="quick").passed
    with pytest.raises(ValueError, match=r"effort must be .quick. or .full., got 'slow'"):
        verify(value=np.abs, prox=soft, effort="slow")
