"""Whether F has a minimum: R may fall along codes that D maps to 0, and R alone decides the code of a zero atom."""

from __future__ import annotations

import numpy as np

from proxsae.formulas.arrays import Array, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.solvers.inputs import in_main_memory
from proxsae.solvers.scalar import LONGEST, squared_norms

INFINITY = 1e140  # a code: what R grows by here, over it, is its slope at infinity; its square does not overflow
LEVEL = 1e-12  # a slope that is 0 but for rounding


def falls_without_end(r: Separable, D: Array) -> bool:
    r"""Return whether :math:`\frac12\|y - zD\|^2 + R(z)` has no lower bound, with R(z) the sum of the r_j.

    With the slopes :math:`s_j^\pm = \lim r_j(\pm a) / a`, F has no lower bound exactly where some direction h with hD =
    0 has :math:`\sum_j s_j^{\mathrm{sign}\, h_j} |h_j| < 0`: by duality, where no :math:`\theta` has :math:`-s_j^- \le
    \langle\theta, d_j\rangle \le s_j^+` for all j.
    """
    up, down = slopes_at_infinity(r, len(D))
    if (up >= 0).all() and (down >= 0).all():
        return False
    atoms = to_numpy(D).astype(np.float64)
    if np.linalg.matrix_rank(atoms) == len(atoms):
        return False
    from scipy.optimize import linprog

    rows = np.concatenate([atoms, -atoms])
    ends = np.concatenate([up, down])
    binds = np.isfinite(ends)
    found = linprog(np.zeros(atoms.shape[1]), rows[binds], ends[binds], bounds=(None, None))
    return bool(found.status == 2)  # infeasible


def slopes_at_infinity(r: Separable, n_components: int) -> Array:
    """Return the slopes of every r_j far above 0 and far below 0; slopes that are rounding are 0."""
    far = np.full((1, n_components), INFINITY)
    with np.errstate(over="ignore"):
        slopes = np.concatenate([r.penalties(far), r.penalties(-far)]) / INFINITY
    return np.where(np.abs(slopes) > LEVEL, slopes, 0.0)


def check_bounded(R: Regularizer, D: Array) -> None:
    """Raise ValueError where a separable R falls without end along codes that D maps to 0."""
    if isinstance(R, Separable) and falls_without_end(in_main_memory(R), D):  # type: ignore[arg-type]
        raise ValueError(f"{R} falls without end along codes that this D maps to 0, so that F has no minimum")


def check_zero_atoms(r: Separable, D: Array) -> None:
    """Raise ValueError where r is not least at 0 for the code of an atom of zeros, of which the samples say nothing."""
    zero = np.flatnonzero(squared_norms(D) == 0)
    if len(zero) and (pulled := r.at(zero).prox_unchecked(np.zeros((1, len(zero))), LONGEST)[0] != 0).any():
        first = int(zero[pulled][0])
        raise ValueError(f"atom {first} of D is zero, and {r} is not least where its code is 0: leave the atom out")
