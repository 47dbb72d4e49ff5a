"""Claims that are proved beside the prox, since solvers and sums rely on them: the conjugate, and r least at zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import z3

from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.conjugate import has_normal_form
from proxsae.regularizers.separable import Separable
from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError, Number, Reader, both, either, negation

if TYPE_CHECKING:
    from proxsae.verification.proofs.separable import Objective

FENCHEL = "r(z) + r*(v) >= z v"
LEAST = "r(0) <= r(z)"
NO_CONJUGATE = "the conjugate is not part of the proof"
SLOPE = "v of the conjugate"


def claims_beside(o: Objective) -> dict[str, Any]:
    """Return the claims about the conjugate and the trait `is_least_at_zero`, in words and as z3 formulas."""
    claims: dict[str, Any] = {}
    if o.shipped.is_least_at_zero:
        zero = o.r.weighted_value(o.t.reader, o.t.reader.number(0))
        is_least = either(o.value.infinite, both(zero.is_finite, zero.term <= o.value.term))
        claims[LEAST] = either(negation(_as_given(o)), is_least)
    if (conjugate := _conjugate(o.shipped, o.r, o.t.reader)) is not None:
        is_infinite = either(o.value.infinite, conjugate.infinite)
        bounds = o.value.term + conjugate.term >= o.z.term * o.t.reader.real(SLOPE).term
        claims[FENCHEL] = both(conjugate.defined, either(is_infinite, bounds))
    return claims


def numbers_beside(o: Objective, fails: str) -> dict[str, Number]:
    """Return the numbers that show that one of these claims fails."""
    reader = o.t.reader
    numbers = {"z": o.z, **o.parameters(), "r(z)": o.value}
    if fails == LEAST:
        return {**numbers, "r(0)": o.r.weighted_value(reader, reader.number(0))}
    v, conjugate = reader.real(SLOPE), _conjugate(o.shipped, o.r, reader)
    assert conjugate is not None
    return {**numbers, "v": v, "r*(v)": conjugate, "z v": o.z * v}


def said_beside(R: Regularizer, part: Regularizer) -> str:
    """Return the words of a theorem about R, or about its separable part, on both claims."""
    said = ""
    if isinstance(part, Separable):
        reader = Reader()
        r = part.map_parameters(lambda name, _: reader.real(f"r.{name}"))
        said += f"; {LEAST} for these parameters" if part.is_least_at_zero else ""
        if _conjugate(part, r, reader) is not None:
            return f"{said}; {FENCHEL} for all real z and v"
    return f"{said}; {NO_CONJUGATE}" if R.has_conjugate else said


def _conjugate(shipped: Separable, r: Separable, reader: Reader) -> Number | None:
    """Return r* of the slope, or None where it is not a formula of the class, or not one that z3 reads."""
    if has_normal_form(shipped) or not shipped.is_conjugate_written:
        return None
    try:
        return reader.number(r.weighted_conjugate(reader, reader.real(SLOPE)))
    except (NotAlgebraicError, NotImplementedError, TypeError, AttributeError):
        return None  # a conjugate may be written for arrays alone: no other reader needs it


def _as_given(o: Objective) -> Any:
    """Return the condition that the parameters are those of a coordinate of the given R: a trait may depend on them."""
    symbols = [symbol for _, symbol in o.r.parameters()]
    if not symbols:
        return True
    values = [to_numpy(value) for _, value in o.shipped.parameters()]
    rows = np.unique(np.stack(np.broadcast_arrays(*map(np.atleast_1d, values)), axis=-1).astype(np.float64), axis=0)
    number = o.t.reader.number
    return z3.Or(*(z3.And(*(s.term == number(x).term for s, x in zip(symbols, row, strict=True))) for row in rows))
