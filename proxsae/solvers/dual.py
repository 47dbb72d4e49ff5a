"""The dual points of given codes: what proves their duality gaps."""

from __future__ import annotations

from functools import partial

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.conjugate import dual_scaling, is_free
from proxsae.solvers.certificates import certificate_of, least_shift, rounded
from proxsae.solvers.inputs import Inputs


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
            V, slopes = nu @ D.T, D @ direction
            nu = nu - least_shift(V, slopes, is_free(R, V))[:, None] * direction
        parts.append(dual_scaling(R, nu @ D.T)[:, None] * nu)
    return xp.concat(parts)
