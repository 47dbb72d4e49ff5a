"""Checks of the traits of R, on which sums, cardinalities and solvers rely.

Most traits are claims about the value: if R is least at zero, for example, the prox of R + i{z >= 0} is that of R at
max(u, 0). The prox of R may be right where a trait is wrong, so that no search for a better z detects it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.integers import evenly_spaced
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L1
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.partition import Grouped
from proxsae.regularizers.separable import Separable
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.oracles.line import GRID, POINTS
from proxsae.verification.oracles.properties import ROUNDING
from proxsae.verification.pair import Pair, pair_of_regularizer
from proxsae.verification.report import Check

Value = Callable[[Array], Array]

MOST_AXES = 8
SHRUNK = (0.0, 0.5, 0.99)  # factors by which a z_i is shrunk
BELOW = (-1e-3, -0.5, -1.0, -30.0)  # z_i that a code of R >= 0 must not have


class Claim(NamedTuple):
    """The claim that the value of each code lies between two bounds, up to rounding."""

    words: str
    codes: Array
    values: Array
    least: Any
    most: Any
    others: Array | None = None  # the codes whose values are the bounds


def check_traits(R: Regularizer, pair: Pair) -> Check:
    """Check the claims of the traits of R about its prox and its value."""
    rounding = max(ROUNDING, pair.tolerance)
    claims = _claims_of_the_prox(R, pair)
    of_values = [claim for value, Z in _parts(R, pair) for claim in _claims_on_the_value(R, value, Z)]
    promised = dict.fromkeys(claim.words for claim in of_values)
    covers = ", ".join([*claims, *promised]) or "no trait with a consequence"
    for words, (expected, got, U) in claims.items():
        wrong = ~(np.abs(expected - got) <= rounding * (1.0 + np.abs(U)))
        if wrong.any():
            i = int(np.argmax(wrong.any(axis=-1)))
            numbers = {"u": U[i], "expected": expected[i], "got": got[i]}
            return Check("traits", covers, "failed", numbers, f"not true: {words}")
    for claim in of_values:
        if (refuted := _refuted(claim, rounding)) is not None:
            return Check("traits", covers, "failed", refuted, f"not true: {claim.words}")
    return Check("traits", covers, "passed")


def check_sums(R: Regularizer, pair: Pair) -> Check:
    """Check a sum whose prox rests on a trait of an R of whole codes: with L1 where R is radial."""
    total = R + 0.3 * L1()
    found = search_codes(pair_of_regularizer(total, pair.n, pair.steps, "quick"))
    reason = found.reason if found.verdict == "passed" else f"not true: R is radial; of {total}: {found.reason}"
    return Check("sum that rests on is_radial", f"{total}: {found.covers}", found.verdict, found.counterexample, reason)


def has_sums(R: Regularizer) -> bool:
    """Whether :func:`check_sums` applies."""
    return isinstance(R, NonSeparable) and R.is_radial


def _claims_of_the_prox(R: Regularizer, pair: Pair) -> dict[str, tuple[Array, Array, Array]]:
    t = (pair.steps or (1.0,))[0]
    U = pair.points(40)
    P = R.prox(U, t)
    claims: dict[str, tuple[Array, Array, Array]] = {}
    if R.is_nonnegative:
        claims["codes are non-negative"] = (np.maximum(P, 0.0), P, U)
    if R.is_scale_free:
        claims["the step does not matter"] = (P, R.prox(U, 23.0 * t), U)
        claims["prox(3 u) = 3 prox(u)"] = (3.0 * P, R.prox(3.0 * U, t), U)
    if not np.any(R.value(P)) and R.is_convex:
        claims["a projection is idempotent"] = (P, R.prox(P, t), U)
    if isinstance(R, Separable) and R.is_symmetric:
        claims["prox(-u) = -prox(u)"] = (-P, R.prox(-U, t), U)
    if isinstance(R, Separable) and R.is_uniform:
        order = np.random.default_rng(1).permutation(pair.n)
        claims["a permutation of u permutes the code"] = (P[:, order], R.prox(U[:, order], t), U)
    if isinstance(R, Cardinality) and R.partner.is_uniform and R.scope == "sample":
        tied = np.resize([1.5, -1.5 if R.partner.is_symmetric else 1.5], (1, pair.n))
        partner = R.partner.prox(tied, t)
        claims["among equal gains the lowest index is kept"] = (
            partner * (np.arange(pair.n) < R.k),
            R.prox(tied, t),
            tied,
        )
    if R.scope != "batch":
        claims["rows are independent"] = (np.stack([R.prox(u, t) for u in U]), P, U)
    scaled = R.rescaled(4.0).prox(4.0 * U, t) if R.scope != "batch" else 4.0 * P
    claims["codes in other units: prox of R.rescaled(s) at s u is s prox(u)"] = (4.0 * P, scaled, U)
    return claims


def _parts(R: Regularizer, pair: Pair) -> Iterator[tuple[Value, Array]]:
    """Yield the subjects of the claims, a value of codes, and codes, which have one entry where R is separable."""
    if R.scope == "batch":
        return
    if not R.is_separable:
        yield pair.value, _codes(pair)
        return
    shared = pair.scalar is not None
    for j in [0] if shared else evenly_spaced(pair.n, MOST_AXES):
        value, prox = pair.coordinate(int(j))
        steps = pair.tried_steps[:1] if pair.tolerance else pair.tried_steps
        claimed = [prox(POINTS[np.abs(POINTS) <= pair.reach], t) for t in steps]
        z = np.concatenate([GRID, *claimed])
        z = np.unique(np.concatenate([z, -z]))
        yield partial(_of_the_entry, value), z[np.isfinite(z) & (np.abs(z) <= pair.reach)][:, None]


def _of_the_entry(value: Value, Z: Array) -> Array:
    return value(Z[:, 0])


def _codes(pair: Pair) -> Array:
    """Return codes of several entries: points, those with one entry, and claimed answers, which are in the domain."""
    count, t = pair.sizes.codes, pair.tried_steps
    U = pair.points(count)
    answers = [pair.answers(U, step)[1] for step in ((t[0], t[-1]) if pair.sizes.is_thorough else t[:1])]
    Z = np.concatenate([U, *answers, *(U * axis for axis in np.eye(pair.n)[evenly_spaced(pair.n, MOST_AXES)])])
    return Z[np.isfinite(Z).all(axis=-1)]


def _claims_on_the_value(R: Regularizer, value: Value, Z: Array) -> Iterator[Claim]:
    here = value(Z)
    axes = np.eye(Z.shape[1], dtype=bool)[evenly_spaced(Z.shape[1], MOST_AXES)]
    if R.is_indicator or R.is_scale_free:
        yield Claim("R is 0 or infinite", Z, here, 0.0, np.where(np.isposinf(here), np.inf, 0.0))
    if R.is_symmetric:
        flipped = Z * (np.random.default_rng(2).choice([-1.0, 1.0], Z.shape) if Z.shape[1] > 1 else -1.0)
        yield Claim("R ignores signs", flipped, value(flipped), here, here, Z)
    if R.is_symmetric or R.is_least_at_zero:
        words = "R does not fall as an abs(z_i) grows" if R.is_symmetric else "R is least at zero in each coordinate"
        for axis in axes:
            for factor in SHRUNK if R.is_symmetric else SHRUNK[:1]:
                smaller = np.where(axis, factor * Z, Z) + 0.0
                yield Claim(words, smaller, value(smaller), -np.inf, here, Z)
    if R.is_nonnegative:
        for axis in axes:
            for entry in BELOW:
                below = np.where(axis, entry * (1.0 + np.abs(Z)), Z)
                yield Claim("R is infinite unless every z_i >= 0", below, value(below), np.inf, np.inf)
    if R.is_convex:
        order = np.random.default_rng(3).permutation(len(Z))
        for other in (order, np.roll(np.arange(len(Z)), 1)):
            middle, chord = 0.5 * (Z + Z[other]), 0.5 * (here + here[other])
            yield Claim("R is convex: half-way it is not above its chord", middle, value(middle), -np.inf, chord, Z)
    if isinstance(R, Grouped) and R.is_sum_over(R.groups):
        yield from _claims_on_the_groups(R, value, Z)


def _claims_on_the_groups(R: Any, value: Value, Z: Array) -> Iterator[Claim]:
    units = R.units(Z.shape[1])
    each = np.asarray(R.group_values(ArrayNamespace(Z), Z, units), float)
    yield Claim("R is the sum of its groups", Z, value(Z), each.sum(-1), each.sum(-1))
    for g in evenly_spaced(each.shape[1], MOST_AXES):
        alone = np.where(units.spread(np.arange(each.shape[1])) == g, Z, 0.0)
        yield Claim(
            "the value of a group is that of R with the others at 0", alone, value(alone), each[:, g], each[:, g]
        )


def _refuted(claim: Claim, rounding: float) -> dict[str, Any] | None:
    """Return the numbers that refute a claim, or None; NaN is left to the searches."""
    values = claim.values
    least, most = (np.broadcast_to(bound, values.shape) for bound in (claim.least, claim.most))
    allowed = rounding * (1.0 + sum(np.where(np.isfinite(side), np.abs(side), 0.0) for side in (values, least, most)))
    wrong = (values < least - allowed) | (values > most + allowed)
    if not wrong.any():
        return None
    i = int(np.argmax(wrong))
    numbers = {"z": claim.codes[i], "R(z)": values[i], "at least": least[i], "at most": most[i]}
    if claim.others is not None:
        numbers["other z"] = claim.others[i]
    return {name: number if np.ndim(number) else float(number) for name, number in numbers.items()}
