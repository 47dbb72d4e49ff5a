r"""The convex conjugate :math:`R^*(v) = \sup_z \langle v, z\rangle - R(z)`, from the value and never from the prox.

A regularizer of a whole code writes its conjugate beside its value. A convex sum of scalar functions is, coordinate by
coordinate, one normal form, and so one closed form serves all sums. Nothing here uses Moreau's identity, so it can
check the prox, and the gap can check a solver.

Without a closed form are: a tree of nested groups, whose dual norm takes the passes of its prox to compute; entmax;
every sum with a ridge of a joint term that is not a function of Euclidean norms (its conjugate is a squared distance
from the domain of R*, a projection that is the prox again); and what the user gives as a function.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, as_float_array
from proxsae.regularizers.asymmetric import Tilt
from proxsae.regularizers.balls import LInfBall
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.huber import Huber
from proxsae.regularizers.nonseparable import slack
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.translated import TranslatedSeparable

Leaf = tuple[Separable, Array]  # a term r and a shift d: r(z - d)


class NormalForm(NamedTuple):
    r"""The functions :math:`r(z) = f(y) + \frac a2 y^2 + sy + k + i\{l \le y \le h\}` of :math:`y = z - c`.

    f is w L1 or w Huber; each number is an array or a 0-d one.
    """

    curve: L1 | Huber  # f, with its weight w >= 0
    ridge: Array  # a >= 0
    slope: Array  # s
    offset: Array  # k
    center: Array  # c
    lower: Array | None  # l; None is minus infinity
    upper: Array | None  # h; None is infinity


def has_normal_form(R: Separable) -> bool:
    """Whether R is a sum of Zero, L1, Huber, SquaredL2, Tilt, NonNegative, Box, LInfBall and translations of these."""
    kinds = (Zero, L1, Huber, SquaredL2, Tilt, NonNegative, Box, LInfBall)
    leaves = [type(term) for term, _ in _leaves(R, 0.0)]
    return all(kind in kinds for kind in leaves) and sum(kind in (L1, Huber) for kind in leaves) <= 1


def normal_form(R: Separable, like: Array) -> NormalForm:
    """Return the normal form of an R that has one, with parameters of the kind, dtype and device of `like`."""
    xp = ArrayNamespace(like)
    zero = xp.asarray(0.0)
    leaves = list(_leaves(R.on(xp), zero))
    # y counts from the kink of f, or from the end of a half-line.
    curve, center = next(
        ((term, shift) for term, shift in leaves if isinstance(term, L1 | Huber)),
        (L1(weight=0.0).on(xp), next((shift for term, shift in leaves if isinstance(term, NonNegative)), zero)),
    )
    ridge, slope, offset = zero, zero, zero
    lowers: list[Array] = []
    uppers: list[Array] = []
    for term, shift in leaves:
        d = shift - center
        if isinstance(term, SquaredL2):
            ridge, slope = ridge + term.weight, slope - term.weight * d
            offset = offset + 0.5 * term.weight * d * d
        elif isinstance(term, Tilt):
            slope, offset = slope + term.weight * term.slope, offset - term.weight * term.slope * d
        elif isinstance(term, NonNegative):
            lowers.append(d)
        elif isinstance(term, Box):
            lowers, uppers = [*lowers, term.lower + d], [*uppers, term.upper + d]
        elif isinstance(term, LInfBall):
            lowers, uppers = [*lowers, d - term.radius], [*uppers, d + term.radius]
    lower = reduce(xp.maximum, lowers) if lowers else None
    upper = reduce(xp.minimum, uppers) if uppers else None
    return NormalForm(curve, ridge, slope, offset, center, lower, upper)


def _leaves(R: Separable, shift: Any) -> Iterator[Leaf]:
    for term in R.terms:
        if type(term) is TranslatedSeparable:
            yield from _leaves(term.inner, shift + term.center)
        else:
            yield term, shift


def conjugates(R: Separable, V: Array) -> Array:
    r"""Return :math:`r_i^*(v_i)` of every entry, an array like V, unchecked; ``inf`` outside the domain.

    :math:`r^*(v) = cv - k + \sup_y [(v - s) y - f(y) - \frac a2 y^2]`. Where y is unbounded and f = w L1, the supremum
    is :math:`(|v - s| - w)_+^2 / 2a` (v - s in place of its modulus under y >= 0), and for a = 0 the indicator of
    :math:`|v - s| \le w`, which allows an excess of 1e-9 of :math:`w + |s|` (1e-6 in float32): rounding. Otherwise it
    is the largest value over the points where the maximum can lie.
    """
    xp = ArrayNamespace(V)
    form = normal_form(R, V)
    v, w, a, lower, upper = V - form.slope, form.curve.weight, form.ridge, form.lower, form.upper
    excess = (xp.abs(v) if lower is None else v) - w
    curved = a > 0
    divisor = xp.where(curved, a, 1.0)
    if upper is None and isinstance(form.curve, L1) and (lower is None or not bool((lower != 0).any())):
        above = xp.maximum(excess, 0.0)
        value = xp.where(curved, above * above / (2.0 * divisor), 0.0)
    else:
        # A concave function of one variable is largest where a slope vanishes, or at an end of that piece.
        bend = form.curve.alpha if isinstance(form.curve, Huber) else 0.0 * w
        steep = w + a * bend
        inner = xp.where(steep > 0, v * bend / xp.where(steep > 0, steep, 1.0), 0.0)
        right = xp.where(curved, (v - w) / divisor, bend if upper is None else upper)
        left = xp.where(curved, (v + w) / divisor, -bend if lower is None else lower)
        points = [xp.minimum(xp.maximum(inner, -bend), bend), xp.maximum(right, bend), xp.minimum(left, -bend)]
        points = points if lower is None else [xp.maximum(point, lower) for point in points]
        points = points if upper is None else [xp.minimum(point, upper) for point in points]
        value = reduce(xp.maximum, [y * v - form.curve.weighted_value(xp, y) - 0.5 * a * y * y for y in points])
    if upper is None:
        rounding = slack(V) * (w + xp.abs(form.slope))
        value = xp.where((excess > rounding) & (a <= 0), xp.inf, value)
    return form.center * V - form.offset + value


def beyond_slopes_at_zero(f: Separable, V: Array) -> Array:
    """Return how far each v_i is beyond the slopes that a sum f of L1 and NonNegative has at 0, or 0."""
    form = normal_form(f, V)
    reach, w = (abs(V) if form.lower is None else V), form.curve.weight
    return ArrayNamespace(V).where(reach > w * (1.0 + slack(V)), reach - w, 0.0)


def has_conjugate(R: Regularizer) -> bool:
    """Whether :func:`conjugate` knows R."""
    return R.has_conjugate


def conjugate(R: Regularizer, V: Any) -> Any:
    r"""Return :math:`R^*(v) = \sup_z \langle v, z\rangle - R(z)` for each row of V, or for one vector.

    Parameters
    ----------
    R : Regularizer
        With ``R.has_conjugate``: convex, and of closed form.
    V : array of shape (n_samples, n_components) or (n_components,)
        NumPy or Torch.

    Returns
    -------
    array of shape (n_samples,), or float
        ``inf`` outside the domain of the conjugate, whose boundary allows for rounding.

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
    if not R.has_conjugate:
        raise ValueError(f"{R} has no closed conjugate here")
    R.check_width(V.shape[-1])
    values = R.conjugate_on(ArrayNamespace(V), V if V.ndim == 2 else V[None, :])
    return values if V.ndim == 2 else float(values[0])


def dual_scaling(R: Separable, V: Array) -> Array:
    """Return for each row v of V the largest s in [0, 1], less a few roundings, with R*(s v) finite; unchecked.

    There is one where 0 is in the domain of R*: where R is bounded below.
    """
    xp = ArrayNamespace(V)
    w, a, slope, lower, upper = _domain(R, V)
    bound = xp.where(V > 0, w + slope, w - slope)
    outside = (xp.abs(V) > bound) & ((V > 0) | (lower is None)) & (a <= 0) & (upper is None)
    ratios = xp.where(outside, _margin(V) * bound / xp.where(outside & (V != 0), xp.abs(V), 1.0), 1.0)
    return array_api_compat.array_namespace(ratios).min(ratios, axis=-1)


def joint_dual_scaling(R: Regularizer, V: Array) -> Array:
    """Return for each row v of V an s in [0, 1] with R*(s v) finite, the largest for a norm; R* is finite around 0.

    On the segment from 0 to v the convex gauge of the domain is at most its chord.
    """
    xp = ArrayNamespace(V)
    here, at_zero = R.gauge_on(xp, V), R.gauge_on(xp, 0.0 * V)
    outside = here > 1
    return xp.where(outside, _margin(V) * (1.0 - at_zero) / xp.where(outside, here - at_zero, 1.0), 1.0)


def is_finite_around_zero(R: Regularizer, like: Array) -> bool:
    """Whether R* of a joint R is finite around 0, so that R is coercive."""
    xp = ArrayNamespace(like)
    tiny = 1e-140 * (0.0 * like[..., 0] + 1.0)[None, :]
    return all(bool((R.gauge_on(xp, V) < 1).all()) for V in (tiny, -tiny, 0.0 * tiny))


def _margin(V: Array) -> float:
    """Return one less four roundings, so that s * v lies inside in floating point too."""
    return 1.0 - 4.0 * float(np.finfo(str(V.dtype).removeprefix("torch.")).eps)


def is_free(R: Separable, like: Array) -> Array:
    """Return whether r_i stays bounded towards an infinite z_i that its domain allows: a (p,) or 0-d boolean array.

    Where no coordinate is free, R is coercive and 0 is interior to the domain of the conjugate.
    """
    w, a, slope, lower, upper = _domain(R, like)
    return ((w + slope <= 0) | ((lower is None) & (w - slope <= 0))) & (a <= 0) & (upper is None)


def _domain(R: Separable, like: Array) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Return w, a, s, l and h, which decide where r* is finite: |v - s| <= w where neither a nor the bounds help."""
    form = normal_form(R, like)
    return form.curve.weight, form.ridge, form.slope, form.lower, form.upper
