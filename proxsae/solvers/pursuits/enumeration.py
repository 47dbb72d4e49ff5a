"""All supports of k atoms, each with its best codes: small problems with a convex partner of the cardinality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Cardinality
from proxsae.solvers.algorithm import Ended
from proxsae.solvers.pursuits.certified import Certifier
from proxsae.solvers.pursuits.pursuit import scalar_formulas
from proxsae.solvers.pursuits.supports import room_for
from proxsae.solvers.scalar import squared_norms
from proxsae.solvers.threads import by_blocks, n_threads

SUPPORTS_AT_ONCE = 5_000_000  # of a thread: about a second


@dataclass(frozen=True)
class Enumeration:
    """All supports over one dictionary."""

    dictionary: Array  # NumPy, in the working dtype
    regularizer: Cardinality

    @cached_property
    def k(self) -> int:
        """The number of non-zeros allowed, at most the number of atoms that are not zero."""
        return min(self.regularizer.k, len(self.used))

    @cached_property
    def used(self) -> Array:
        """Which atoms are not zero."""
        return np.flatnonzero((self.dictionary != 0).any(1))

    @cached_property
    def atoms(self) -> Array:
        """The non-zero atoms, in float64."""
        return np.ascontiguousarray(self.dictionary[self.used], np.float64)

    @cached_property
    def gram(self) -> Array:
        """Their Gram matrix."""
        return self.atoms @ self.atoms.T

    @property
    def n_supports(self) -> int:
        """The number of supports."""
        return math.comb(len(self.used), self.k)

    @property
    def rows_at_once(self) -> int:
        """The number of samples that take about a second."""
        return max(1, SUPPORTS_AT_ONCE * n_threads() // self.n_supports)

    def run(self, Y: Array, init: Array | None, tol: float, max_iter: int) -> Ended:  # noqa: ARG002
        """Return the best codes of the targets Y."""
        from proxsae.solvers.pursuits.compiled_enumeration import enumerate_rows
        from proxsae.solvers.pursuits.compiled_gram import all_rows

        used, atoms = self.used, self.atoms
        r = self.regularizer.partner
        prox, value, parameters = scalar_formulas(r.at(used), len(used))
        T = Y.astype(np.float64)
        energies, G = squared_norms(T), all_rows(self.gram)
        found = room_for(len(Y), self.k, np.float64)

        def work(rows: slice) -> None:
            mine = found.at(rows)
            C = T[rows] @ atoms.T
            enumerate_rows(prox, value, parameters, C, energies[rows], G, self.k, *mine[:3])

        if self.k:
            by_blocks(work, len(Y))
            found = found._replace(atoms=used[found.atoms])
        found.n_iter[:] = self.n_supports
        norms = np.sqrt(squared_norms(self.dictionary)).astype(np.float64)
        load = (np.abs(found.codes) * norms[found.atoms]).sum(1)
        found.falls[:] = np.finfo(np.float64).eps * load**2  # the rounding of F by the Gram matrix, which decides
        certifier = Certifier(self.dictionary, norms, r, self.k)
        return certifier.ended(Y, found._replace(codes=found.codes.astype(Y.dtype)), tol, "globally optimal")
