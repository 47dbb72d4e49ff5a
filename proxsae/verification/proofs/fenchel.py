"""Proof by the conjugate: for a prox whose formula is a quotient, where the direct claim has too many symbols.

With <z, y> <= R(z) + R*(y) for all z and y, and equality at p and (u - p) / t, the objective of any z exceeds that of p
by at least ||z - p||^2 / 2. The value, the conjugate and the prox are read as they run.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import Any

import array_api_compat
import z3

from proxsae.formulas.arrays import Array
from proxsae.regularizers.k_support import KSupport, KSupportNorm, shrunk
from proxsae.regularizers.nonseparable import Joint
from proxsae.verification.proofs.arrays_z3 import PathReader, paths
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.formulas_z3 import Number, both, negation
from proxsae.verification.proofs.gain_rule import settle_lemma
from proxsae.verification.proofs.prove import OPTIMAL, Proof, Verdict
from proxsae.verification.proofs.whole_vectors import floats, in_time, inner, length, with_symbols

INEQUALITY = "<z, y> <= R(z) + R*(y)"
EQUALITY = "<p, y> = R(p) + R*(y) at y = (u - p) / t"


def prove_by_conjugate(R: Joint, timeout: float = 60.0) -> Proof:
    """Prove a convex regularizer that writes its conjugate, for a positive weight.

    Parameters
    ----------
    R : Joint
        Its form matters, not the value of its weight.
    timeout : float, default 60
        Seconds after which the verdict is "unknown".
    """
    start = time.monotonic()
    verdict, numbers = _fenchel(R, start + timeout)
    if verdict == "proved":
        verdict = settle_lemma(fenchel_lemma(), start + timeout)
    theorem = f"{OPTIMAL} for all real u and z of {length(R)} coordinates, t > 0 and all positive weights"
    return Proof(repr(R), theorem, verdict, time.monotonic() - start, numbers)


def prove_k_support_norm(R: KSupportNorm, timeout: float = 60.0) -> Proof:
    """Prove the k-support norm from half its square.

    Its prox is that of half the square at the step s for which the dual norm of u - p is t. Newton's method finds s;
    the theorem is about the exact one.
    """
    start = time.monotonic()
    deadline = start + timeout
    verdict, numbers = _fenchel(KSupport(R.k), deadline)
    if verdict == "proved":
        verdict, numbers = _same_as_square(R, length(R), deadline)
    if verdict == "proved":
        verdict = settle_lemma(gauge_lemma(), deadline)
    domain = f"all real u and z of {length(R)} coordinates, t > 0 and all positive weights"
    theorem = f"{OPTIMAL} for {domain}, with the exact root that Newton's method goes for"
    return Proof(repr(R), theorem, verdict, time.monotonic() - start, numbers)


def _fenchel(R: Joint, deadline: float) -> tuple[Verdict, dict[str, Any] | None]:
    verdict, numbers = _inequality(R, length(R), deadline)
    return _equality(R, length(R), deadline) if verdict == "proved" else (verdict, numbers)


def _same_as_square(R: KSupportNorm, n: int, deadline: float) -> tuple[Verdict, dict[str, Any] | None]:
    """Prove that what the norm returns at the root x is the prox of half its square at the step 1 / (x - 1)."""

    def run(reader: PathReader) -> tuple[PathReader, Array, Array, Array]:
        x = reader.real("x")
        reader.assume(x > 1)
        u = reader.reals("u", n)[None]
        space = array_api_compat.array_namespace(u)
        ours = shrunk(space, u, reader.abs(u), reader.asarray([[x]]), R.k)
        return reader, u[0], ours[0], _square_prox(R.k, reader, u, reader.asarray([[1 / (x - 1)]]))[0]

    for reader, u, ours, square in in_time(paths(run), deadline):
        same = z3.And([(one == other).holds for one, other in zip(ours, square, strict=True)])
        result, model = decide([z3.Not(same), *reader.facts], reader.definitions, deadline)
        if result == z3.sat:
            fails = "the prox of half the square at another step"
            return "counterexample", {"fails": fails, "u": floats(model, u), "claimed z": floats(model, ours)}
        if result == z3.unknown:
            return "unknown", None
    return "proved", None


def _inequality(R: Any, n: int, deadline: float) -> tuple[Verdict, dict[str, Any] | None]:
    def run(reader: PathReader) -> tuple[PathReader, Array, Array, Number]:
        z, y = reader.reals("z", n)[None], reader.reals("y", n)[None]
        return reader, z[0], y[0], _sum(R, reader, z, y)

    for reader, z, y, total in in_time(paths(run), deadline):
        if total.infinite is True:
            continue
        result, model = decide([inner(z, y).term > total.term, *reader.facts], reader.definitions, deadline)
        if result == z3.sat:
            return "counterexample", {"fails": INEQUALITY, "z": floats(model, z), "y": floats(model, y)}
        if result == z3.unknown:
            return "unknown", None
    return "proved", None


def _equality(R: Any, n: int, deadline: float) -> tuple[Verdict, dict[str, Any] | None]:
    def run(reader: PathReader) -> tuple[PathReader, Array, Array, Array, Number]:
        symbolic: Any = with_symbols(R, reader, n)
        t, weight = reader.real("t"), reader.real("weight")
        reader.assume(t > 0)
        reader.assume(weight > 0)
        u = reader.reals("u", n)[None]
        p = symbolic.prox_on(reader, u, reader.asarray([[t]]))
        y = (u - p) / reader.asarray([[t * weight]])
        return reader, u[0], p[0], y[0], _sum(R, reader, p, y)

    for reader, u, p, y, total in in_time(paths(run), deadline):
        claim = reduce(both, [entry.is_finite for entry in (*p, total)], (inner(p, y) == total).holds)
        result, model = decide([negation(claim), *reader.facts], reader.definitions, deadline)
        if result == z3.sat:
            numbers = {"u": floats(model, u), "claimed z": floats(model, p), "y": floats(model, y)}
            return "counterexample", {"fails": EQUALITY, **numbers}
        if result == z3.unknown:
            return "unknown", None
    return "proved", None


def _square_prox(k: int, xp: Any, u: Array, step: Array) -> Array:
    return KSupport(k).prox_of(xp, u, step)


def _sum(R: Any, reader: PathReader, z: Array, y: Array) -> Number:
    """Return R(z) + R*(y) at weight one."""
    total: Number = reader.number(R.value_of(reader, z)[0]) + reader.number(R.conjugate_of(reader, y)[0])
    return total


def fenchel_lemma() -> list[list[Any]]:
    """Refute: the two statements hold, and F(z) < F(p) + ||z - p||^2 / 2.

    ss, sd are the inner products of s = u - p = t y with itself and with d = z - p, and dd that of d with itself; zy
    and py are those of y with z and p.
    """
    t, ss, sd, dd, zy, py, R_z, R_p, dual = z3.Reals("t ss sd dd zy py R_z R_p dual")
    known = [t > 0, sd == t * (zy - py), zy <= R_z + dual, py == R_p + dual]
    gain = (dd - 2 * sd + ss) / 2 + t * R_z - ss / 2 - t * R_p
    return [[*known, gain < dd / 2]]


def gauge_lemma() -> list[list[Any]]:
    """Refute: p is the prox of N^2 / 2 at the step s, s times its dual norm D(y) is t, and some z is better under N.

    y = (u - p) / s; zy and py are its inner products with z and p. The inequality of N^2 / 2 at D z / N(z) says
    zy <= D N(z); where N(z) = 0 it says so at every multiple of z, whence zy <= 0.
    """
    s, t, D, N_z, N_p, zy, py, dd = z3.Reals("s t D N_z N_p zy py dd")
    sizes = [s > 0, t > 0, D >= 0, N_z >= 0, N_p >= 0, dd >= 0]
    scaled = [N_z > 0, D / N_z * zy <= D * D / N_z / N_z * N_z * N_z / 2 + D * D / 2, D > 0, zy > D * N_z]
    young = [py == N_p * N_p / 2 + D * D / 2, py <= D * N_p, N_p != D]
    # 1/2 ||z - u||^2 - 1/2 ||p - u||^2 = dd / 2 - s (zy - py)
    better = [zy <= D * N_z, py == D * N_p, s * D == t, dd / 2 - s * (zy - py) + t * (N_z - N_p) < dd / 2]
    # Where the dual norm of u is at most t the prox is 0; there zy is the inner product of z and u.
    dead = [D <= t, zy <= D * N_z, dd / 2 - zy + t * N_z < dd / 2]
    return [[*sizes, *scaled], [*sizes, *young], [*sizes, *better], [*sizes, *dead]]
