"""A value and a prox under test, called in one way whatever way they were written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.from_cvxpy import FromCvxpy

SOLVER_SECONDS = 5e-3  # what a code takes where a solver is called
Scalar = tuple[Callable[[Array], Array], Callable[[Array, float], Array]]


@dataclass(frozen=True)
class Pair:
    """R and its claimed prox on codes of length n.

    Attributes
    ----------
    value : callable
        (m, n) codes to (m,) values.
    prox : callable
        (m, n) points and a step to (m, n) codes. Infinite where the function overflows: there it is not judged.
    n : int
        Length of a code.
    is_separable : bool
        The value is a sum over coordinates.
    scalar : pair of callables or None
        Value and prox of one coordinate, (m,) to (m,), if all coordinates are alike.
    tolerance : float
        Error in z, relative to 1 + abs(z), to forgive a prox that is computed numerically and states one.
    steps : tuple of float or None
        The steps t for which the prox is claimed, if not all.
    reach : float
        Modulus of an entry up to which the value does not overflow.
    value_seconds, prox_seconds : float
        What one code takes; zero for arrays at once.
    """

    value: Callable[[Array], Array]
    prox: Callable[[Array, float], Array]
    n: int
    is_separable: bool
    scalar: Scalar | None = None
    tolerance: float = 0.0
    steps: tuple[float, ...] | None = None
    reach: float = np.inf
    value_seconds: float = 0.0
    prox_seconds: float = 0.0

    def objective(self, U: Array, t: float, Z: Array) -> Array:
        """Return 1/2 ||z - u||^2 + t R(z) of each row."""
        return 0.5 * ((Z - U) ** 2).sum(-1) + t * self.value(Z)

    def answers(self, U: Array, t: float) -> tuple[Array, Array]:
        """Return points u and their claimed codes, without those where one of the two functions overflows."""
        U = U[(np.abs(U) <= self.reach).all(axis=-1)]
        P = self.prox(U, t)
        judged = ~np.isinf(P).any(axis=-1) & ~(np.abs(P) > self.reach).any(axis=-1)
        return U[judged], P[judged]

    def affordable(self, most: int, seconds: float) -> int:
        """Return how many codes, at most, may be put to value and prox in that time; a few in any case."""
        return int(np.clip(seconds / max(self.value_seconds + self.prox_seconds, 1e-9), 6, most))

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
    value = quiet(lambda Z: np.asarray(R.value(Z), float))
    prox = quiet(lambda U, t: np.asarray(R.prox(U, t), float))
    # A table states its error in the middle of its cells, a solver its gap: the error in z may be somewhat larger.
    tolerance = 10.0 * max(term.tolerance for term in R.terms)
    # A table ends somewhere.
    reach = min(term.limit for term in R.terms)
    if not R.is_separable:
        seconds = SOLVER_SECONDS if any(isinstance(term, FromCvxpy) for term in R.terms) else 0.0
        return Pair(
            value,
            prox,
            n or 3,
            is_separable=False,
            tolerance=tolerance,
            reach=reach,
            value_seconds=seconds,
            prox_seconds=seconds,
        )
    scalar = (lambda z: value(z[:, None]), lambda u, t: prox(u[:, None], t)[:, 0])
    one = None if n else scalar
    return Pair(value, prox, n or 5, is_separable=True, scalar=one, tolerance=tolerance, reach=reach)


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


def quiet(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return the function without floating-point warnings: NaN and infinity are findings here, not accidents."""

    def quietly(*arguments: Any) -> Array:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quietly
