"""The subject of a test: a value and a prox on codes of one length, and the numbers of points to check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.from_cvxpy import FromCvxpy

STEPS = (0.1, 0.5, 1.0, 3.0, 30.0)  # of the oracles of whole codes
ROWS = 2  # of the matrices that are searched at batch scope
MOST_COORDINATES = 1000  # that are tried for a regularizer whose groups fit some lengths only

Effort = Literal["quick", "full"]
Scalar = tuple[Callable[[Array], Array], Callable[[Array, float], Array]]


@dataclass(frozen=True)
class Sizes:
    """The numbers of points to check, the same on any machine: the verdict does not depend on the time they take."""

    scan: int  # points u of the line, at each step
    around: int  # of these, points whose claimed z is compared with a ladder of steps away from it
    asked: int  # points u of the line for which the best cells are refined, at each step
    codes: int  # codes u at each step
    pool: int  # candidate codes
    near: int  # codes u for which the surroundings of the claimed z are searched, at each step
    far: int  # codes u for which a pattern search is started, at each step
    pairs: int  # codes u that are compared with one another, at each step
    is_thorough: bool = True  # more steps, and points u where the claimed prox jumps along rays


FULL = Sizes(scan=10_000, around=10_000, asked=1000, codes=60, pool=10_000, near=60, far=30, pairs=60)
ROW_BY_ROW = Sizes(scan=1200, around=40, asked=4, codes=60, pool=4000, near=6, far=2, pairs=60)
QUICK = Sizes(scan=500, around=50, asked=6, codes=20, pool=2000, near=4, far=1, pairs=20, is_thorough=False)
SOLVED = Sizes(scan=50, around=5, asked=1, codes=6, pool=30, near=1, far=0, pairs=20, is_thorough=False)


@dataclass(frozen=True)
class Pair:
    """R and its claimed prox on codes of length n.

    Attributes
    ----------
    value : callable
        (m, n) codes to (m,) values.
    prox : callable
        (m, n) points and a step to (m, n) codes. Infinite where the function overflows; such points are not judged.
    n : int
        Length of a code.
    is_separable : bool
        The value is a sum over coordinates.
    sizes : Sizes
        The numbers of points to check.
    is_free : bool
        Whether codes of other lengths would do as well.
    scalar : pair of callables or None
        Value and prox of one coordinate, (m,) to (m,), if all coordinates are alike.
    tolerance : float
        Error in z, relative to 1 + abs(z), that is allowed to a prox that is computed numerically and states it.
    steps : tuple of float or None
        The steps t for which the prox is claimed, if not all.
    reach : float
        Modulus of an entry up to which the value does not overflow.
    rows : int
        Where more than 1: a code is a matrix of so many rows, one after the other.
    """

    value: Callable[[Array], Array]
    prox: Callable[[Array, float], Array]
    n: int
    is_separable: bool
    sizes: Sizes = FULL
    is_free: bool = False
    scalar: Scalar | None = None
    tolerance: float = 0.0
    steps: tuple[float, ...] | None = None
    reach: float = np.inf
    rows: int = 1

    @property
    def size(self) -> str:
        """The length of a code, in words."""
        return f"length {self.n}" if self.rows == 1 else f"{self.rows} x {self.n // self.rows} entries, row after row"

    @property
    def tried_steps(self) -> tuple[float, ...]:
        """The steps of the oracles of whole codes."""
        return self.steps or STEPS

    @property
    def covers(self) -> str:
        """Which codes and steps these oracles look at, in words."""
        return f"codes of {self.size}, t from {min(self.tried_steps):g} to {max(self.tried_steps):g}"

    def objective(self, U: Array, t: float, Z: Array) -> Array:
        """Return 1/2 ||z - u||^2 + t R(z) of each row."""
        return 0.5 * ((Z - U) ** 2).sum(-1) + t * self.value(Z)

    def points(self, count: int, seed: int | None = None) -> Array:
        """Return points u up to the reach, see :func:`points`."""
        U = points(self.n, count, self.n if seed is None else seed)
        return U[(np.abs(U) <= self.reach).all(axis=-1)]

    def answers(self, U: Array, t: float) -> tuple[Array, Array]:
        """Return points u and their claimed codes, without those where one of the two functions overflows."""
        U = U[(np.abs(U) <= self.reach).all(axis=-1)]
        P = self.prox(U, t)
        judged = ~np.isinf(P).any(axis=-1) & ~(np.abs(P) > self.reach).any(axis=-1)
        return U[judged], P[judged]

    def coordinate(self, j: int) -> Scalar:
        """Return value and prox as functions of coordinate j, with the others held at the prox of 0."""
        if self.scalar is not None:
            return self.scalar
        rest = self.prox(np.zeros((1, self.n)), (self.steps or (1.0,))[0])

        def value(z: Array) -> Array:
            Z = np.repeat(rest, len(z), axis=0)
            Z[:, j] = z
            return self.value(Z)

        def prox(u: Array, t: float) -> Array:
            U = np.zeros((len(u), self.n))
            U[:, j] = u
            return self.prox(U, t)[:, j]

        return value, prox


def points(n: int, count: int, seed: int) -> Array:
    """Return points u: zero, ties, single spikes, both signs, several scales; a few of them are of every kind."""
    rng = np.random.default_rng(seed)
    special = [
        np.zeros(n),
        np.linspace(-0.4, 0.3, n),
        np.arange(n, 0, -1.0),
        np.where(np.arange(n) == n - 1, 2.0, 0.1),
        np.where(np.arange(n) == 0, -2.0, 0.3),
        np.ones(n),
        -np.ones(n),
        np.where(np.arange(n) % 2, -1.0, 1.0),
        np.resize([2.0, 2.0, 1.0], n),
    ]
    ties = rng.integers(-2, 3, size=(max(0, count - len(special)) // 6, n)).astype(float)
    scales = np.resize([1.0, 100.0, 3.0, 0.3, 10.0], max(0, count - len(special) - len(ties)))
    normal = scales[:, None] * rng.normal(size=(len(scales), n))
    normal[::7] = -np.abs(normal[::7])
    places = [np.linspace(0, 1, len(part)) for part in (special, ties, normal)]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate([np.array(special), ties, normal])[order][:count]


def quiet(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return the function without floating-point warnings: NaN and infinity are findings here, not accidents."""

    def quietly(*arguments: Any) -> Array:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quietly


def pair_of_regularizer(
    R: Regularizer, n: int | None = None, steps: tuple[float, ...] | None = None, effort: Effort = "full"
) -> Pair:
    """Return R as a pair of NumPy functions, on codes of length n, or of the length that its parameters have.

    Raises
    ------
    ValueError
        If R is for codes of another length.
    """
    if n is not None:
        R.check_width(n)
    default = 5 if R.is_separable else 3
    length = n or R.width or next(m for m in (default, *range(1, MOST_COORDINATES)) if _fits(R, m))
    value = quiet(lambda Z: np.asarray(R.value(Z), float))
    prox = quiet(lambda U, t: np.asarray(R.prox(U, t), float))
    sizes = SOLVED if any(isinstance(term, FromCvxpy) for term in R.terms) else sizes_of(effort)
    pair = Pair(value, prox, length, R.is_separable, sizes, n is None and R.width is None, steps=checked_steps(steps))
    if R.is_separable and R.width is None:
        scalar = (lambda z: value(z[:, None]), lambda u, t: prox(u[:, None], t)[:, 0])
        pair = replace(pair, scalar=scalar)
    # A table states its error in the middle of its cells, a solver its gap: the error in z may be somewhat larger.
    tolerance = 10.0 * max(term.tolerance for term in R.terms)
    return replace(pair, tolerance=tolerance, reach=min(term.limit for term in R.terms))


def pair_of_matrices(R: Regularizer, pair: Pair) -> Pair:
    """Return an R at batch scope as a pair of functions of whole matrices, each read as one long code."""

    def matrices(codes: Array) -> Array:
        return codes.reshape(len(codes), ROWS, pair.n)

    def value(codes: Array) -> Array:
        return np.array([np.sum(R.value(Z)) for Z in matrices(codes)], float)

    def prox(codes: Array, t: float) -> Array:
        return np.array([R.prox(U, t) for U in matrices(codes)], float).reshape(codes.shape)

    sizes = ROW_BY_ROW if pair.sizes is FULL else pair.sizes
    return replace(
        pair,
        value=quiet(value),
        prox=quiet(prox),
        n=ROWS * pair.n,
        is_separable=False,
        is_free=False,
        scalar=None,
        sizes=sizes,
        rows=ROWS,
    )


def _fits(R: Regularizer, n: int) -> bool:
    try:
        R.check_width(n)
    except ValueError:
        return False
    return True


def sizes_of(effort: Effort, *, is_row_by_row: bool = False) -> Sizes:
    """Return the numbers of points for an effort; fewer where functions are called one code at a time."""
    if effort not in ("quick", "full"):
        raise ValueError(f'effort must be "quick" or "full", got {effort!r}')
    return QUICK if effort == "quick" else ROW_BY_ROW if is_row_by_row else FULL


def checked_steps(steps: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return the steps as floats, or raise ValueError."""
    if steps is None:
        return None
    if np.ndim(steps) != 1 or not len(steps) or not all(0 < t < np.inf for t in steps):
        raise ValueError(f"steps must be a tuple of positive and finite numbers, got {steps}")
    return tuple(float(t) for t in steps)
