"""Certificates for formulas that are not algebraic: at points (u, t) of a grid, for all z, by balls (python-flint).

The claimed z is the float64 result, taken as an exact number. The objective of every other z is bounded from below by
branch and bound on balls that contain all real results, with the slope of a formula where it has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from flint import arb

from proxsae.regularizers.entmax import Entmax, penalty
from proxsae.regularizers.separable import Separable
from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError
from proxsae.verification.proofs.jets import Jet, Jets
from proxsae.verification.proofs.theorem import NotProvedError, Theorem
from proxsae.verification.report import counterexample

TOLERANCE = 1e-10  # of 1 + u^2
INPUTS = tuple(k / 8 for k in range(-64, 65))
STEPS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 8.0)
CODES = tuple(combinations_with_replacement((-1.0, 0.0, 0.5, 0.75, 2.0), 3))
NEAR = 64.0  # |z| beyond is bounded from below by the square
FAR = 2.0**1023
MOST_BOXES = 20_000

Formula = Callable[[Jet], Jet]


class Balls:
    """The namespace `xp` of formulas of arb balls."""

    inf = arb.pos_inf()

    def __getattr__(self, name: str) -> Any:
        raise NotAlgebraicError(f"the function {name}")

    def abs(self, a: arb) -> arb:
        return abs(a)

    def sign(self, a: arb) -> arb:
        """Return the slopes of the modulus."""
        return arb(1) if a > 0 else arb(-1) if a < 0 else arb(0, 1)

    def power(self, a: arb, b: float) -> arb:
        """Return a to the power b, for a >= 0."""
        if a > 0:
            return a ** arb(b)
        if b <= 0 or a.upper() < 0:
            return arb.nan()
        return arb(0).union(a.upper() ** arb(b)) if a.upper() > 0 else arb(0)

    def sqrt(self, a: arb) -> arb:
        return self.power(a, 0.5)

    def log1p(self, a: arb) -> arb:
        return a.log1p()

    def tanh(self, a: arb) -> arb:
        return a.tanh()

    def where(self, outside: bool, a: arb, b: arb) -> arb:
        """Return a, infinity, where all of the ball is sure to be outside; elsewhere b is a bound from below."""
        return a if outside else b


def scalar_certificate(R: Separable) -> Theorem:
    """Return what is certified of a scalar prox at the points of the grid, with the parameters as they are.

    NotAlgebraicError if the formula of r calls a function without a ball, or its parameters differ between coordinates.
    """
    if not (R.is_uniform and R.has_formula):
        raise NotAlgebraicError("a table" if R.is_uniform else "a formula with parameters of one value a coordinate")
    r = R.map_parameters(lambda _, value: _constant(float(value)))

    def value(z: Jet) -> Jet:
        return _as_jet(r.weighted_value(Jets(Balls()), z))

    def certify(deadline: float) -> None:
        for t in STEPS:
            floor, claimed = _least_far_out(value, t), R.prox(np.array(INPUTS)[:, None], t)[:, 0]
            for u, p in zip(INPUTS, claimed.tolist(), strict=True):
                _certify(value, u, t, p, 0.0, ((-NEAR, 0.0), (0.0, NEAR)), TOLERANCE * (1.0 + u * u))
                if not floor > _objective(value, u, t, 0.0)(_point(p)).value or time.process_time() > deadline:
                    raise NotProvedError

    statement = f"F(prox(u)) <= F(z) + {TOLERANCE:g} (1 + u^2) for u in multiples of 1/8 to {INPUTS[-1]:g}, t in "
    statement += f"{', '.join(f'{t:g}' for t in STEPS)}, all z to 2^1023 and these parameters"
    return Theorem(statement, certify, f"certified at {len(INPUTS) * len(STEPS)} points")


def entmax_certificate(R: Entmax) -> Theorem:
    """Return what is certified of codes of three entries: at a level, each entry is least by itself (weak duality)."""

    def value(z: Jet) -> Jet:
        return _as_jet(R.weight * R.radius**2 * penalty(Jets(Balls()), z / R.radius, R.alpha))

    def certify(deadline: float) -> None:
        for t in STEPS:
            for u, p in zip(CODES, R.prox(np.array(CODES), t).tolist(), strict=True):
                tolerance = TOLERANCE * (1.0 + sum(x * x for x in u))
                top = int(np.argmax(p))
                level = -float(_objective(value, u[top], t, 0.0)(Jet(arb(p[top]), arb(1))).slope.mid())
                off_the_simplex = abs(arb(level) * (sum(map(arb, p)) - arb(R.radius)))
                if min(p) < 0 or not off_the_simplex < tolerance / 4 or time.process_time() > deadline:
                    raise NotProvedError
                for u_i, p_i in zip(u, p, strict=True):
                    try:
                        _certify(value, u_i, t, p_i, level, ((0.0, R.radius),), tolerance / 4)
                    except NotProvedError:  # another level may give a proof
                        raise NotProvedError from None

    statement = (
        f"F(prox(u)) <= F(z) + {TOLERANCE:g} (1 + ||u||^2) for u of three entries out of -1, 0, 0.5, 0.75 and 2, t in "
        f"{', '.join(f'{t:g}' for t in STEPS)}, all z on the simplex and these parameters"
    )
    return Theorem(statement, certify, f"certified at {len(CODES) * len(STEPS)} points")


def _certify(value: Formula, u: float, t: float, p: float, level: float, boxes: Any, tolerance: float) -> None:
    """Certify F(p) <= F(z) + tolerance for all z of the boxes, F with `level` z added."""
    F = _objective(value, u, t, level)
    if not np.isfinite(p):
        raise NotProvedError({"fails": "the prox is a real number", "u": u, "t": t, "claimed z": p})
    mine = F(_point(p)).value
    if not mine.is_finite():
        raise NotProvedError({"fails": "the prox is in the domain", "u": u, "t": t, "claimed z": p})
    enough = mine - arb(tolerance)
    pending = list(boxes)
    for _ in range(MOST_BOXES):
        if not pending:
            return
        low, high = pending.pop()
        box, middle = arb(low).union(arb(high)), 0.5 * (low + high)
        jet, center = F(Jet(box, arb(1))), F(_point(middle)).value
        if center < enough:
            objectives = float(mine.mid()), float(center.mid())
            raise NotProvedError({"fails": "F(prox(u)) <= F(z)", **counterexample(u, t, p, middle, objectives)})
        # From a middle outside of the domain no slope leads to what is inside.
        if not (jet.value > enough or (center.is_finite() and center + jet.slope * (box - arb(middle)) > enough)):
            pending += [(low, middle), (middle, high)]
    raise NotProvedError


def _objective(value: Formula, u: float, t: float, level: float) -> Formula:
    return lambda z: (z - arb(u)) * (z - arb(u)) * arb(0.5) + value(z) * arb(t) + z * arb(level)


def _least_far_out(value: Formula, t: float) -> arb:
    """Return a bound from below of F for every u of the grid, and z from NEAR to the end of float64 on both sides."""
    low, least = NEAR, arb(FAR)
    while low < FAR:
        box = arb(low).union(arb(2.0 * low))
        for z in (box, -box):
            F = (box - arb(max(INPUTS))) ** 2 / 2 + arb(t) * value(_point(z)).value
            least = least.min(F.lower())
        low *= 2.0
    return least


def _point(z: Any) -> Jet:
    return Jet(arb(z), arb(0))


def _constant(number: float) -> Jet:
    return Jet(arb(number), arb(0))


def _as_jet(number: Any) -> Jet:
    return number if isinstance(number, Jet) else _constant(float(number))
