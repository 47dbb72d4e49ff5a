"""From an activation back to R: whether the activation is a prox, whether R can be convex, and R itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from proxsae.regularizers.numeric import Numeric
from proxsae.regularizers.tabulation import bisected
from proxsae.verification.functions import on_arrays

NODES = 20001
ROUNDING = 1e-9  # a fall, or an expansion, smaller than this relative to the values is rounding


@dataclass(frozen=True, eq=False)
class ScalarInverse:
    """The result of :func:`regularizer_of`.

    Attributes
    ----------
    is_prox : bool
        Whether the activation is non-decreasing on the range, and so a prox.
    is_convex : bool or None
        Whether the activation is also non-expansive, so that R can be convex; None where it is no prox.
    witness : pair of (u, f(u)), or None
        Two points that show the fall, or the expansion.
    z, values : arrays, or None
        R at the nodes of the range of the activation, with R(0) = 0 if 0 is in it and min R = 0 otherwise.
    regularizer : Numeric or None
        R as a regularizer, infinite outside that range.
    expression : sympy expression of z, or None
        R in closed form, where it was found.
    """

    is_prox: bool
    is_convex: bool | None
    witness: tuple[tuple[float, float], tuple[float, float]] | None
    z: Any = None
    values: Any = None
    regularizer: Numeric | None = None
    expression: Any = None

    def __str__(self) -> str:
        if self.witness is None:
            return f"the prox of a convex R on z in [{self.z[0]:.6g}, {self.z[-1]:.6g}]"
        (u, f_u), (v, f_v) = self.witness
        digits = ".6g" if f"{u:.6g}" != f"{v:.6g}" else ".17g"  # on both sides of a jump
        points = f"f({u:{digits}}) = {f_u:.6g}, f({v:{digits}}) = {f_v:.6g}"
        if not self.is_prox:
            return f"not a prox of any R: it falls, {points}"
        return f"the prox of a non-convex R on z in [{self.z[0]:.6g}, {self.z[-1]:.6g}]: it expands, {points}"


def regularizer_of(activation: Any, low: float = -10.0, high: float = 10.0) -> ScalarInverse:
    r"""Return whether a scalar activation is a prox, of a convex R, and the R, on inputs from `low` to `high`.

    A function of one variable is the prox of some R exactly if it is non-decreasing, and of a convex R exactly if it is
    also non-expansive (Moreau; Gribonval and Nikolova). With :math:`\varphi` its integral, :math:`\frac12 z^2 + R(z) =
    \varphi^*(z)`, so that :math:`R(f(u)) = u f(u) - \varphi(u) - \frac12 f(u)^2`. Where f jumps over some z, R there is
    only bounded from below by a chord; the chord is returned, the least R with the prox f (for the hard threshold this
    is CEL0, not L0). Step and weight are one: the prox of tR is another function.

    Parameters
    ----------
    activation : callable or sympy expression
        f, of a NumPy array, of a Torch tensor (``torch.nn.ReLU()``) or of a float. For a sympy expression in one symbol
        the closed form is sought too.
    low, high : float
        The range of u that is sampled, at 20,001 nodes and at every jump between them; a fall and rise between two
        nodes is not seen.

    Raises
    ------
    TypeError
        If the activation is neither a function nor an expression.
    ValueError
        If the range is empty, or f is NaN or infinite in it, or does not return a number for each.

    References
    ----------
    Moreau (1965), Proximite et dualite dans un espace hilbertien, Bull. Soc. Math. France 93;
    Gribonval and Nikolova (2020), A characterization of proximity operators, J. Math. Imaging Vis. 62.
    """
    if not low < high:
        raise ValueError(f"the range must have low < high, got [{low}, {high}]")
    formula = activation if hasattr(activation, "free_symbols") else None
    if formula is None and not callable(activation):
        raise TypeError(f"the activation must be a function or a sympy expression, got {activation!r}")
    u, f = _nodes(_numeric(formula) if formula is not None else activation, low, high)
    fall = _largest_fall(u, f)
    if fall is not None:
        return ScalarInverse(is_prox=False, is_convex=None, witness=fall)
    f = np.maximum.accumulate(f)
    expansion = _largest_expansion(u, f)
    curve = ConvexCurve.of(u, f)
    values = curve.psi - 0.5 * curve.z**2
    largest = float(max(abs(low), abs(high), np.abs(f).max()))
    regularizer = Numeric(curve, limit=largest, points=(float(curve.z[0]), float(curve.z[-1])))
    expression = _closed_form(formula, curve.z, values) if formula is not None else None
    return ScalarInverse(True, expansion is None, expansion, curve.z, values, regularizer, expression)


def _nodes(function: Callable[[Any], Any], low: float, high: float) -> tuple[Any, Any]:
    """Return nodes and values, with two more nodes close to each other around each jump."""
    u = np.linspace(low, high, NODES)
    function = on_arrays(function, u)
    f = _finite(function, u)
    for _ in range(2):  # the second pass finds the jump that a cell with two of them still hides
        steep = np.flatnonzero(np.abs(np.diff(f)) > 20 * np.diff(u) + 1e-6)
        u = np.union1d(u, bisected(partial(_finite, function), u, f, steep))
        f = _finite(function, u)
    return u, f


def _finite(function: Callable[[Any], Any], u: Any) -> Any:
    """Return f at each entry of u, calling it entry by entry where it does not take arrays, or raise ValueError."""
    with np.errstate(all="ignore"):
        try:
            f = np.asarray(function(u.copy()))
        except (TypeError, ValueError):
            f = np.asarray([function(entry) for entry in u.tolist()])
        except ArithmeticError as error:
            raise ValueError(f"the activation raises {error!r}") from error
    if f.dtype == object or np.iscomplexobj(f) or f.shape not in ((), u.shape):
        raise ValueError(f"the activation must return a real number for each input, got {f.dtype} of shape {f.shape}")
    f = np.broadcast_to(f, u.shape).astype(np.float64)
    if not np.isfinite(f).all():
        raise ValueError(f"the activation is NaN or infinite at u = {u[~np.isfinite(f)][0]:.6g}")
    return f


def _largest_fall(u: Any, f: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the two points of the largest fall, or None."""
    highest = np.maximum.accumulate(f)
    j = int(np.argmax(highest - f))
    i = int(np.argmax(f[: j + 1]))
    if f[i] - f[j] <= ROUNDING * (1 + np.abs(f).max()):
        return None
    return (float(u[i]), float(f[i])), (float(u[j]), float(f[j]))


def _largest_expansion(u: Any, f: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return two points that f takes further apart than they were, or None: the largest excess over all pairs."""
    excess = f - u
    lowest = np.minimum.accumulate(excess)
    j = int(np.argmax(excess - lowest))
    i = int(np.argmin(excess[: j + 1]))
    if excess[j] - excess[i] <= 1e-6 * (1 + np.abs(f).max()):
        return None
    return (float(u[i]), float(f[i])), (float(u[j]), float(f[j]))


@dataclass(frozen=True, eq=False)
class ConvexCurve:
    """R(z) from psi = z^2 / 2 + R, convex, by a cubic in each cell that meets psi and its slopes (which are the u)."""

    z: Any
    psi: Any
    first: Any  # the slope of psi to the left of each node
    last: Any  # and to the right

    @staticmethod
    def of(u: Any, f: Any) -> ConvexCurve:
        """Return the curve of an activation with values f at the ascending nodes u."""
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(u))])
        psi = u * f - integral
        z, start, count = np.unique(f, return_index=True, return_counts=True)
        first, last = u[start], u[start + count - 1]
        at_zero = np.interp(0.0, z, psi[start] - 0.5 * z**2) if z[0] <= 0 <= z[-1] else (psi[start] - 0.5 * z**2).min()
        return ConvexCurve(z, psi[start] - at_zero, first, last)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConvexCurve) and all(map(np.array_equal, vars(self).values(), vars(other).values()))

    def __hash__(self) -> int:
        return hash((len(self.z), float(self.z[0]), float(self.psi[-1])))

    def __call__(self, z: Any) -> Any:
        """Return R(z), infinity outside the range of the activation."""
        z = np.asarray(z, dtype=np.float64)
        if len(self.z) == 1:
            return np.where(z == self.z[0], self.psi[0] - 0.5 * z * z, np.inf)
        cell = np.clip(np.searchsorted(self.z, z, side="right") - 1, 0, len(self.z) - 2)
        width = self.z[cell + 1] - self.z[cell]
        s = np.clip((z - self.z[cell]) / width, 0.0, 1.0)
        chord = (1 - s) * self.psi[cell] + s * self.psi[cell + 1]
        rise = self.psi[cell + 1] - self.psi[cell]
        bend = (1 - s) * (width * self.last[cell] - rise) - s * (width * self.first[cell + 1] - rise)
        psi = chord + s * (1 - s) * bend
        return np.where((z < self.z[0]) | (z > self.z[-1]), np.inf, psi - 0.5 * z * z)


def _numeric(formula: Any) -> Callable[[Any], Any]:
    import sympy

    if len(formula.free_symbols) != 1:
        raise ValueError(f"the activation must have one symbol, got {formula}")
    return sympy.lambdify(list(formula.free_symbols), formula, "numpy")  # type: ignore[no-any-return]


def _closed_form(formula: Any, z_nodes: Any, values: Any) -> Any:
    """Return R(z) = integral of f^{-1}(z) - z where sympy inverts and integrates f and the numbers agree, else None."""
    import sympy

    z, u = sympy.Symbol("z", real=True), sympy.Symbol("u", real=True)
    (symbol,) = formula.free_symbols
    formula = formula.subs(symbol, u)
    if formula.has(sympy.Piecewise, sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.Heaviside):
        return None
    try:
        elementary = formula.args == (u,) and hasattr(formula, "inverse")
        inside = float(z_nodes[0] + 0.4321 * (z_nodes[-1] - z_nodes[0]))
        inverses = [formula.inverse()(z)] if elementary else sympy.solve(sympy.Eq(formula, z), u)
        for inverse in inverses:
            value = sympy.integrate(inverse - z, z)
            if value.has(sympy.Integral):
                continue
            # A primitive log(z - 1) of 1 / (z - 1) is real on the other side only, and z^(4/3) for z > 0 only.
            mirrored = value.replace(sympy.log, lambda a: sympy.log(-a) if a.subs(z, inside) < 0 else sympy.log(a))
            for candidate in (value, mirrored, value.subs(z, sympy.Abs(z))):
                if _agrees(candidate, z, z_nodes, values):
                    return sympy.simplify(candidate)
    except (NotImplementedError, TypeError, ValueError):
        pass  # sympy can neither invert nor integrate every function; the numbers stand without the formula
    return None


def _agrees(expression: Any, symbol: Any, z_nodes: Any, values: Any) -> bool:
    """Whether an expression is real on the range, and the numbers up to a constant."""
    some = np.linspace(0.03, 0.97, 11) * (len(z_nodes) - 1)
    at = some.astype(int)
    numbers = [complex(expression.subs(symbol, float(z)).evalf()) for z in z_nodes[at]]
    difference = np.array(numbers) - values[at]
    scale = 1e-4 * (1 + np.ptp(values[at]))
    return bool(np.abs(difference.imag).max() <= scale and np.ptp(difference.real) <= scale)
