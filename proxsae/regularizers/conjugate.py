r"""The convex conjugate :math:`R^*(v) = \sup_z \langle v, z\rangle - R(z)`, from the value and never from the prox.

Every convex regularizer here is, coordinate by coordinate, :math:`w|z| + \frac a2 z^2 + i\{l \le z \le h\}`; one closed
form serves them all. Nothing here uses Moreau's identity, so it can check the prox, and the gap can check a solver.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from proxsae.regularizers.base import Regularizer, row_sums
from proxsae.regularizers.namespaces import Array, ArrayNamespace, as_float_array
from proxsae.regularizers.scalar import L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.separable import Separable


class NormalForm(NamedTuple):
    r"""The scalar functions :math:`w|z| + \frac a2 z^2 + i\{l \le z \le h\}`; each field is an array or a 0-d one."""

    absolute: Array  # w >= 0
    ridge: Array  # a >= 0
    lower: Array | None  # l; None is minus infinity
    upper: Array | None  # h; None is infinity, and then l is None or 0


def has_conjugate(R: Regularizer) -> bool:
    """Whether :func:`conjugate` knows R: a sum of Zero, L1, SquaredL2, NonNegative and Box."""
    kinds = (Zero, L1, SquaredL2, NonNegative, Box)
    return isinstance(R, Separable) and all(type(term) in kinds for term in R.terms)


def normal_form(R: Regularizer, like: Array) -> NormalForm:
    """Return the normal form of R with parameters of the kind, dtype and device of `like`.

    Raises
    ------
    ValueError
        If R is not a sum of Zero, L1, SquaredL2, NonNegative and Box.
    """
    if not has_conjugate(R):
        raise ValueError(f"{R} has no closed conjugate here; sums of Zero, L1, SquaredL2, NonNegative and Box have")
    assert isinstance(R, Separable)
    xp = ArrayNamespace(like)
    absolute, ridge = xp.asarray(0.0), xp.asarray(0.0)
    lower = upper = None
    for term in R.on(xp).terms:
        if isinstance(term, L1):
            absolute = absolute + term.weight
        elif isinstance(term, SquaredL2):
            ridge = ridge + term.weight
        elif isinstance(term, Box):
            lower, upper = term.lower, term.upper
        elif isinstance(term, NonNegative):
            lower = xp.asarray(0.0)
    return NormalForm(absolute, ridge, lower, upper)


def conjugates(R: Regularizer, V: Array) -> Array:
    r"""Return :math:`r_i^*(v_i)` of every entry, an array like V, unchecked; ``inf`` outside the domain.

    Where z is unbounded, :math:`r^*(v) = (|v| - w)_+^2 / 2a` (v in place of abs(v) under z >= 0), and for a = 0 the
    indicator of abs(v) <= w. Between bounds, the largest value over the points where the maximum can lie.
    """
    xp = ArrayNamespace(V)
    w, a, lower, upper = normal_form(R, V)
    curved = a > 0
    divisor = xp.where(curved, a, 1.0)
    if upper is None:
        excess = xp.maximum((xp.abs(V) if lower is None else V) - w, 0.0)
        return xp.where(curved, excess * excess / (2.0 * divisor), xp.where(excess > 0, xp.inf, 0.0))
    # A concave function of one variable on an interval is largest at an end, at its kink, or where a slope vanishes.
    kink = xp.minimum(xp.maximum(0.0, lower), upper)
    right, left = (
        xp.where(curved, xp.minimum(xp.maximum(slope, a * lower), a * upper) / divisor, lower)
        for slope in (V - w, V + w)
    )
    values = [z * V - w * xp.abs(z) - 0.5 * a * z * z for z in (lower, upper, kink, right, left)]
    return reduce(xp.maximum, values)


def conjugate(R: Regularizer, V: Any) -> Any:
    r"""Return :math:`R^*(v) = \sup_z \langle v, z\rangle - R(z)` for each row of V, or for one vector.

    Parameters
    ----------
    R : Regularizer
        Zero, L1, SquaredL2, NonNegative, Box, or a sum of these, with any weights.
    V : array of shape (n_samples, n_components) or (n_components,)
        NumPy or Torch.

    Returns
    -------
    array of shape (n_samples,), or float
        ``inf`` outside the domain of the conjugate.

    Raises
    ------
    TypeError, ValueError
        If R has no closed form here, or V is not floating-point, not finite, or does not fit R.

    References
    ----------
    Rockafellar (1970), Convex Analysis, section 12.
    """
    V = as_float_array(V, "V")
    if V.ndim not in (1, 2):
        raise ValueError(f"V must be (n_samples, n_components) or (n_components,), got shape {tuple(V.shape)}")
    R._check_width(V.shape[-1])
    values = row_sums(conjugates(R, V if V.ndim == 2 else V[None, :]))
    return values if V.ndim == 2 else float(values[0])


def dual_scaling(R: Regularizer, V: Array) -> Array:
    """Return for each row v of V the largest s in [0, 1], less a few roundings, with R*(s v) finite; unchecked."""
    xp = ArrayNamespace(V)
    w, a, lower, upper = normal_form(R, V)
    reach = xp.abs(V) if lower is None else V
    outside = (reach > w) & (a <= 0) & (upper is None)
    # Four roundings of slack, so that s * v lies inside in floating point too.
    slack = 1.0 - 4.0 * float(np.finfo(str(V.dtype).removeprefix("torch.")).eps)
    ratios = xp.where(outside, slack * w / xp.where(outside, reach, 1.0), 1.0)
    return array_api_compat.array_namespace(ratios).min(ratios, axis=-1)


def is_free(R: Regularizer, like: Array) -> Array:
    """Return whether r_i stays bounded towards an infinite z_i that its domain allows: a (p,) or 0-d boolean array.

    Where no coordinate is free, R is coercive and 0 is interior to the domain of the conjugate.
    """
    w, a, _, upper = normal_form(R, like)
    return ((w + a) <= 0) & (upper is None)
