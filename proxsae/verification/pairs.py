"""A value and a prox under test, called in one way whatever way they were written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.regularizers.namespaces import Array

PROBED_LENGTHS = (3, 2, 4, 5, 6, 8, 10, 7, 9, 12, 16)


Scalar = tuple[Callable[[Array], Array], Callable[[Array, float], Array]]


@dataclass(frozen=True)
class Pair:
    """R and its claimed prox on codes of length n.

    Attributes
    ----------
    value : callable
        (m, n) codes to (m,) values.
    prox : callable
        (m, n) points and a step to (m, n) codes.
    n : int
        Length of a code.
    is_separable : bool
        The value is a sum over coordinates.
    scalar : pair of callables or None
        Value and prox of one coordinate, (m,) to (m,), if all coordinates are alike.
    is_slow : bool
        The functions are called code by code.
    tolerance : float
        Error in z, relative to 1 + abs(z), to forgive a prox that is computed numerically and states one.
    steps : tuple of float or None
        The steps t for which the prox is claimed, if not all.
    """

    value: Callable[[Array], Array]
    prox: Callable[[Array, float], Array]
    n: int
    is_separable: bool
    scalar: Scalar | None = None
    is_slow: bool = False
    tolerance: float = 0.0
    steps: tuple[float, ...] | None = None

    def objective(self, U: Array, t: float, Z: Array) -> Array:
        """Return 1/2 ||z - u||^2 + t R(z) of each row."""
        return 0.5 * ((Z - U) ** 2).sum(-1) + t * self.value(Z)

    def coordinate(self, j: int) -> Scalar:
        """Return value and prox as functions of coordinate j, the others resting at the prox of 0."""
        if self.scalar is not None:
            return self.scalar
        rest = self.prox(np.zeros((1, self.n)), 1.0)

        def value(z: Array) -> Array:
            Z = np.repeat(rest, len(z), axis=0)
            Z[:, j] = z
            return self.value(Z)

        def prox(u: Array, t: float) -> Array:
            U = np.zeros((len(u), self.n))
            U[:, j] = u
            return self.prox(U, t)[:, j]

        return value, prox


def pair_of_regularizer(R: Regularizer) -> Pair:
    """Return R as a pair of NumPy functions, at the length of its per-coordinate parameters."""
    n = width_of(R)
    value = _quiet(lambda Z: np.asarray(R.value(Z), float))
    prox = _quiet(lambda U, t: np.asarray(R.prox(U, t), float))
    # A table states its error in the middle of its cells, a solver its gap: the error in z may be somewhat larger.
    tolerance = 10.0 * max(getattr(term, "tolerance", 0.0) for term in R.terms)
    if not R.is_separable:
        is_slow = any(isinstance(term, FromCvxpy) for term in R.terms)
        return Pair(value, prox, n or 3, is_separable=False, is_slow=is_slow, tolerance=tolerance)
    scalar = (lambda z: value(z[:, None]), lambda u, t: prox(u[:, None], t)[:, 0])
    return Pair(value, prox, n or 5, is_separable=True, scalar=None if n else scalar, tolerance=tolerance)


def width_of(R: Regularizer) -> int | None:
    """Return the number of coordinates the parameters of R are for, or None if any number will do."""
    if all(_fits(R, n) for n in (1, 2, 3, 7)):
        return None
    for n in range(1, 100_000):
        if _fits(R, n):
            return n
    raise ValueError(f"no length of a code was found that fits {R}")


def _fits(R: Regularizer, n: int) -> bool:
    try:
        R.prox(np.zeros((1, n)))
    except ValueError:
        return False
    return True


def pair_of_callables(
    value: Callable[..., Any],
    prox: Callable[..., Any],
    n: int | None = None,
    steps: tuple[float, ...] | None = None,
) -> Pair:
    """Return a user's functions as a pair.

    Parameters
    ----------
    value : callable
        ``value(z)``. Given an array of shape (n,) it returns either n numbers (a scalar penalty, entry by entry) or
        one (a penalty of the whole code). One that takes only single numbers is a scalar penalty.
    prox : callable
        ``prox(u, t)``: the minimiser of 1/2 ||z - u||^2 + t value(z), of the shape of u.
    n : int, optional
        Length of a code, for functions that fit one length only. Found by trial if not given.
    steps : tuple of float, optional
        The steps t for which the prox is claimed; all of them if not given.

    Raises
    ------
    TypeError
        If one of the two cannot be called.
    ValueError
        If the value fits no length of a code, or a step is not positive and finite.
    """
    for name, function in (("value", value), ("prox", prox)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    if steps is not None and not (steps and all(0 < t < np.inf for t in steps)):
        raise ValueError(f"steps must be positive and finite, got {steps}")
    length, kind = _kind_of(value, prox, n)
    if kind == "number":
        entries, single = np.vectorize(value, otypes=[float]), np.vectorize(prox, otypes=[float])
        scalar = (_quiet(entries), _quiet(lambda u, t: single(u, float(t))))
        return Pair(lambda Z: scalar[0](Z).sum(-1), scalar[1], length, True, scalar, steps=steps)
    rows = _rows_of(value, length)
    one = _entry_by_entry(prox, length) if kind == "entry" else lambda u, t: _as_code(prox(u.copy(), float(t)), u)
    claimed = _quiet(lambda U, t: np.array([one(u, t) for u in U]).reshape(U.shape))
    is_separable = kind == "entry"
    if not is_separable or _shape_of(value, np.linspace(0.1, 0.4, 50)) != (50,):
        return Pair(rows, claimed, length, is_separable, is_slow=True, steps=steps)
    scalar = (_quiet(lambda z: np.asarray(value(z.copy()), float)), _entry_by_entry(prox, 50))
    return Pair(rows, claimed, length, is_separable, scalar, is_slow=True, steps=steps)


def _kind_of(value: Callable[..., Any], prox: Callable[..., Any], n: int | None) -> tuple[int, str]:
    """Return the length of a code, and whether the value is that of each "entry", of a "code", or of a "number"."""
    # A value may take longer codes than its prox; where the prox takes none, the checks will say so.
    lengths = (n,) if n else PROBED_LENGTHS
    fitting = [m for m in lengths if _shape_of(lambda u: prox(u, 1.0), np.linspace(0.1, 0.4, m)) == (m,)]
    for length in (*fitting, *lengths):
        shape = _shape_of(value, np.linspace(0.1, 0.4, length))
        if shape == (length,):
            return length, "entry"
        if shape in ((), (1,)):
            return length, "code"
    if _shape_of(value, 0.1) == ():
        return n or 3, "number"
    if n is None and _shape_of(value, np.array([0.1])) in ((), (1,)):
        return 1, "code"
    raise ValueError(f"value fits no code of length {n or 'up to 16'}: it must return one number, or one an entry")


def _shape_of(value: Callable[..., Any], z: Any) -> tuple[int, ...] | None:
    with np.errstate(all="ignore"):
        try:
            return tuple(np.shape(value(z.copy() if isinstance(z, np.ndarray) else z)))
        except Exception:  # a user's function may raise anything at input it was not written for
            return None


def _rows_of(value: Callable[..., Any], n: int) -> Callable[[Array], Array]:
    """Return the value of each row: in one call where the function takes a matrix that way, row by row otherwise."""

    def one_by_one(Z: Array) -> Array:
        return np.array([np.sum(np.asarray(value(z.copy()), float)) for z in Z]).reshape(len(Z))

    def at_once(Z: Array) -> Array:
        values = np.asarray(value(Z.copy()), float)
        return values.sum(-1) if values.shape == Z.shape else values

    probe = np.random.default_rng(0).normal(size=(n + 3, n)) * np.logspace(-2, 3, n + 3)[:, None]
    probe = np.concatenate([probe, np.abs(probe), 0.0 * probe])
    if _shape_of(at_once, probe) == (len(probe),) and np.array_equal(_quiet(at_once)(probe), _quiet(one_by_one)(probe)):
        return _quiet(at_once)
    return _quiet(one_by_one)


def _as_code(z: Any, u: Array) -> Array:
    z = np.asarray(z, float)
    if z.shape != u.shape:
        raise ValueError(f"prox must return an array of the shape of u, {u.shape}, got {z.shape}")
    return z


def _entry_by_entry(prox: Callable[..., Any], n: int) -> Callable[[Array, float], Array]:
    """Return the prox of a scalar penalty, called number by number if it takes no array of n."""
    if _shape_of(lambda u: prox(u, 1.0), np.linspace(-1.0, 1.0, n)) is not None:
        return _quiet(lambda u, t: _as_code(prox(u.copy(), float(t)), u))
    single = np.vectorize(prox, otypes=[float])
    return _quiet(lambda u, t: single(u, float(t)))


def _quiet(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return the function without floating-point warnings: NaN and infinity are findings here, not accidents."""

    def quietly(*arguments: Any) -> Array:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quietly
