"""Norms of groups: the theorem of r(||z_g||), for groups of every size, from that of the scalar r and one lemma.

The z of a given norm that comes nearest to u lies on the ray of u (Cauchy-Schwarz), so that the prox of u is a multiple
of it, by the prox of r at the norm of u. z3 proves the theorem of r from its formulas, then reads the array code with a
stand-in for r: any function that the theorem holds of. So the code is proved for every r at once, together with a count
of groups where it has one.
"""

from __future__ import annotations

import time
from typing import Any

import z3

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import Box
from proxsae.regularizers.groups import OfNorms
from proxsae.verification.proofs.formulas_z3 import Reader
from proxsae.verification.proofs.separable import obligations, parts, read, settle
from proxsae.verification.proofs.whole_vectors import length, prove_radial, prove_read, statement
from proxsae.verification.report import Proof


def prove_groups(R: Regularizer, timeout: float = 60.0) -> Proof:
    """Prove norms of groups, counts of groups, and both together.

    Parameters
    ----------
    R : Regularizer
        Its form matters, not the values of its parameters; s is part of the form.
    timeout : float, default 60
        Seconds after which the verdict is "unknown".
    """
    start = time.monotonic()
    if length(R) > 1:  # two groups and a stand-in are too much for z3
        return prove_read(R, timeout)
    verdict, numbers = prove_norms(R, start + timeout)
    return Proof(repr(R), statement(R), verdict, time.monotonic() - start, numbers)


def prove_norms(R: Regularizer, deadline: float) -> tuple[str, dict[str, Any] | None]:
    """Prove every r in R, then the array code for any r, which moves along rays."""
    verdict, numbers = prove_scalars(R, deadline)
    if verdict != "proved":
        return verdict, numbers
    verdict = prove_radial(R, deadline)
    if verdict != "counterexample":
        return verdict, None
    refuted = prove_read(R, deadline - time.monotonic())  # with r itself: what refutes a stand-in need not refute r
    return (verdict if refuted.counterexample else "unknown"), refuted.counterexample


def prove_scalars(R: Regularizer, deadline: float) -> tuple[str, dict[str, Any] | None]:
    """Prove of every r in R its theorem, also at the step 0, and that its prox of a norm is a norm."""
    for term in R.terms:
        if isinstance(term, OfNorms):
            reader = Reader()
            objective = read(term.r, reader, has_weight=False)  # that of the groups is in the step
            u, t, p = objective.u, objective.t, objective.claimed
            objective.assumptions[0] = t.term >= 0
            boxes = [part for part in parts(objective.r) if isinstance(part, Box)]
            objective.assumptions.extend(box.lower.term == -box.upper.term for box in boxes)  # so that r is even
            claims = {
                **obligations(objective),
                "r(0) = 0": objective.r.weighted_value(reader, reader.number(0)).term == 0,
                "the prox of u >= 0 is >= 0, and 0 at 0": z3.And(
                    z3.Implies(u.term >= 0, p.term >= 0), z3.Implies(u.term == 0, p.term == 0)
                ),
            }
            verdict, numbers = settle(objective, claims, reader, deadline)
            if verdict != "proved":
                return verdict, numbers
    return "proved", None
