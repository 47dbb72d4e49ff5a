"""The code of a selection, read apart from its partner: its ranks, the entries that it keeps, and its domain.

The ranks of a coordinate are read by z3. Which ranks are kept is tested: the code compares ranks and counts, so that
only their order matters, and every order of a few ranks that compete for the last places is tried, with ties and zeros.
"""

from __future__ import annotations

import copy
import time
from itertools import product
from typing import Any

import numpy as np
import z3

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.separable import Separable
from proxsae.verification.oracles.supports import enumerate_supports
from proxsae.verification.pair import pair_of_regularizer
from proxsae.verification.proofs.arrays_z3 import PathReader, in_time, paths
from proxsae.verification.proofs.decide import decide
from proxsae.verification.proofs.theorem import NotProvedError

COMPETING = 4  # ranks
LEVELS = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0)  # values of the ranks; no rank <= 0 is kept
STEP = 3.0


class _Partner:
    """A stand-in for a partner with known traits alone: its prox multiplies by the step, its value is a sum."""

    def __init__(self, partner: Separable) -> None:
        self.is_uniform, self.is_nonnegative = partner.is_uniform, partner.is_nonnegative
        self.is_symmetric, self.is_least_at_zero = partner.is_symmetric, partner.is_least_at_zero

    def prox_on(self, xp: Any, U: Array, step: Any) -> Array:  # noqa: ARG002
        return U * step

    def value_on(self, xp: Any, Z: Array) -> Array:  # noqa: ARG002
        return Z.sum(-1)

    def group_values(self, xp: PathReader, Z: Array, units: Any) -> Array:  # noqa: ARG002
        return xp.reals("r", Z.size).reshape(Z.shape)


def prove_selection(R: Cardinality, deadline: float) -> None:
    """Prove that the k largest gains are kept; else look for numbers."""
    if _ranks_by_gains(R, deadline) and _keeps_the_largest(R, deadline):
        return
    found = enumerate_supports(R, pair_of_regularizer(R))
    raise NotProvedError(found.counterexample and {"fails": found.reason, **found.counterexample})


def _ranks_by_gains(R: Cardinality, deadline: float) -> bool:
    """Whether the code ranks by u, abs(u) or twice the gain, as its `rank_sign` says."""
    twin = _with_partner(R)
    for shape in ((), (1, 1)):
        sign = R.rank_sign(np.ones(shape))
        if sign not in (None, R.rank_sign(np.ones(()))) or (sign is not None and not R.partner.is_uniform):
            return False

        def run(reader: Any, shape: tuple[int, ...] = shape) -> tuple[PathReader, Any]:
            u, step, z = reader.reals("u", 1), reader.asarray(reader.real("t")), reader.reals("z", 1)
            return reader, twin.ranks(reader, u[None], step.reshape(shape), z[None])[0, 0]

        u, t, z, r = z3.Reals("u0 t z0 r0")
        gain = z * (2 * u - z) - 2 * t * r
        expected = gain if sign is None else z3.If(u >= 0, u, int(sign) * u)
        for reader, rank in in_time(paths(run), deadline):
            claim = z3.And(rank.is_finite, rank.term == expected)
            if decide([z3.Not(claim), *reader.facts], reader.definitions, deadline)[0] != z3.unsat:
                return False
    return True


def _keeps_the_largest(R: Cardinality, deadline: float) -> bool:
    """Whether the k largest positive ranks are kept, the lowest index at ties, and no more than k are in the domain."""
    twin = _with_partner(R)
    kept = R.k if R.scope == "sample" else 2 * R.k
    sure = np.full(max(kept - COMPETING // 2, 0), 9.0)
    for competing in product(LEVELS, repeat=COMPETING):
        ranks = np.concatenate([competing, sure])
        ranks = np.stack([ranks, ranks[::-1]] if R.scope == "sample" else [ranks])  # the entries of a row compete
        places = np.argsort(np.argsort(-ranks, axis=1, kind="stable"), axis=1)
        keep = ((places < kept) & (ranks > 0)).reshape(2, -1)
        fits = (ranks > 0).sum(axis=1) <= kept
        if time.process_time() > deadline:
            raise NotProvedError
        if not _selects(twin, ranks.reshape(2, -1), keep, fits):
            return False
    return True


def _selects(twin: Cardinality, ranks: Array, keep: Array, fits: Array) -> bool:
    """Whether so ranked the entries of two rows are kept, and whether those of positive rank are in the domain."""
    object.__setattr__(twin, "ranks", lambda *_: ranks)
    U = 1.0 + np.arange(ranks.size).reshape(ranks.shape) % 7.0
    positive = np.where(ranks > 0, U, 0.0)
    xp = ArrayNamespace(U)
    return np.array_equal(twin.prox_on(xp, U, xp.asarray(STEP)), np.where(keep, STEP * U, 0.0)) and np.array_equal(
        twin.value_on(xp, positive), np.where(fits, positive.sum(-1), np.inf)
    )


def _with_partner(R: Cardinality) -> Cardinality:
    twin = copy.copy(R)
    object.__setattr__(twin, "partner", _Partner(R.partner))
    return twin
