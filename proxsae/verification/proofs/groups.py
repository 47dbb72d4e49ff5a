"""Norms of groups: the theorem of r(||z_g||), for groups of every size, from that of the scalar r and one lemma.

Among the z of a given norm the nearest to u lies on the ray of u (Cauchy-Schwarz), so that the prox of u is a multiple
of u whose norm is the prox of r at the norm of u. z3 proves the theorem of r from its formulas, then reads the array
code with a stand-in for r: any function for which the theorem holds. This proves the code for every r at once, together
with a count of groups where R has one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import z3

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import Box
from proxsae.regularizers.groups import OfNorms
from proxsae.regularizers.partition import Grouped
from proxsae.regularizers.separable import Separable
from proxsae.verification.proofs.formulas_z3 import Reader
from proxsae.verification.proofs.separable import obligations, parts, prove_claims, read
from proxsae.verification.proofs.theorem import NotProvedError, Theorem
from proxsae.verification.proofs.whole_vectors import length, prove_radial, prove_read, read_theorem, statement


def groups_theorem(R: Regularizer) -> Theorem:
    """Return the theorem about norms of groups, counts of groups, or both together; s is part of the form."""
    if length(R) > 1:  # two groups and a stand-in are too much for z3
        return replace(read_theorem(R), prove=partial(_prove_counted, R))
    return Theorem(statement(R), partial(prove_norms, R))


def _prove_counted(R: Regularizer, deadline: float) -> None:
    check_groups(R)
    prove_read(R, deadline)


def check_groups(R: Regularizer) -> None:
    """Raise NotProvedError unless the code adds and spreads over the groups given, or over three of the size given.

    These maps are linear, or take a maximum, so that the codes with a single 1 are enough. What is proved is then read
    at vectors, of which each is one group.
    """
    for term in R.terms:
        if isinstance(term, Grouped):
            size = term.groups if isinstance(term.groups, int) else None
            n = 3 * (size or 1) if term.width is None else term.width
            labels = np.arange(n) // (size or n) if term.width is None else term.groups
            parts, is_member = term.units(n), np.equal.outer(labels, np.unique(labels))
            sums = [parts.sums(np.eye(n)), parts.largest(np.eye(n)), parts.spread(np.eye(is_member.shape[1])).T]
            if not all(np.array_equal(one, is_member) for one in sums):
                raise NotProvedError


def prove_norms(R: Regularizer, deadline: float) -> None:
    """Prove every r in R, then the array code for any r, which moves along rays."""
    check_groups(R)
    for term in R.terms:
        if isinstance(term, OfNorms):
            prove_scalar(term.r, deadline)
    try:
        prove_radial(R, deadline)
    except NotProvedError as unproved:
        if unproved.numbers is not None:  # with r itself: what refutes a stand-in need not refute r
            prove_read(R, deadline)
        raise NotProvedError from None


def prove_scalar(r: Separable, deadline: float) -> None:
    """Prove the theorem of an r of norms, also at the step 0, and that its prox at a norm is a norm."""
    reader = Reader()
    objective = read(r, reader, has_weight=False)  # that of the groups is in the step
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
    prove_claims(objective, claims, reader, deadline)
