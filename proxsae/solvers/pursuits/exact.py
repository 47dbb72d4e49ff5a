r"""The best codes with at most k non-zeros, by looking at all supports: small problems only.

:math:`\min_{|S| = k} \min_{z_S} \frac12\|y - z_S D_S\|^2 + \sum_{i \in S} r_i(z_i)` with a convex r, whose inner
minimum is found by coordinate passes and Newton steps. The problem is NP-hard in general: Natarajan (1995), Sparse
approximate solutions to linear systems, SIAM J. Comput. 24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Cardinality, Regularizer
from proxsae.solvers.algorithm import Direct, Ended
from proxsae.solvers.coordinates import squared_norms
from proxsae.solvers.pursuits.certified import Certifier
from proxsae.solvers.pursuits.pursuit import refuses_partner, scalar_formulas
from proxsae.solvers.pursuits.supports import room_for
from proxsae.solvers.threads import by_blocks

MOST_SUPPORTS = 1_000_000  # for each sample; that many of three atoms take a few seconds


@dataclass(frozen=True)
class Enumeration:
    """All supports over one dictionary."""

    dictionary: Array  # NumPy, in the working dtype
    regularizer: Cardinality

    def __post_init__(self) -> None:
        n_supports = math.comb(len(self.dictionary), self.k)
        if n_supports > MOST_SUPPORTS:
            raise ValueError(
                f"'exact' looks at all {n_supports:.3g} supports of {self.k} among {len(self.dictionary)} atoms, "
                f'at most {MOST_SUPPORTS:,}; use "swap"'
            )

    @cached_property
    def k(self) -> int:
        """The non-zeros allowed, of the atoms that are not zero."""
        return min(self.regularizer.k, int((self.dictionary != 0).any(1).sum()))

    def run(self, Y: Array, init: Array | None, tol: float, max_iter: int) -> Ended:  # noqa: ARG002
        """Return the best codes of the targets Y."""
        from proxsae.solvers.pursuits.compiled_enumeration import enumerate_rows

        used = np.flatnonzero((self.dictionary != 0).any(1))
        atoms = np.ascontiguousarray(self.dictionary[used], np.float64)
        r = self.regularizer.partner
        prox, value, parameters = scalar_formulas(r.at(used), len(used))
        T = Y.astype(np.float64)
        energies, G = squared_norms(T), atoms @ atoms.T
        found = room_for(len(Y), self.k, np.float64)

        def work(rows: slice) -> None:
            mine = found.at(rows)
            C = T[rows] @ atoms.T
            enumerate_rows(prox, value, parameters, C, energies[rows], G, self.k, *mine[:3])

        if self.k:
            by_blocks(work, len(Y))
            found = found._replace(atoms=used[found.atoms])
        found.n_iter[:] = math.comb(len(used), self.k)
        certifier = Certifier(self.dictionary, np.sqrt(squared_norms(self.dictionary)), r, self.k)
        return certifier.ended(Y, found._replace(codes=found.codes.astype(Y.dtype)), tol, "globally optimal")


def _refuses(R: Regularizer) -> str | None:
    if (lack := refuses_partner(R)) is not None:
        return lack
    assert isinstance(R, Cardinality)
    return None if R.partner.is_convex else f"needs a convex partner, and {R.partner} is not convex"


EXACT = Direct(lambda D, R, step: Enumeration(D, R), _refuses, takes_init=False, has_step=False)  # noqa: ARG005
