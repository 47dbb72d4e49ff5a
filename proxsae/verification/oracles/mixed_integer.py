"""A mixed-integer solver as oracle: counts and cardinalities with binary variables, solved by SCIP."""

from __future__ import annotations

import importlib.util
from itertools import cycle
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L0, L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.cardinality import Cardinality
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check, counterexample

TOLERANCE = 1e-5  # of the sizes of the terms: SCIP's feasibility tolerance enters through the square
KINDS = (Zero, L0, L1, SquaredL2, NonNegative, Box, Cardinality)


def compare_with_mixed_integer(R: Regularizer, pair: Pair) -> Check:
    """Compare the prox of a sum of L0, Cardinality, L1, SquaredL2, NonNegative and Box with SCIP's optimum.

    With b_i binary and abs(z_i) <= M b_i: minimise 1/2 ||z - u||^2 + t R, where ||z||_0 is the sum of b.
    """
    n, steps = pair.n, pair.steps or (0.5, 1.0, 2.0)
    method = "mixed-integer solver (SCIP)"
    if importlib.util.find_spec("pyscipopt") is None:
        return Check(method, "", "skipped", reason='pyscipopt is not installed: pip install "proxsae[prove]"')
    covers = f"{len(steps)} points u of length {n}, t from {min(steps):g} to {max(steps):g}"
    rng = np.random.default_rng(n)
    for t, scale in zip(steps, cycle((1.0, 0.5, 2.0)), strict=False):
        u = scale * rng.normal(size=n)
        claimed = R.prox(u, t)
        mine = 0.5 * ((claimed - u) ** 2).sum() + t * R.value(claimed)
        z, solved = _solve(R, u, t)
        if not abs(mine - solved) <= TOLERANCE * (1.0 + 0.5 * u @ u):
            reason = "the solver found a better z" if mine > solved else "the value is below the solver's optimum"
            return Check(method, covers, "failed", counterexample(u, t, claimed, z, (mine, solved)), reason)
    return Check(method, covers, "passed")


def is_mixed_integer(R: Regularizer) -> bool:
    """Whether R counts, and SCIP can be given all its terms."""
    counts = any(isinstance(term, L0 | Cardinality) for term in R.terms)
    return counts and R.scope != "batch" and all(type(term) in KINDS for term in R.terms)


def _solve(R: Regularizer, u: Array, t: float) -> tuple[Array, float]:
    from pyscipopt import Model, quicksum

    n, reach = len(u), 2.0 * float(np.abs(u).max()) + 1.0
    model = Model()
    model.hideOutput()
    positive = [model.addVar(lb=0.0, ub=reach) for _ in range(n)]
    negative = [model.addVar(lb=0.0, ub=reach) for _ in range(n)]
    used = [model.addVar(vtype="B") for _ in range(n)]
    z = [p - q for p, q in zip(positive, negative, strict=True)]
    cost: list[Any] = [0.5 * (z[i] - u[i]) * (z[i] - u[i]) for i in range(n)]
    for i in range(n):
        model.addCons(positive[i] + negative[i] <= reach * used[i])
    for term in R.terms:
        if isinstance(term, Cardinality):
            model.addCons(quicksum(used) <= term.k)
        elif isinstance(term, Box | NonNegative):
            lower, upper = (term.lower, term.upper) if isinstance(term, Box) else (0.0, reach)
            for i, (low, high) in enumerate(zip(_each(lower, n), _each(upper, n), strict=True)):
                model.addCons(z[i] >= low)
                model.addCons(z[i] <= high)
        elif isinstance(term, L0 | L1 | SquaredL2):
            for i, weight in enumerate(_each(term.weight, n)):
                size = {L0: used[i], L1: positive[i] + negative[i], SquaredL2: 0.5 * z[i] * z[i]}[type(term)]
                cost.append(t * weight * size)
    bound = model.addVar(lb=None)  # SCIP takes linear objectives only
    model.addCons(bound >= quicksum(cost))
    model.setObjective(bound)
    model.optimize()
    return np.array(
        [model.getVal(p) - model.getVal(q) for p, q in zip(positive, negative, strict=True)]
    ), model.getObjVal()


def _each(value: Any, n: int) -> list[float]:
    return [float(x) for x in np.broadcast_to(to_numpy(value), n)]
