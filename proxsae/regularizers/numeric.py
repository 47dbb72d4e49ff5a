"""A regularizer given by its value alone: its prox is found by a search of the whole line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import lru_cache
from typing import Any

import numpy as np

from proxsae.regularizers.parameters import as_positive
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.tabulation import ProxTable, build_table, sampled


class Numeric(Separable):
    r"""r given by its values alone: :math:`\arg\min_z \frac12 (z - u)^2 + t r(z)` is found numerically.

    r may be non-convex, may jump, and may be infinite. For each step t the lower convex hull of :math:`\frac12 z^2 + t
    r(z)` on a grid (0, `points`, and nodes a thousandth apart, relative to 1 + abs(z)) names the valleys that can hold
    the global minimum for some u; a golden-section search in the valley finds it. The result is tabulated over u, with
    cells halved until linear interpolation agrees with the search at the middle of every cell to `tolerance`, or to
    what values in float64 can tell apart; the error between nodes is of that size. A certain bound, of first order in
    the width of a cell, follows from monotonicity alone: :meth:`error_bound`. Changes of r between two neighbouring
    nodes of the grid are not seen.

    For Torch tensors the gradient of the prox with respect to u is the slope of the table, and that of the value with
    respect to z is a difference of values of r, over 6e-6 abs(z) or at least 6e-9: 0 at the kink of abs(z) and on the
    steps of a staircase. About five digits of it are right where r is smooth over that distance, and fewer where r(z)
    is more than 1e5 times its slope times abs(z), since values are rounded. The prox has no gradient with respect to
    the step or the weight. There is no reader for compiled loops, so that coordinate descent does not take this
    regularizer.

    Parameters
    ----------
    function : callable
        r, of a NumPy array or of a float; lower semicontinuous, never NaN. With r(0) = 0 it adds to ``Cardinality``.
    limit : float, default 1e6
        Inputs up to this modulus are accepted.
    tolerance : float, default 1e-6
        The error of the prox, relative to 1 + abs(z).
    points : sequence of float, optional
        The points other than 0 at which r has an isolated value, a kink or a jump.

    Raises
    ------
    ValueError
        If r is NaN somewhere, or infinite everywhere; by the prox, if an input exceeds `limit`, if a minimum lies
        beyond twice the limit, if r jumps in over 5,000 places or is finite at a single point that `points` does not
        name, if a table needs over 100,000 nodes, or if more than 64 different steps come in one call.

    References
    ----------
    Lucet (2006), Fast Moreau envelope computation I: numerical algorithms, Numer. Algorithms 43.
    """

    function: Callable[[Any], Any]
    _: KW_ONLY
    limit: float = 1e6
    tolerance: float = 1e-6
    points: tuple[float, ...] = ()

    is_algebraic = False
    has_formula = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"Numeric takes a function of z, got {self.function!r}")
        object.__setattr__(self, "limit", as_positive(self.limit, "limit", "Numeric"))
        object.__setattr__(self, "tolerance", as_positive(self.tolerance, "tolerance", "Numeric"))
        object.__setattr__(self, "points", tuple(float(point) for point in self.points))
        super().__post_init__()
        _traits(self.function, self.limit, self.points)

    # The parameters that decide the form of the prox are no numbers that a reader replaces.
    def own_parameters(self) -> list[str]:
        return ["weight"]

    @property
    def is_convex(self) -> bool:
        """Whether no node of the grid lies above the chord of its neighbours."""
        return _traits(self.function, self.limit, self.points)[3]

    @property
    def is_symmetric(self) -> bool:
        """Whether r is even and non-decreasing in abs(z) on the grid."""
        return _traits(self.function, self.limit, self.points)[0]

    @property
    def is_least_at_zero(self) -> bool:
        """Whether r(z) >= r(0) on the grid."""
        return _traits(self.function, self.limit, self.points)[1]

    @property
    def is_nonnegative(self) -> bool:
        """Whether r is infinite below 0 on the grid."""
        return _traits(self.function, self.limit, self.points)[2]

    def value_of(self, xp: Any, z: Any) -> Any:
        return xp.called(self.sampled, z)

    def sampled(self, z: Any) -> Any:
        """Return r at each entry of a NumPy array."""
        return sampled(self.function, z)

    def prox_of(self, xp: Any, u: Any, t: Any) -> Any:
        """Return the table at u, or at abs(u) for an even r: then the prox is odd to the last bit."""
        if not self.is_symmetric:
            return xp.tabulated(self.table, u, t)
        z = xp.tabulated(self.table, xp.where(u < 0, -u, u), t)  # the gradient of xp.abs would be 0 at 0
        return xp.where(u < 0, -z, z)

    def table(self, step: float) -> ProxTable:
        """Return the table of the prox of `step` r, at weight one."""
        return build_table(self.function, self.limit, self.tolerance, self.points, step, self.is_convex)

    def error_bound(self, step: float = 1.0) -> float:
        """Return the largest error in z that the table can have, relative to 1 + abs(z), where the prox is continuous.

        A prox is monotone, so that in a cell it differs from the line by at most the rise of the cell, and by less for
        convex r; the error of the search at the nodes is added. A jump lies in a cell narrower than 1e-11 of 1 +
        abs(u), in which either side may be returned.
        """
        return self.table(step * float(self.weight)).error_bound


@lru_cache(maxsize=256)
def _traits(function: Any, limit: float, points: tuple[float, ...]) -> tuple[bool, bool, bool, bool]:
    """Return whether r is even and grows, is least at 0, is infinite below 0, and is convex, as far as a grid shows."""
    half = np.union1d(np.geomspace(1e-4, 2 * limit, 2000), np.abs(points))
    z = np.concatenate([-half[half > 0][::-1], [0.0], half[half > 0]])
    r = sampled(function, z)
    if not np.isfinite(r).any():
        raise ValueError("Numeric: the function is infinite everywhere")
    middle = len(z) // 2
    right = r[middle:]
    return (
        bool(np.array_equal(r, r[::-1]) and (right[1:] >= right[:-1]).all()),
        bool(np.isfinite(r[middle]) and r.min() >= r[middle]),
        bool(np.isinf(r[:middle]).all()),
        _is_convex(z, r),
    )


def _is_convex(z: Any, r: Any) -> bool:
    inside = np.flatnonzero(np.isfinite(r))
    if len(inside) != inside[-1] - inside[0] + 1:
        return False
    z, r = z[inside], r[inside]
    widths = np.diff(z)
    slopes = np.diff(r) / widths
    rounding = 1e-12 * (1 + np.abs(r[1:-1])) * (1 / widths[1:] + 1 / widths[:-1])
    return bool((np.diff(slopes) >= -rounding).all())
