"""L1 minus L2, which is not convex: proved for codes of every length.

Write v for the soft threshold of u at t. As <u - v, z> <= t ||z||_1, with equality on the ray of v, the objective is at
least that of v under -t ||z||_2 alone, which stretches v; where v = 0, it is at least -max(u_i^2)/2, reached by the
largest entry (Lou and Yan, 2018). z3 reads that the code does so off codes of two coordinates, and proves the rest.
"""

from __future__ import annotations

import time
from typing import Any

import z3

from proxsae.regularizers.basic import L1
from proxsae.regularizers.k_support import L1MinusL2
from proxsae.verification.proofs.composition import composition_lemma, goes_first
from proxsae.verification.proofs.gain_rule import settle_lemma
from proxsae.verification.proofs.prove import OPTIMAL, Proof
from proxsae.verification.proofs.whole_vectors import prove_equal, shipped_prox, shipped_value


def prove_norm_difference(R: L1MinusL2, timeout: float = 60.0) -> Proof:
    """Prove L1 minus L2.

    Parameters
    ----------
    R : L1MinusL2
    timeout : float, default 60
        Seconds after which the verdict is "unknown".
    """
    start = time.monotonic()
    deadline = start + timeout
    verdict, numbers = prove_equal(R, shipped_value, _difference, deadline)
    if verdict == "proved":
        verdict, numbers = prove_equal(R, shipped_prox, _stretched, deadline)
    if verdict == "proved":
        verdict, numbers = goes_first(L1(), deadline)
    if verdict == "proved":
        verdict = settle_lemma(composition_lemma() + stretch_lemma() + single_lemma(), deadline)
    theorem = f"{OPTIMAL} for codes of every length, t > 0 and all admissible weights"
    return Proof(repr(R), theorem, verdict, time.monotonic() - start, numbers)


def _difference(R: Any, xp: Any, z: Any, t: Any) -> Any:  # noqa: ARG001
    """R(z) is the difference of the norms."""
    return R.weight * (xp.abs(z).sum(-1) - xp.sqrt((z * z).sum(-1)))[None]


def _stretched(R: Any, xp: Any, u: Any, t: Any) -> Any:
    """p = v (1 + t / ||v||), or the largest entry of u where v = 0."""  # noqa: D403
    t = t * R.weight
    v = L1().prox_on(xp, u, t)
    if any(bool(entry != 0) for entry in v[0]):
        return v * (1.0 + t / xp.sqrt((v * v).sum(-1)[..., None]))
    first, second = u[0]
    return xp.asarray([[first, 0.0] if xp.abs(first) >= xp.abs(second) else [0.0, second]])


def stretch_lemma() -> list[list[Any]]:
    """Refute: some z beats p = (1 + t / ||v||) v under 1/2 ||z - v||^2 - t ||z||, v != 0.

    s, m are the norms of v and z, c is their inner product.
    """
    s, m, c, t = z3.Reals("s m c t")
    at_p = (s + t) * (s + t) / 2 - (s + t) * s - t * (s + t)
    return [[s > 0, m >= 0, t > 0, c <= s * m, m * m / 2 - c - t * m < at_p]]


def single_lemma() -> list[list[Any]]:
    """Refute: some z is better than the largest entry a = max abs(u_i) <= t alone, whose objective is -a^2/2.

    m and total are the L2 and the L1 norm of z, c is its inner product with u.
    """
    a, m, total, c, t = z3.Reals("a m total c t")
    return [[0 <= a, a <= t, 0 <= m, m <= total, c <= a * total, m * m / 2 - c + t * (total - m) < -a * a / 2]]
