r"""The convex conjugate :math:`R^*(v) = \sup_z \langle v, z\rangle - R(z)`, from the value and not from the prox.

A class writes its conjugate beside its value (``conjugate_of``). A convex sum of scalar functions is, coordinate by
coordinate, one normal form, to which each term adds its :class:`Piece`, and so one closed form serves all sums. Nothing
here uses Moreau's identity, so that the conjugate can check the prox, and the gap can check a solver.

A solver uses: ``R.has_conjugate``; :func:`conjugates` of every entry, or ``R.conjugate_unchecked(V)`` of a row;
:func:`conjugate_domain`, where the conjugates are finite; :func:`dual_scaling`, the factor that brings a point into
that domain; :func:`is_free` and :func:`is_finite_around_zero`, whether R keeps codes bounded.

There is no closed form for: a tree of nested groups, whose dual norm takes the passes of its prox to compute; entmax;
the sum of a ridge and a term of whole codes that is not a function of Euclidean norms (its conjugate is a squared
distance from the domain of R*, a projection that is the prox again); and regularizers that the user gives as a
function.

References
----------
Rockafellar (1970), Convex Analysis, section 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, dtype_name
from proxsae.kernels.dead_zone import dead_zone


@dataclass(frozen=True)
class Piece:
    r"""The piece that a term adds to a normal form: :math:`f(z) + \frac a2 z^2 + s z + i\{l \le z \le h\}`."""

    curve: Any = None  # f, a term that is quadratic up to `bend` and grows with slope w beyond, as w L1 and w Huber
    bend: Any = 0.0
    ridge: Any = 0.0  # a >= 0
    slope: Any = 0.0  # s
    lower: Any = None  # l; None is minus infinity
    upper: Any = None  # h; None is infinity


class NormalForm(NamedTuple):
    r"""The functions :math:`r(z) = f(y) + \frac a2 y^2 + sy + k + i\{l \le y \le h\}` of :math:`y = z - c`.

    Each number is an array or a 0-d one.
    """

    curve: Any  # f, or None
    weight: Array  # w >= 0 of f, its slope far away
    bend: Array  # where f becomes linear
    ridge: Array  # a >= 0
    slope: Array  # s
    offset: Array  # k
    center: Array  # c
    lower: Array | None  # l; None is minus infinity
    upper: Array | None  # h; None is infinity


def has_normal_form(R: Any) -> bool:
    """Whether every term of R adds a piece to the normal form, at most one of them a curve."""
    pieces = [term.piece() if term.defines("piece") else None for term, _ in R.leaves(0.0)]
    return None not in pieces and sum(piece is not None and piece.curve is not None for piece in pieces) <= 1


def normal_form(R: Any, like: Array, ridge: Any = 0.0) -> NormalForm:
    """Return the normal form of R, which has one, plus a ridge; its numbers are of the kind of `like`."""
    xp = ArrayNamespace(like)
    zero = xp.asarray(0.0)
    pieces = [(term.piece(), shift) for term, shift in R.as_arrays(xp).leaves(zero)] + [(Piece(ridge=ridge), zero)]
    # y counts from the kink of f, or from the end of a half-line.
    ends = [shift for piece, shift in pieces if piece.lower is not None and piece.upper is None]
    with_curve = [(piece, shift) for piece, shift in pieces if piece.curve is not None]
    curve, center = with_curve[0] if with_curve else (Piece(), ends[0] if ends else zero)
    weight = zero if curve.curve is None else curve.curve.weight
    ridge, slope, offset = zero, zero, zero
    lowers: list[Array] = []
    uppers: list[Array] = []
    for piece, shift in pieces:
        d = shift - center
        ridge, slope = ridge + piece.ridge, slope + piece.slope - piece.ridge * d
        offset = offset + 0.5 * piece.ridge * d * d - piece.slope * d
        lowers += [] if piece.lower is None else [piece.lower + d]
        uppers += [] if piece.upper is None else [piece.upper + d]
    lower = reduce(xp.maximum, lowers) if lowers else None
    upper = reduce(xp.minimum, uppers) if uppers else None
    return NormalForm(curve.curve, weight, xp.asarray(curve.bend), ridge, slope, offset, center, lower, upper)


def conjugates(R: Any, V: Array, ridge: Any = 0.0) -> Array:
    r"""Return :math:`r_i^*(v_i)` of every entry of a separable R, an array like V, unchecked; ``inf`` outside.

    A ridge, if one is given, is added to an R with a normal form.

    A normal form has :math:`r^*(v) = cv - k + \sup_y [(v - s) y - f(y) - \frac a2 y^2]`. Where y is unbounded and f = w
    L1, the supremum is :math:`(|v - s| - w)_+^2 / 2a` (v - s in place of its modulus under y >= 0), and for a = 0 the
    indicator of :math:`|v - s| \le w`, which allows an excess of 1e-9 of :math:`w + |s|` (1e-6 in float32) for
    rounding. Otherwise the supremum is the largest value over the points where the maximum can lie.
    """
    xp = ArrayNamespace(V)
    if not has_normal_form(R):
        return R.as_arrays(xp).weighted_conjugate(xp, V)
    form = normal_form(R, V, ridge)
    v, w, a, lower, upper, bend = V - form.slope, form.weight, form.ridge, form.lower, form.upper, form.bend
    excess = (xp.abs(v) if lower is None else v) - w
    curved = a > 0
    divisor = xp.where(curved, a, 1.0)
    if upper is None and not bool((bend != 0).any()) and (lower is None or not bool((lower != 0).any())):
        above = xp.maximum(excess, 0.0)
        value = xp.where(curved, above * above / (2.0 * divisor), 0.0)
    else:
        # A concave function of one variable is largest where a slope vanishes, or at an end of that piece.
        steep = w + a * bend
        inner = xp.where(steep > 0, v * bend / xp.where(steep > 0, steep, 1.0), 0.0)
        right = xp.where(curved, (v - w) / divisor, bend if upper is None else upper)
        left = xp.where(curved, (v + w) / divisor, -bend if lower is None else lower)
        points = [xp.minimum(xp.maximum(inner, -bend), bend), xp.maximum(right, bend), xp.minimum(left, -bend)]
        points = points if lower is None else [xp.maximum(point, lower) for point in points]
        points = points if upper is None else [xp.minimum(point, upper) for point in points]
        curves = [0.0 if form.curve is None else form.curve.weighted_value(xp, y) for y in points]
        value = reduce(xp.maximum, [y * v - f - 0.5 * a * y * y for y, f in zip(points, curves, strict=True)])
    if upper is None:
        rounding = slack(V) * (w + xp.abs(form.slope))
        value = xp.where((excess > rounding) & (a <= 0), xp.inf, value)
    return form.center * V - form.offset + value


def conjugate_domain(R: Any, like: Array) -> tuple[Array, Array]:
    """Return the ends of the interval where r_i* of a separable R is finite, of the kind of `like`: (p,) or 0-d.

    The ends follow from the normal form; without one, a search with the conjugate finds them. Where r_i* is nowhere
    finite, r_i is unbounded below, and both ends are 0.
    """
    xp = ArrayNamespace(like)
    if has_normal_form(R):
        form = normal_form(R, like)
        is_bounded = form.ridge > 0
        low = -xp.inf if form.lower is not None else xp.where(is_bounded, -xp.inf, form.slope - form.weight)
        high = xp.inf if form.upper is not None else xp.where(is_bounded, xp.inf, form.slope + form.weight)
        return xp.asarray(low), xp.asarray(high)

    @np.errstate(over="ignore", invalid="ignore")  # asked up to the largest numbers, where a square is infinite too
    def is_infinite(V: Any) -> Any:
        return np.isinf(conjugates(R, V)).astype(np.float64)

    ends = dead_zone(is_infinite, R.width or 1, "float64", is_uniform=R.is_uniform)
    low, high = ends if ends is not None else (0.0, 0.0)
    with np.errstate(over="ignore"):  # an end beyond the dtype is none
        return xp.asarray(low), xp.asarray(high)


def domain_gauge(R: Any, V: Array) -> Array:
    """Return for each row the largest ratio of a v_i to the end, on its side, of the domain of r_i*, which holds 0."""
    return gauge_between(V, *conjugate_domain(R, V))


def gauge_between(V: Array, low: Array, high: Array) -> Array:
    """Return :func:`domain_gauge` for a domain between given ends."""
    xp = ArrayNamespace(V)
    edge = xp.where(V > 0, high, -low)
    ratio = xp.abs(V) / xp.where(edge > 0, edge, 1.0)
    ratio = xp.where(edge > 0, ratio, xp.where(V == 0, 0.0 * V, xp.inf))
    return array_api_compat.array_namespace(ratio).max(ratio, axis=-1) if V.shape[-1] else V.sum(-1)


def beyond_domain(R: Any, V: Array) -> Array:
    """Return how far each v_i is beyond the domain of r_i*, by more than rounding, or 0."""
    xp = ArrayNamespace(V)
    low, high = conjugate_domain(R, V)
    edge = xp.where(V > 0, high, -low)
    return xp.where(xp.abs(V) > edge * (1.0 + slack(V)), V - xp.minimum(xp.maximum(V, low), high), 0.0)


def slack(Z: Array) -> float:
    """Return the relative excess that counts as rounding in the indicator of a ball: 1e-6 in float32, else 1e-9.

    The exact numbers of a proof have no such excess.
    """
    return {"float32": 1e-6, "object": 0.0}.get(dtype_name(Z), 1e-9)


def dual_scaling(R: Any, V: Array) -> Array:
    """Return for each row v of V an s in [0, 1] with R*(s v) finite, the largest where R is separable or a norm.

    Such an s exists where 0 is in the domain of R*, that is, where R is bounded below. On the segment from 0 to v the
    convex gauge of the domain is at most its chord. The input is not checked.
    """
    xp = ArrayNamespace(V)
    here = R.gauge_on(xp, V)
    at_zero = xp.asarray(0.0) if R.is_separable else R.gauge_on(xp, 0.0 * V)
    return _scaling(here, at_zero, V)


def scaling_between(V: Array, low: Array, high: Array) -> Array:
    """Return :func:`dual_scaling` for a separable R whose conjugates are finite between given ends."""
    return _scaling(gauge_between(V, low, high), 0.0, V)


def _scaling(here: Array, at_zero: Any, like: Array) -> Array:
    xp = ArrayNamespace(like)
    outside = here > 1
    return xp.where(outside, _margin(like) * (1.0 - at_zero) / xp.where(outside, here - at_zero, 1.0), 1.0)


def is_finite_around_zero(R: Any, like: Array) -> bool:
    """Whether R* of an R of whole codes is finite around 0, so that R is coercive."""
    xp = ArrayNamespace(like)
    tiny = 2.0**20 * float(np.finfo(dtype_name(like)).tiny) * (0.0 * like[..., 0] + 1.0)[None, :]
    return all(bool((R.gauge_on(xp, V) < 1).all()) for V in (tiny, -tiny, 0.0 * tiny))


def _margin(V: Array) -> float:
    """Return one less four roundings, so that s * v lies inside in floating point too."""
    return 1.0 - 4.0 * float(np.finfo(dtype_name(V)).eps)


def is_free(R: Any, like: Array) -> Array:
    """Return whether r_i stays bounded towards an infinite z_i that its domain allows: a (p,) or 0-d boolean array.

    Where no coordinate is free, R is coercive and 0 is interior to the domain of the conjugate.
    """
    low, high = conjugate_domain(R, like)
    return (high <= 0) | (low >= 0)
