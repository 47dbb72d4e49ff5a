"""The dual points that prove the duality gaps of given codes."""

from __future__ import annotations

from functools import partial

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.conjugate import dual_scaling, is_free
from proxsae.solvers.certificates import certificate_of, least_shift, rounded
from proxsae.solvers.inputs import Inputs

MOST_SHIFTS = 12  # into the domain, each with twice the allowance for rounding of the one before


def dual_points(inputs: Inputs, R: Regularizer | tuple[Regularizer, ...]) -> Array:
    r"""Return the :math:`\theta` of :func:`proxsae.solvers.certificates.duality_gap` for the codes ``inputs.init``.

    Raises
    ------
    ValueError
        If R has no duality gap over this dictionary.
    """
    xp = array_api_compat.array_namespace(inputs.dictionary)
    kind, certify = (None, None) if isinstance(R, tuple) else certificate_of(R, inputs.dictionary)
    if isinstance(R, tuple) or kind != "duality gap":
        raise ValueError(f"a dual point needs an R with a duality gap over this dictionary, and {R} has none")
    R = rounded(R, inputs.dictionary) if isinstance(R, Separable) else R
    D = xp.astype(inputs.dictionary, xp.float64, copy=False)
    direction = certify.keywords["direction"] if isinstance(certify, partial) else None
    parts = []
    for part in inputs.blocks():
        Y, Z = (xp.astype(rows, xp.float64, copy=False) for rows in (inputs.targets(part), inputs.codes(part)))
        nu = Y - Z @ D
        if direction is not None:
            nu = _led_inside(nu, D, direction, R)
        parts.append(dual_scaling(R, nu @ D.T)[:, None] * nu)
    return xp.concat(parts)


def _led_inside(nu: Array, D: Array, direction: Array, R: Regularizer) -> Array:
    """Return nu - tau c such that no unpenalised atom correlates positively with it, also in floating point.

    Rounding of the products may make the least sufficient tau too small: tau then grows by as much, then by twice that.
    """
    xp = array_api_compat.array_namespace(nu)
    slopes, rounding = D @ direction, float(xp.finfo(nu.dtype).eps) * xp.linalg.vector_norm(nu, axis=-1)
    for n_shifts in range(MOST_SHIFTS):
        V = nu @ D.T
        tau = least_shift(V, slopes, is_free(R, V))
        tau = xp.where(tau > 0, tau + (2.0**n_shifts - 1.0) * rounding, tau)
        nu = nu - tau[:, None] * direction
    return nu
