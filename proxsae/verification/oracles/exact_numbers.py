"""The code of a regularizer evaluated with many digits: its exact prox, and the error of floats."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import mpmath
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, Equation, ExactArray, newton
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.translated import Translation

BITS = 2400  # enough for the sum of the largest and the smallest float64
FEWER_BITS = 400  # for what is transcendental
NEAR = 4.0  # roundings by which inputs move near a jump
TRIALS = 6  # number of such moves
MOST = 1e300  # an error of a result that is not finite
NEWTON_STEPS = 12  # beyond those of the formula, for the other digits

mp = mpmath.MPContext()
mp.prec = BITS
MOVE = mp.ldexp(1, -160)


def _refuse(_: Any) -> float:
    raise TypeError("an exact number must not become a float")


# The numbers of a context are a class of its own: those of mpmath, and of other contexts, become floats as ever.
mp.mpf.__float__ = _refuse


def exact(value: Any) -> Array:
    """Return an array of the exact numbers that an array, or a number, holds."""
    value = np.asarray(value)
    if value.dtype == object:
        return value.view(ExactArray)
    numbers = np.empty(value.shape, dtype=object)
    for index in np.ndindex(value.shape):
        numbers[index] = mp.mpf(value[index].item())
    return numbers.view(ExactArray)


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    lifted = np.frompyfunc(function, 1, 1)
    return lambda a: exact(lifted(exact(a)))


class ExactNamespace(ArrayNamespace):
    """The functions a formula may call, on arrays of numbers with many digits."""

    def __init__(self) -> None:
        super().__init__(exact(np.zeros(1)))

    @property
    def wide(self) -> ExactNamespace:
        """The namespace itself."""
        return self

    sqrt = staticmethod(_each(mp.sqrt))
    cbrt = staticmethod(_each(mp.cbrt))
    cos_third = staticmethod(_each(lambda a: mp.cos(mp.acos(a) / 3)))
    log1p = staticmethod(_each(mp.log1p))
    tanh = staticmethod(_each(mp.tanh))

    def asarray(self, value: Any) -> Array:
        """Return an array of exact numbers."""
        return exact(value)

    def magnitudes(self, Z: Array, parts: Any) -> Array:
        """Return ones: exact numbers neither over- nor underflow."""
        return exact(1 + 0 * parts.largest(abs(Z)))

    def rounds_alike(self, a: Array, b: Array) -> Array:
        """Return False everywhere: no rounding lets one number stand for another."""
        return np.zeros(np.broadcast(a, b).shape, dtype=bool)

    def power(self, a: Any, b: Any) -> Array:
        """Return a to the power b, for a >= 0."""
        a, b = np.broadcast_arrays(exact(a), exact(b))
        return exact(np.frompyfunc(lambda x, y: mp.power(x, y) if x else mp.mpf(not y), 2, 1)(a, b))

    def root(self, equation: Equation, start: Array, low: Array, high: Array, steps: int) -> Array:
        """Return the root of an equation to all digits."""
        z = start
        for _ in range(steps + NEWTON_STEPS):
            last, z = z, newton(self, equation, z, low, high, steps=1)
            if (abs(z - last) <= abs(z) * mp.ldexp(1, 40 - mp.prec)).all():
                break
        return z


XP = ExactNamespace()


def with_parameters(R: Any, function: Callable[[Any], Any]) -> Any:
    """Return a copy of R with the function of each parameter that is a number or an array of numbers."""
    if isinstance(R, Separable):
        return R.map_parameters(lambda _, value: function(value))
    twin = copy.copy(R)
    for name in (field.name for field in fields(R)):
        value = getattr(R, name)
        if isinstance(value, Regularizer):
            object.__setattr__(twin, name, with_parameters(value, function))
        elif (
            isinstance(value, tuple) and value and isinstance(value[0], tuple) and isinstance(value[0][0], Regularizer)
        ):
            object.__setattr__(twin, name, tuple((with_parameters(block, function), n) for block, n in value))
        elif isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind in "fO"):
            object.__setattr__(twin, name, function(value))
    return twin


@dataclass(frozen=True)
class ExactResult:
    """The exact result, and its change with the inputs, both of the shape of the result."""

    exact: Array
    moves: Array


def as_float(x: Any) -> float:
    """Return the float nearest to an exact number."""
    return float(mpmath.libmp.to_float(x._mpf_, rnd="n")) if hasattr(x, "_mpf_") else float(x)


def answer(R: Regularizer, U: Array, t: Array) -> ExactResult:
    """Return the exact prox at (u, t)."""
    U, t = exact(U), exact(t)
    numbers: list[Any] = []

    def noted(value: Any) -> Any:
        numbers.append(value)
        return value

    with_parameters(R, noted)

    def at(moved: int) -> Array:
        """Return the result with one input moved: 0 is u, 1 is t, 2 ... are the parameters, -1 is none."""
        count = iter(range(2, 2 + len(numbers)))
        twin = with_parameters(R, lambda v: exact(v) * (1 + MOVE * (next(count) == moved)))
        u = U * (1 + MOVE * (moved == 0))
        return exact(twin.prox_on(XP, u, t * (1 + MOVE * (moved == 1))))

    result = at(-1)
    largest: Callable[[Array], Array] = (
        (lambda a: a) if R.is_separable else (lambda a: 0 * a + a.max(-1, keepdims=True))
    )
    moves = largest(abs(result))
    for i in [*([0] if len(R.terms) > 1 else []), 1, *range(2, 2 + len(numbers))]:
        moves = moves + largest(abs(at(i) - result) / MOVE)
    for center in _centers(R):  # u - c and c + p round beside c, and a move of c would cancel in them
        beside = abs(exact(center))
        moves = moves + (beside if R.is_separable else beside.max())  # a block has a center of its own length
    return ExactResult(result, moves)


def _centers(R: Regularizer) -> Iterator[Any]:
    """Yield the centers of the translations that R is made of."""
    if isinstance(R, Translation):
        yield R.center
    for part in R.made_of():
        yield from _centers(part)


def rounded(R: Regularizer, dtype: str) -> Any:
    """Return R with the parameters that a dtype holds."""
    return with_parameters(R, lambda value: np.asarray(value, dtype).astype(np.float64)[()])


@contextmanager
def fewer_digits() -> Iterator[None]:
    """Compute with fewer digits, enough for numbers of ordinary size, where powers and logarithms are slow."""
    mp.prec = FEWER_BITS
    try:
        yield
    finally:
        mp.prec = BITS


def prox_roundings(R: Regularizer, U: Array, t: Array) -> Array:
    """Return for each row the error of the prox in roundings; U (m, n) and t (m, 1) are of one dtype.

    A rounding is eps times the change of the exact result when its inputs (the result itself, the step, the parameters;
    u where R is a sum) change by their own size, plus eps times the centers of translations. Near a jump either side is
    right: a result is also compared with exact results at u moved by a few units in the last place.
    """
    dtype = str(U.dtype)
    eps, smallest = float(np.finfo(dtype).eps), float(np.finfo(dtype).smallest_subnormal)
    Z = R.prox_unchecked(U, t)
    R = rounded(R, dtype)

    def compared(U: Array, t: Array, Z: Array) -> Array:
        found = answer(R, U, t)
        ratios = abs(exact(Z) - found.exact) / XP.maximum(found.moves * eps, smallest)
        # In this order what is not a number counts as the most.
        return np.array([[min(MOST, as_float(ratio)) for ratio in row] for row in ratios]).max(-1)

    errors = np.full(len(U), MOST)
    whole = np.flatnonzero(np.isfinite(Z).all(-1))
    errors[whole] = compared(U[whole], t[whole], Z[whole])
    rng = np.random.default_rng(0)
    for i in range(TRIALS):
        far = whole[errors[whole] > NEAR]
        if not len(far):
            break
        signs = np.ones(U.shape[1]) * (-1) ** i if i < 2 else rng.choice([-1.0, 0.0, 1.0], U.shape[1])
        moved = exact(U[far]) * (1 + NEAR * eps * exact(signs))
        errors[far] = np.minimum(errors[far], compared(moved, t[far], Z[far]))
    return errors
