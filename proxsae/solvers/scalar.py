"""The parts of R and D for methods that move one coordinate at a time: the scalar prox, and where zeros rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy
from proxsae.regularizers import Regularizer, Separable

FAR = 1e4  # a Newton step that changes a coordinate by more, relative to its size, is cut
FLAT = 1e-9  # a slope of the prox below this is none: the coordinate rests at a kink or a bound
LONGEST = 1e12  # steps after which the prox of 0 is where R is least
INSIDE = 1.0 - 16 * float(np.finfo(np.float64).eps)


def scalar_prox(R: Regularizer, rounded: Any, dtype: Any) -> tuple[Any, Any]:
    """Return the prox of R compiled for a dtype, and its parameters as another rounds them.

    The parameters are a row for all coordinates, or one for each.
    """
    import numba

    from proxsae.formulas.numba import compiled

    assert isinstance(R, Separable)
    prox = compiled(R, "prox", dtype.name)
    number = getattr(numba, dtype.name)
    prox.compile((number, number, number[::1]))
    values = np.broadcast_arrays(*(np.atleast_1d(to_numpy(value)) for _, value in R.parameters()), [0.0])
    return prox, np.stack(values, axis=1).astype(rounded).astype(dtype)


def squared_norms(D: Array) -> Array:
    """Return ||d_j||^2 of every atom, in float64."""
    return (D.astype(np.float64) ** 2).sum(1)


def steps_of(norms2: Array) -> Array:
    """Return 1 / ||d_j||^2, and for a zero atom a step so long that its code goes to the minimiser of R."""
    xp = ArrayNamespace(norms2)
    steps: Array = 1.0 / xp.where(norms2 > 0, norms2, (float(norms2.mean()) or 1.0) / LONGEST)
    return steps


def resting_slopes(R: Regularizer, prox: Any, parameters: Array, norms2: Array) -> tuple[Array, Array]:
    r"""Return the correlations (y - zD)d_j between which a zero of the code rests, the others held.

    The ends are those of the dead zone of the prox, divided by its step. Where r_j is convex they are the ends of its
    subdifferential at 0, the same at any step: one power of two near the steps of the atoms is used for all. Elsewhere
    the step is :math:`1 / \|d_j\|^2`, and the ends lie some roundings inside the dead zone: beyond them the prox has to
    be evaluated.
    """
    from proxsae.solvers.compiled_scalar import dead_zones

    if R.is_convex:
        share, steps = 1.0, np.array([2.0 ** -round(math.log2(float(norms2.mean()) or 1.0))])
    else:
        share, steps = INSIDE, steps_of(norms2)
    ends = np.empty((max(len(parameters), len(steps)), 2))
    dead_zones(prox, parameters, steps, ends)
    below, above = np.broadcast_to(share * ends.T / steps, (2, len(norms2))).copy()
    return below, above


def lacks_formula(R: Regularizer) -> str | None:
    """Return in one sentence what such a method lacks, or None."""
    if not isinstance(R, Separable):
        return f"needs a separable regularizer, and {R} is not"
    if not R.has_formula:
        return f"needs a formula that can be compiled, and {R} has none"
    return None
