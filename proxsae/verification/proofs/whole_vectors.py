"""Proofs for regularizers of whole codes and of groups: the shipped array code, read path by path.

Every path of the prox (facts about u, and p as a term) meets every path of the value (facts about z, and R(z) as a
term), and z3 refutes that the claim fails there. Where only norms of groups count, a coordinate of the code that is
read is a vector, so that the theorem is about groups of every size; elsewhere the code is a short one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import z3

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.cardinality import GroupCardinality
from proxsae.regularizers.groups import L2Ball
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.translated import TranslatedNonSeparable
from proxsae.verification.proofs.arrays_z3 import PathReader, Vector, in_time, inner_product, paths
from proxsae.verification.proofs.decide import decide, is_possible
from proxsae.verification.proofs.formulas_z3 import Number, both, negation
from proxsae.verification.proofs.separable import OPTIMAL, TIES, as_float
from proxsae.verification.proofs.symbols import given_numbers, takes_norms_only, with_symbols
from proxsae.verification.proofs.theorem import NotProvedError, Theorem

VARIATIONAL = "<u - p, z - p> <= t (R(z) - R(p))"


@dataclass(frozen=True)
class ProxPath:
    """A path of the prox: p = prox_{tR}(u) and R(p), with the facts about u."""

    reader: PathReader
    u: Array
    t: Number
    p: Array
    value: Number


@dataclass(frozen=True)
class Rival:
    """A path of the value: any z, and R(z), with the facts about z."""

    reader: PathReader
    z: Array
    value: Number


def read_theorem(R: Regularizer) -> Theorem:
    """Return the theorem about a prox whose code is read without further lemmas; k and s are part of the form."""
    return Theorem(statement(R), partial(prove_read, R), _in_words(R))


def prove_read(R: Regularizer, deadline: float) -> None:
    r"""Prove what is read: for convex R :math:`\langle u - p, z - p\rangle \le t(R(z) - R(p))` for all z.

    :math:`F(z) - F(p) \ge \frac12\|z - p\|^2` follows. Elsewhere the claim is F(p) <= F(z) itself.
    """
    _settle(R, list(_answers(R, deadline)), list(_rivals(R, deadline)), deadline)


def _in_words(R: Regularizer) -> str:
    """Return the verdict, which names the length where the proof is about codes of one length."""
    n = length(R)
    if not takes_norms_only(R):
        return f"proved for n = {n}"
    return "proved" if n == 1 else f"proved for {n} groups"


def statement(R: Regularizer) -> str:
    """Return the theorem about R in words."""
    n = length(R)
    if not takes_norms_only(R):
        subject = f"all real u and z of {n} coordinates"
    elif n == 1:
        subject = "all u and z" if isinstance(R, L2Ball) else "groups of every size, all real u and z"
    else:
        subject = f"{n} groups of every size, all real u and z"
    if R.width not in (None, n) and not takes_norms_only(R):
        subject += f" (the one given is for {R.width})"
    ties = f"; {TIES}" if _prefers_zero(R) else ""
    given = [name for term in R.terms if not isinstance(term, Separable) for name in given_numbers(term)]
    besides = f" and the given {', '.join(given)}" if given else ""
    return f"{OPTIMAL} for {subject}, t > 0 and all admissible weights{besides}{ties}"


def _prefers_zero(R: Regularizer) -> bool:
    """Whether zero wins ties: where R is convex there are none, and translated it prefers its centre."""
    return not R.is_convex and not any(isinstance(term, TranslatedNonSeparable) for term in R.terms)


def length(R: Regularizer) -> int:
    """Return how many coordinates, or groups, are read."""
    for term in R.terms:
        if isinstance(term, GroupCardinality):  # one group more than are kept; a pair among them where codes are real
            return term.s + (1 if takes_norms_only(R) else 2)
    if takes_norms_only(R):
        return 1
    return 1 + max([1, *(getattr(term, "k", 1) for term in R.terms)])


def _answers(R: Regularizer, deadline: float, *, any_scalar: bool = False) -> Iterator[ProxPath]:
    def run(reader: PathReader) -> ProxPath:
        reader.scalars = {} if any_scalar else None
        symbolic = with_symbols(R, reader, length(R))
        t = reader.real("t")
        reader.assume(t > 0)
        u = _code(R, reader, "u")
        p = symbolic.prox_on(reader, u, reader.asarray([[t]]))  # type: ignore[arg-type]
        answer = ProxPath(reader, u[0], t, p[0], _value(symbolic, reader, p))
        reader.facts += _theorems(reader, reader)
        return answer

    yield from in_time(paths(run), deadline)


def _rivals(R: Regularizer, deadline: float, *, any_scalar: bool = False) -> Iterator[Rival]:
    def run(reader: PathReader) -> Rival:
        reader.scalars = {} if any_scalar else None
        z = _code(R, reader, "z")
        rival = Rival(reader, z[0], _value(with_symbols(R, reader, length(R)), reader, z))
        reader.facts += _theorems(reader, reader)
        return rival

    for rival in in_time(paths(run, mark="z#"), deadline):
        if rival.value.infinite is not True:
            yield rival


def _theorems(proxes: PathReader, values: PathReader) -> list[Any]:
    """Return the statements of the stand-ins' theorems about the proxes on one path and the values on another."""
    theirs = values.scalars or {}
    return [fact for name, r in (proxes.scalars or {}).items() if name in theirs for fact in r.facts(theirs[name])]


def _code(R: Regularizer, reader: PathReader, name: str) -> Array:
    n = length(R)
    return (reader.vectors(name, n) if takes_norms_only(R) else reader.reals(name, n))[None]


def _value(R: Regularizer, reader: PathReader, Z: Array) -> Number:
    value = R.value_on(reader, Z)[0]  # type: ignore[arg-type]
    return reader.number(0) if isinstance(value, Vector) else reader.number(value)  # a zero may be written 0 z


def prove_radial(R: Regularizer, deadline: float) -> None:
    """Prove a regularizer of norms for all scalar functions that satisfy their theorems.

    The proof includes that the prox is a non-negative multiple of u. A counterexample need not be one for the given r.
    """
    answers = list(_answers(R, deadline, any_scalar=True))
    _settle(R, answers, list(_rivals(R, deadline, any_scalar=True)), deadline)
    for answer in answers:
        factors = [factor for entry in answer.p if isinstance(entry, Vector) for factor in entry.parts.values()]
        claim = z3.And([factor.term >= 0 for factor in factors])
        result, _ = decide([z3.Not(claim), *answer.reader.facts], answer.reader.definitions, deadline)
        if result != z3.unsat:
            raise NotProvedError


def prove_equal(R: Regularizer, formula: Callable[..., Array], deadline: float, *, any_scalar: bool) -> None:
    """Prove that the prox that runs on codes of two coordinates is what a formula of (R, xp, code, t) says."""

    def run(reader: PathReader) -> tuple[PathReader, Array, Array]:
        reader.scalars = {} if any_scalar else None
        symbolic, t = with_symbols(R, reader, 2), reader.real("t")
        reader.assume(t > 0)
        code, step = reader.reals("u", 2)[None], reader.asarray([[t]])
        ours = symbolic.prox_on(reader, code, step)  # type: ignore[arg-type]
        return reader, ours[0], formula(symbolic, reader, code, step)[0]

    for reader, ours, theirs in in_time(paths(run), deadline):
        same = [one == two for one, two in zip(ours, theirs, strict=True)]
        claim = reduce(both, [both(c.holds, c.defined) for c in same], reduce(both, reader.obligations, True))
        result, model = decide([negation(claim), *reader.facts], reader.definitions, deadline)
        if result == z3.sat:
            numbers = {"u": floats(model, reader.reals("u", 2)), "t": as_float(model, reader.real("t"))}
            found = {"claimed": floats(model, ours), "expected": floats(model, theirs)}
            raise NotProvedError({"fails": formula.__doc__, **numbers, **found})
        if result == z3.unknown:
            raise NotProvedError


def _settle(R: Regularizer, answers: list[ProxPath], rivals: list[Rival], deadline: float) -> None:
    is_proved = all(
        any(is_possible(side.reader.facts, side.reader.definitions, deadline) for side in sides)
        for sides in (answers, rivals)
    )
    for answer in answers:
        for words, claim in _claims(R, answer).items():
            result, model = decide([negation(claim), *answer.reader.facts], answer.reader.definitions, deadline)
            if result == z3.sat:
                raise NotProvedError({"fails": words, **_numbers(model, answer, None)})
            is_proved &= result == z3.unsat
        for rival in rivals:
            result, model = _beats(answer, rival, deadline, by_slope=R.is_convex and not answer.reader.scalars)
            if result == z3.sat:
                raise NotProvedError(_refutation(answer, rival, model, rivals, deadline))
            is_proved &= result == z3.unsat
        if time.process_time() > deadline:
            raise NotProvedError
    if not is_proved:
        raise NotProvedError


def _claims(R: Regularizer, answer: ProxPath) -> dict[str, Any]:
    """Return the claims about p alone."""
    entries = [part for entry in answer.p for part in (entry.parts.values() if isinstance(entry, Vector) else [entry])]
    claims: dict[str, Any] = {
        "the comparisons are defined": reduce(both, answer.reader.obligations, True),
        "the prox is a real number": reduce(both, [entry.is_finite for entry in entries], True),
        "the prox is in the domain": answer.value.is_finite,
    }
    if _prefers_zero(R):  # for these R, R(0) = 0
        zero = [answer.reader.number(0)] * len(answer.u)
        gain = _objective(answer, zero, answer.reader.number(0)) - _objective(answer, answer.p, answer.value)
        is_zero = z3.And([(entry * entry).term == 0 for entry in answer.p])
        claims[TIES] = z3.Or(is_zero, gain.term > 0)
    return claims


def _objective(answer: ProxPath, z: Any, value: Number) -> Number:
    return inner(z - answer.u, z - answer.u) * 0.5 + answer.t * value


def inner(a: Any, b: Any) -> Number:
    """Return the inner product."""
    products: list[Number] = [x * y for x, y in zip(a, b, strict=True)]
    return sum(products[1:], products[0])


def _beats(answer: ProxPath, rival: Rival, deadline: float, *, by_slope: bool) -> tuple[Any, Any]:
    """Ask for a u and a z on the two paths such that z refutes p."""
    u, t, p, z = answer.u, answer.t, answer.p, rival.z
    if by_slope:
        refuted = inner(u - p, z - p).term > (t * (rival.value - answer.value)).term
    else:
        refuted = _objective(answer, p, answer.value).term > _objective(answer, z, rival.value).term
    facts = [
        refuted,
        *_theorems(answer.reader, rival.reader),
        *_cauchy_schwarz(answer, rival),
        *answer.reader.facts,
        *rival.reader.facts,
    ]
    return decide(facts, answer.reader.definitions + rival.reader.definitions, deadline)


def _cauchy_schwarz(answer: ProxPath, rival: Rival) -> list[Any]:
    """Return the conditions on inner products under which there are vectors that have them."""
    pairs = [(u, z) for u, z in zip(answer.u, rival.z, strict=True) if isinstance(u, Vector)]
    return [((u * z) * (u * z)).term <= ((u * u) * (z * z)).term for u, z in pairs]


def _refutation(answer: ProxPath, rival: Rival, model: Any, rivals: list[Rival], deadline: float) -> dict[str, Any]:
    """Return a z of smaller objective where there is one on some path, else the slope that is too small."""
    for other in rivals:
        result, found = _beats(answer, other, min(deadline, time.process_time() + 2.0), by_slope=False)
        if result == z3.sat:
            return {"fails": OPTIMAL, **_numbers(found, answer, other)}
    return {"fails": VARIATIONAL, **_numbers(model, answer, rival)}


def _numbers(model: Any, answer: ProxPath, rival: Rival | None) -> dict[str, Any]:
    reader = answer.reader
    variables = {"t", *(f"{code}{i}" for code in "uz" for i in range(len(answer.u)))}
    names = sorted({str(d) for d in model.decls() if not str(d).startswith(("#", "z#", "<"))} - variables)
    numbers: dict[str, Any] = {
        "u": floats(model, answer.u),
        "t": as_float(model, answer.t),
        **{name: as_float(model, reader.real(name)) for name in names},
        "claimed z": floats(model, answer.p),
        "claimed objective": as_float(model, _objective(answer, answer.p, answer.value)),
    }
    if rival is not None:
        better = as_float(model, _objective(answer, rival.z, rival.value))
        numbers |= {"better z": floats(model, rival.z), "better objective": better}
    return numbers


def floats(model: Any, entries: Array) -> Array:
    """Return the entries as numbers; a vector as one of the plane with the same inner products."""
    return np.array([_in_the_plane(model, e) if isinstance(e, Vector) else as_float(model, e) for e in entries])


def _in_the_plane(model: Any, vector: Vector) -> list[float]:
    """Return the coordinates where u lies on the first axis."""
    index = next(iter(vector.parts))[1:]
    reader = vector.reader
    uu, uz, zz = (
        as_float(model, reader.real(inner_product(one + index, two + index))) for one, two in ("uu", "uz", "zz")
    )
    length = uu**0.5
    along = uz / length if length else zz**0.5
    plane = {f"u{index}": (length, 0.0), f"z{index}": (along, max(zz - along**2, 0.0) ** 0.5)}
    parts = {name: as_float(model, part) for name, part in vector.parts.items()}
    return [sum(part * plane[name][axis] for name, part in parts.items()) for axis in (0, 1)]
