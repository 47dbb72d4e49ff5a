"""Certificates of codes with at most k non-zeros: for each sample the strongest that holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Separable, Zero
from proxsae.solvers.algorithm import Ended
from proxsae.solvers.bounded import falls_without_end, slopes_at_infinity
from proxsae.solvers.certificates import ROUNDINGS, certificate_of, fit_of, rounded
from proxsae.solvers.problem import Problem
from proxsae.solvers.pursuits.supports import Supports
from proxsae.solvers.threads import by_blocks


@dataclass(frozen=True)
class Certifier:
    """The problem of at most k atoms. Certificates are computed from the codes alone, not from numbers of a method."""

    dictionary: Array  # NumPy, in the working dtype
    norms: Array  # of the atoms, in float64
    penalty: Separable  # r, the partner of the cardinality
    k: int

    @cached_property
    def rounded_penalty(self) -> Separable:
        """The penalty with parameters in the working dtype, to which a code at a bound is rounded too."""
        return rounded(self.penalty, self.dictionary)

    def fit(self, Y: Array, D: Array, found: Supports) -> tuple[Array, Array]:
        """Return F, and the correlations of the atoms in use with the residual, for a given dictionary."""
        from proxsae.solvers.pursuits.compiled_pursuit import fit_rows

        squares, correlations = np.empty(len(Y)), np.zeros(found.codes.shape)

        def work(rows: slice) -> None:
            fit_rows(
                Y[rows], D, found.atoms[rows], found.codes[rows], found.counts[rows], squares[rows], correlations[rows]
            )

        by_blocks(work, len(Y))
        penalties, held = np.zeros(found.codes.shape), found.held
        atoms, z = found.atoms[held], found.codes[held].astype(np.float64)
        values = self.penalty.at(atoms).penalties(z)
        penalties[held] = np.where(np.isinf(values), self.rounded_penalty.at(atoms).penalties(z), values)
        return 0.5 * squares + penalties.sum(1), correlations

    def ended(self, Y: Array, found: Supports, tol: float, strongest: str | None) -> Ended:
        """Return the codes with the strongest certificate that holds: what F could still fall by.

        Where the cardinality does not bind and r is convex the certificate is a duality gap. Elsewhere it is the most
        by which a move of one code in use lowers F, or what the method found left to gain by the moves that `strongest`
        names. It is infinite where F falls without end on the support.
        """
        objective, c = self.fit(Y, self.dictionary, found)
        scale = 0.5 * np.einsum("ij,ij->i", Y, Y, dtype=np.float64)
        norms = np.where(found.held, self.norms[found.atoms], 0.0)
        load = np.sqrt(2.0 * scale) + (np.abs(found.codes, dtype=np.float64) * norms).sum(1)
        limit = tol * scale + 2.0 * (ROUNDINGS * np.finfo(found.codes.dtype).eps * load) ** 2
        certificate = np.maximum(self._move(found, c), found.falls)
        weakest = "local minimum" if self.penalty.is_convex else "fixed point"
        kinds = np.full(len(Y), strongest or weakest, dtype="<U16")
        codes = found.csr(len(self.dictionary))
        is_open = (found.counts < self.k) | (self.k == len(self.dictionary))  # the cardinality binds nothing
        if is_open.any():
            self._look_at_all(Y, codes, is_open, limit, certificate, kinds)
        if self.penalty.is_least_at_zero:  # F >= 0
            solved = (objective <= limit) & (kinds != "globally optimal")
            kinds[solved], certificate[solved] = "globally optimal", objective[solved]
        certificate[self._without_minimum(found)] = np.inf
        with np.errstate(invalid="ignore"):
            converged = np.isfinite(objective) & (certificate <= limit)
        return Ended(codes, objective, certificate, converged, found.n_iter, kinds)

    def _without_minimum(self, found: Supports) -> list[int]:
        """Return the samples on whose support F falls without end."""
        if (slopes_at_infinity(self.penalty, len(self.dictionary)) >= 0).all():
            return []
        supports = [atoms[:count] for atoms, count in zip(found.atoms, found.counts, strict=True)]
        return [
            i for i, atoms in enumerate(supports) if falls_without_end(self.penalty.at(atoms), self.dictionary[atoms])
        ]

    def _move(self, found: Supports, c: Array) -> Array:
        """Return the most that F falls by when one code in use moves."""
        held, largest = found.held, np.zeros(found.codes.shape)
        atoms, z = found.atoms[held], found.codes[held].astype(np.float64)
        r, s = self.rounded_penalty.at(atoms), self.norms[atoms] ** 2
        new = r.prox_unchecked(z + c[held] / s, 1.0 / s)
        change = new - z
        fall = change * (c[held] - 0.5 * s * change) + r.penalties(z) - r.penalties(new)
        largest[held] = np.maximum(fall, 0.0)
        return largest.max(1, initial=0.0)

    def _look_at_all(
        self, Y: Array, codes: csr_array, rows: Array, limit: Array, certificate: Array, kinds: Array
    ) -> None:
        """Certify samples that the cardinality does not bind by the gain of one atom more or, for convex r, the gap."""
        D = self.dictionary.astype(np.float64)
        Z, targets = codes[rows].toarray().astype(np.float64), Y[rows].astype(np.float64)
        residual = targets - Z @ D
        c, s = residual @ D.T, self.norms**2
        used = s > 0
        gains = np.zeros(c.shape)
        gains[:, used] = s[used] * self.rounded_penalty.at(np.flatnonzero(used)).gains(
            c[:, used] / s[used], 1.0 / s[used]
        )
        gains[Z != 0] = 0.0
        certificate[rows] = np.maximum(certificate[rows], gains.max(1, initial=0.0))
        if isinstance(self.penalty, Zero):
            gap = 0.5 * np.square(residual).sum(1)  # the part of y outside of the span of the atoms does not count
            if (gap > limit[rows]).any():
                gap = 0.5 * np.square(residual @ _row_space(D).T).sum(1)
        elif self.penalty.is_convex:
            name, certify = certificate_of(self.rounded_penalty, D)
            if name != "duality gap":
                return
            problem = Problem(targets, D, self.rounded_penalty, 1.0)
            gap = certify(problem, Z, fit_of(problem, Z)).certificate
        else:
            return
        is_small = gap <= limit[rows]
        optimal = np.flatnonzero(rows)[is_small]
        kinds[optimal], certificate[optimal] = "globally optimal", gap[is_small]


def _row_space(D: Array) -> Array:
    """Return an orthonormal basis of the span of the atoms, a row each."""
    _, sizes, basis = np.linalg.svd(D, full_matrices=False)
    rank = int((sizes > max(D.shape) * np.finfo(np.float64).eps * sizes.max(initial=0.0)).sum())
    return basis[:rank]
