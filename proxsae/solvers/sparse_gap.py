"""The duality gap of codes that are mostly zero, from the few coordinates that add to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.conjugate import conjugate_domain, conjugates, scaling_between
from proxsae.solvers.certificates import (
    CertificateReport,
    FitTerms,
    Noise,
    gap_report,
    rounded,
    roundings,
    steepness,
    summed,
)
from proxsae.solvers.problem import Problem
from proxsae.solvers.scalar import squared_norms

CANCELS = 1e-14  # of the terms of a sum: a sum this small is zero
INSIDE = 1.0 - 1e-15


@dataclass(frozen=True)
class SparseGap:
    r"""The gap of :func:`proxsae.solvers.certificates.duality_gap`, on NumPy arrays, without terms that are zero.

    Where :math:`r_i(0) + r_i^*(v) = 0`, a zero with the correlation v adds nothing; nor does it at s v for s in [0, 1],
    since r_i is least at 0. Sums and the scaling of the dual point run over the other coordinates.
    """

    R: Separable  # its parameters as the dtype of the codes rounds them, in float64
    below: Array  # r_i(0) + r_i*(v) = 0 between these ends, (n_components,)
    above: Array
    at_zero: Array  # r_i(0), (n_components,)
    domain: Array  # the ends between which r_i* is finite, (2, n_components)
    norms: Array  # ||d_i||, (n_components,)
    eps: float  # the relative rounding of the correlations
    steepness: float  # the steepness of the dual scaling

    def __call__(self, _: Problem, Z: Array, fit: FitTerms) -> CertificateReport:
        """Return F(z) and the gap."""
        V = fit.correlations
        columns, is_there = _gathered((Z != 0) | (V > self.above) | (V < self.below))
        z = np.where(is_there, np.take_along_axis(Z, columns, 1), 0.0).astype(np.float64)
        v = np.where(is_there, np.take_along_axis(V, columns, 1), 0.0).astype(np.float64)
        s = scaling_between(v, *self.domain[:, columns])
        penalties, excess, products = summed(self.R.at(columns), z, v, s)
        load = (abs(z) * self.norms[columns]).sum(-1)
        noise = Noise(self.eps, self.norms, load, self.eps * (np.sqrt(fit.target) + load))
        penalty = self.at_zero.sum() + (penalties - self.at_zero[columns]).sum(-1)
        rounding = noise.of_gap(products, self.steepness, s, fit.residual)
        return gap_report(fit, (1.0 - s) ** 2 * fit.residual, penalty, excess, rounding, self.at_zero.sum())


def sparse_gap(R: Regularizer, D: Array, below: Array, above: Array) -> SparseGap | None:
    """Return the gap for an R that is least at 0, or None where the conjugate contradicts the given ends.

    r_i(0) + r_i*(v) is convex in v and never negative: where it is zero at both ends, it is zero between them.
    """
    R = rounded(R, D)
    norms = np.sqrt(squared_norms(D))
    # Zero atoms correlate with nothing; the ends themselves may be a rounding beyond.
    below, above = (np.where(norms > 0, INSIDE * end, 0.0) for end in (below, above))
    at_zero = R.penalties(np.zeros(len(D)))
    with np.errstate(over="ignore", invalid="ignore"):
        for end in (below, above):
            dual = conjugates(R, end)
            if not (abs(at_zero + dual) <= CANCELS * (abs(at_zero) + abs(dual))).all():
                return None
    domain = np.stack([np.broadcast_to(end, len(D)) for end in conjugate_domain(R, norms)])
    return SparseGap(R, below, above, at_zero, domain, norms, roundings(D), steepness(R, norms))


def _gathered(chosen: Array) -> tuple[Array, Array]:
    """Return the chosen columns of every row, padded to a rectangle, and which entries are no padding."""
    rows, columns = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    counts = np.bincount(rows, minlength=len(chosen))
    is_there = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]
    gathered = np.zeros(is_there.shape, np.intp)
    gathered[is_there] = columns
    return gathered, is_there
