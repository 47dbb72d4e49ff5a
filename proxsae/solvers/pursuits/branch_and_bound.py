r"""The best codes with at most k non-zeros by branch and bound (SCIP).

:math:`\frac12\|y - zD\|^2 + \sum_i r_i(z_i)` where :math:`\|z\|_0 \le k` is a convex quadratic with a cardinality
constraint, for an r of L1, SquaredL2, NonNegative and Box. A binary variable for each code says whether it is zero,
which requires bounded codes. Codes with a lower F than the present ones have a penalty of at most that F and, where the
atoms are independent or have a ridge, lie in an ellipsoid around the least-squares solution. (SCIP's own cardinality
constraints need no bounds, but SCIP 10 was seen to end with codes that are not optimal.)

References
----------
Bertsimas, King and Mazumder (2016), Best subset selection via a modern optimization lens, Ann. Statist. 44.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers import L1, Box, Cardinality, NonNegative, Separable, SquaredL2, Zero
from proxsae.solvers.algorithm import Ended
from proxsae.solvers.pursuits.enumeration import Enumeration
from proxsae.solvers.pursuits.pursuit import Pursuit
from proxsae.solvers.pursuits.supports import fill, room_for
from proxsae.solvers.scalar import squared_norms

TERMS = (Zero, L1, SquaredL2, NonNegative, Box)
MARGIN = 0.25  # of the tolerance: the search is for codes that are better by so much
FEASIBLE = 3e-7  # allowed violation of constraints, where y and the atoms have length 1
INDEPENDENT = 1e-8  # the least eigenvalue of a Hessian that bounds the codes


class Quadratic(NamedTuple):
    """The penalty weight abs(z) + ridge z^2 / 2 on lower <= z <= upper, an entry an atom."""

    weight: Array
    ridge: Array
    lower: Array
    upper: Array


@dataclass(frozen=True)
class Search:
    """A branch and bound over one dictionary, from the codes of "swap"."""

    dictionary: Array  # NumPy, in the working dtype
    regularizer: Cardinality
    rows_at_once: ClassVar[int] = 1

    @cached_property
    def lengths(self) -> Array:
        """The norms of the atoms."""
        return np.sqrt(squared_norms(self.dictionary))

    @cached_property
    def used(self) -> Array:
        """Which atoms are not zero."""
        return np.flatnonzero(self.lengths)

    @cached_property
    def atoms(self) -> Array:
        """The non-zero atoms, scaled to unit length."""
        return self.dictionary[self.used] / self.lengths[self.used, None]

    def penalty(self, size: float) -> Quadratic:
        """Return the partner for unit atoms and targets divided by `size`, which divides F by its square."""
        r, units = quadratic(self.regularizer.partner.at(self.used), len(self.used)), size / self.lengths[self.used]
        return Quadratic(r.weight * units / size**2, r.ridge * (units / size) ** 2, r.lower / units, r.upper / units)

    @cached_property
    def swap(self) -> Pursuit:
        """The pursuit that gives the codes to start from."""
        return Pursuit("swap", self.dictionary, self.regularizer, 0.0)

    @property
    def is_bounded(self) -> bool:
        """Whether every code is bounded, so that a binary variable can say whether it is zero."""
        return bool(np.isfinite(reach(self.atoms[0], self.atoms, self.penalty(1.0), 1.0)).all())

    def run(self, Y: Array, init: Array | None, tol: float, max_iter: int) -> Ended:  # noqa: ARG002
        """Return the best codes of the targets Y in at most `max_iter` nodes, certified by the bound of the search."""
        swap = self.swap
        start = swap.run(Y, None, tol, max_iter)
        found, codes, bounds = room_for(len(Y), swap.k, Y.dtype), start.codes.toarray(), start.objective.copy()
        for i in np.flatnonzero(start.objective):
            y = Y[i].astype(np.float64)
            size = float(np.linalg.norm(y))
            least = start.objective[i] / size**2
            model, w = model_of(y / size, self.atoms, self.penalty(size), swap.k, least)
            goal = least - 0.5 * MARGIN * tol
            model.setObjlimit(goal)
            model.setParam("limits/nodes", max_iter)
            model.optimize()
            bounds[i] = size**2 * max(min(model.getDualbound(), goal), 0.0)
            found.n_iter[i] = model.getNTotalNodes()
            if model.getNSols():
                best = model.getBestSol()
                support = self.used[np.argsort([-abs(best[z]) for z in w], kind="stable")[: swap.k]]
                refitted = self._refitted(Y[i : i + 1], support, tol)
                if refitted.objective[0] < start.objective[i]:
                    codes[i] = 0.0
                    codes[i, support] = refitted.codes.toarray()[0]
        fill(found, codes)
        objective = swap.certifier.fit(Y, self.dictionary, found)[0]
        found.falls[:] = np.maximum(objective - bounds, 0.0)
        return swap.certifier.ended(Y, found, tol, "globally optimal")

    def _refitted(self, Y: Array, support: Array, tol: float) -> Ended:
        """Return the best codes on a support, since codes of SCIP are right only to its tolerances."""
        R = replace(self.regularizer, partner=self.regularizer.partner.at(support))
        return Enumeration(self.dictionary[support], R).run(Y, None, tol, 0)


def quadratic(r: Separable, n: int) -> Quadratic:
    """Return the partner of the cardinality as a :class:`Quadratic` with one entry for each of n atoms."""
    weight, ridge, lower, upper = np.zeros(n), np.zeros(n), np.full(n, -np.inf), np.full(n, np.inf)
    for term in r.terms:
        if isinstance(term, L1):
            weight += to_numpy(term.weight)
        elif isinstance(term, SquaredL2):
            ridge += to_numpy(term.weight)
        elif isinstance(term, NonNegative | Box):
            ends = (term.lower, term.upper) if isinstance(term, Box) else (0.0, np.inf)
            lower, upper = np.maximum(lower, to_numpy(ends[0])), np.minimum(upper, to_numpy(ends[1]))
    return Quadratic(weight, ridge, lower, upper)


def reach(y: Array, D: Array, r: Quadratic, best: float) -> Array:
    """Return a bound on the modulus of each code where F is at most `best`; infinite where there is no bound."""
    most = np.maximum(abs(r.lower), abs(r.upper))
    most = np.minimum(most, np.divide(best, r.weight, out=np.full(len(D), np.inf), where=r.weight > 0))
    H = D @ D.T + np.diag(r.ridge)
    if np.linalg.eigvalsh(H)[0] > INDEPENDENT:  # F >= least + (w - center) H (w - center) / 2
        inverse = np.linalg.inv(H)
        center = inverse @ (D @ y)
        least = 0.5 * (y @ y - center @ H @ center)
        most = np.minimum(most, abs(center) + np.sqrt(2.0 * max(best - least, 0.0) * inverse.diagonal()))
    return most * (1.0 + FEASIBLE)


def model_of(y: Array, D: Array, r: Quadratic, k: int, best: float) -> tuple[Any, list[Any]]:
    """Return the problem for SCIP, and its codes."""
    from pyscipopt import Model, quicksum

    model = Model()
    model.hideOutput()
    model.setParam("numerics/feastol", FEASIBLE)
    most = reach(y, D, r, best)
    ends = zip(np.maximum(r.lower, -most), np.minimum(r.upper, most), strict=True)
    w = [model.addVar(lb=low, ub=high) for low, high in ends]
    sizes, is_used = [model.addVar() for _ in w], [model.addVar(vtype="B") for _ in w]
    model.addCons(quicksum(is_used) <= k)
    for size, z, end, b in zip(sizes, w, most, is_used, strict=True):
        model.addCons(size >= z)
        model.addCons(size >= -z)
        model.addCons(size <= end * b)
    Q, B = np.linalg.qr(D.T)  # the part of y outside of the span of the atoms is a constant
    target = Q.T @ y
    residual = [model.addVar(lb=None) for _ in target]
    for row, value, e in zip(B, target, residual, strict=True):
        model.addCons(e + quicksum(b * z for b, z in zip(row, w, strict=True)) == value)
    outside = max(y @ y - target @ target, 0.0)
    squares = model.addVar(lb=outside)  # SCIP takes linear objectives only
    curved = [c * z * z for c, z in zip(r.ridge, w, strict=True) if c > 0]
    model.addCons(quicksum(e * e for e in residual) + quicksum(curved) + outside <= squares)
    model.setObjective(0.5 * squares + quicksum(c * size for c, size in zip(r.weight, sizes, strict=True)))
    return model, w
