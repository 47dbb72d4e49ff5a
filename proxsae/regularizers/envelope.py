"""The Moreau envelope, and the prox of the conjugate by Moreau's identity."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxsae.formulas.arrays import Array, as_float_array
from proxsae.regularizers.base import Regularizer


class Envelope(NamedTuple):
    """The Moreau envelope at a point."""

    value: Any  # shape (n_samples,), or a float for one code
    gradient: Array  # like u


def moreau_envelope(R: Regularizer, u: Any, step: float = 1.0) -> Envelope:
    r"""Return the Moreau envelope :math:`\min_z R(z) + \frac{1}{2t}\|z - u\|^2` and its gradient.

    The gradient is :math:`(u - \mathrm{prox}_{tR}(u)) / t`. Where R is convex the envelope is differentiable
    everywhere, with a gradient of Lipschitz constant 1/t. Elsewhere the gradient is right where the prox is
    single-valued, and one of the limits where it jumps.

    Parameters
    ----------
    R : Regularizer
    u : array of shape (n_samples, n_components) or (n_components,)
        NumPy or Torch.
    step : float, default 1
        t > 0.

    References
    ----------
    Moreau (1965), Proximite et dualite dans un espace hilbertien, Bull. Soc. Math. France 93.
    """
    u = as_float_array(u, "u")
    z = R.prox(u, step)
    gradient = (u - z) / step
    squares = (gradient * gradient).sum(-1)
    return Envelope(R.value(z) + 0.5 * step * (squares if u.ndim > 1 else float(squares)), gradient)


def conjugate_prox(R: Regularizer, u: Any, step: float = 1.0) -> Array:
    r"""Return :math:`\mathrm{prox}_{tR^*}(u) = u - t\,\mathrm{prox}_{R/t}(u/t)`, Moreau's identity.

    Parameters
    ----------
    R : Regularizer
        Convex: otherwise R* is the conjugate of the convex hull of R, and the prox of R is not that of the hull.
    u : array of shape (n_samples, n_components) or (n_components,)
        NumPy or Torch.
    step : float, default 1
        t > 0.

    Raises
    ------
    ValueError
        If R is not convex.
    """
    if not R.is_convex:
        raise ValueError(f"Moreau's identity holds for convex R, and {R} is not convex")
    u = as_float_array(u, "u")
    return u - step * R.prox(u / step, 1.0 / step)
