"""What is under test: a value and a prox, of a regularizer or of a user, and how many points are looked at.

A user's functions keep one convention. ``value(z)`` takes an array of shape (n,) and returns n numbers, the penalty
entry by entry, or one number for the whole code; infinity or NaN outside of the domain. ``prox(u, t)`` returns an array
of the shape of u. Both may be functions of Torch tensors.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.verification.report import RefutedError

STEPS = (0.1, 0.5, 1.0, 3.0, 30.0)  # of the oracles of whole codes
LENGTHS = (3, 8, 40)  # of codes, where none is given; those that the functions fit
MOST_COORDINATES = 1000  # that are tried for a regularizer whose groups fit some lengths only
SINGLE = 4e-6  # error to forgive a function that computes in single precision
TAKES = "must take an array of shape (n,)"
WRAP = "; np.vectorize(f, otypes=[float]) makes such a function of one of single numbers"

Effort = Literal["quick", "full"]
Function = Callable[..., Any]
Scalar = tuple[Callable[[Array], Array], Callable[[Array, float], Array]]


@dataclass(frozen=True)
class Sizes:
    """How many points are looked at, on any machine: the verdict does not depend on the time they take."""

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
        (m, n) points and a step to (m, n) codes. Infinite where the function overflows: there it is not judged.
    n : int
        Length of a code.
    is_separable : bool
        The value is a sum over coordinates.
    sizes : Sizes
        How many points are looked at.
    is_free : bool
        Codes of other lengths would do as well.
    scalar : pair of callables or None
        Value and prox of one coordinate, (m,) to (m,), if all coordinates are alike.
    tolerance : float
        Error in z, relative to 1 + abs(z), to forgive a prox that is computed numerically and states one.
    steps : tuple of float or None
        The steps t for which the prox is claimed, if not all.
    reach : float
        Modulus of an entry up to which the value does not overflow.
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
        """Return value and prox as functions of coordinate j, the others resting at the prox of 0."""
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


# --- a regularizer ----------------------------------------------------------------------------------------------------


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
    sizes = SOLVED if any(isinstance(term, FromCvxpy) for term in R.terms) else _sizes(effort)
    pair = Pair(value, prox, length, R.is_separable, sizes, n is None and R.width is None, steps=_checked(steps))
    if R.is_separable and R.width is None:
        scalar = (lambda z: value(z[:, None]), lambda u, t: prox(u[:, None], t)[:, 0])
        pair = replace(pair, scalar=scalar)
    # A table states its error in the middle of its cells, a solver its gap: the error in z may be somewhat larger.
    tolerance = 10.0 * max(term.tolerance for term in R.terms)
    return replace(pair, tolerance=tolerance, reach=min(term.limit for term in R.terms))


def _fits(R: Regularizer, n: int) -> bool:
    try:
        R.check_width(n)
    except ValueError:
        return False
    return True


def _sizes(effort: Effort, *, is_row_by_row: bool = False) -> Sizes:
    if effort not in ("quick", "full"):
        raise ValueError(f'effort must be "quick" or "full", got {effort!r}')
    return QUICK if effort == "quick" else ROW_BY_ROW if is_row_by_row else FULL


def _checked(steps: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if steps is not None and not (len(steps) and all(0 < t < np.inf for t in steps)):
        raise ValueError(f"steps must be positive and finite, got {steps}")
    return None if steps is None else tuple(float(t) for t in steps)


# --- a user's functions -----------------------------------------------------------------------------------------------


def pairs_of_functions(
    value: Function,
    prox: Function,
    n: int | None = None,
    steps: tuple[float, ...] | None = None,
    effort: Effort = "full",
) -> list[Pair]:
    """Return a user's functions as pairs, one for each length of a code to be looked at.

    Raises
    ------
    TypeError
        If one of the two cannot be called, or takes single numbers only, or the prox not two arguments.
    ValueError
        If the value does not return n numbers or one, or a step is not positive and finite.
    """
    for name, function in (("value", value), ("prox", prox)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    _check_signature(prox)
    lengths = (n,) if n else LENGTHS
    pairs = []
    for m in lengths:
        f, g = on_arrays(value, _code(m)), on_arrays(prox, _code(m), 1.0)
        shape = _shape_of(f, _code(m))
        if shape in ((), (1,), (m,)):
            _check_arrays("prox", g, _shape_of(g, _code(m), 1.0) == (m,), 1.0)
            pairs.append(_pair(f, g, m, shape == (m,), effort))
        else:
            _check_arrays("value", f, False)
    if not pairs:
        given = f"n={n}" if n else f"n = {', '.join(map(str, LENGTHS))}; another length is given by n="
        raise ValueError(f"value {TAKES} and return n real numbers, or one, and does not for {given}{WRAP}")
    return [replace(pair, steps=_checked(steps)) for pair in pairs]


def _check_signature(prox: Function) -> None:
    try:
        signature = inspect.signature(prox)
    except (TypeError, ValueError):  # compiled functions need not have one
        return
    try:
        signature.bind(0.0, 1.0)
    except TypeError:
        raise TypeError(f"prox must take a point and a step, prox(u, t), but its arguments are {signature}") from None


def _check_arrays(name: str, function: Function, fits: bool, *step: float) -> None:
    """Refuse a function that takes a number where it does not take an array."""
    if not fits and _shape_of(function, 0.1, *step) == () and _shape_of(function, _code(3), *step) is None:
        raise TypeError(f"{name} {TAKES} and takes single numbers only{WRAP}")


def _code(m: int) -> Array:
    return np.linspace(0.1, 0.4, m)


def _shape_of(function: Function, z: Any, *step: float) -> tuple[int, ...] | None:
    """Return the shape of the real numbers that a function returns, or None."""
    with np.errstate(all="ignore"):
        try:
            result = np.asarray(function(np.copy(z) if np.ndim(z) else z, *step))
            return None if result.dtype == object or np.iscomplexobj(result) else np.shape(result.astype(float))
        except Exception:  # a user's function may raise anything at input it was not written for
            return None


def _pair(value: Function, prox: Function, n: int, is_long: bool, effort: Effort) -> Pair:
    def one(z: Array) -> float:
        return float(np.sum(np.asarray(value(z.copy()), float)))

    def row_by_row(Z: Array) -> Array:
        return np.array([one(z) for z in Z]).reshape(len(Z))

    def by_entries(Z: Array) -> Array:
        return np.asarray(value(Z.ravel().copy()), float).reshape(Z.shape).sum(-1)

    by_entry = is_long and _is_entrywise(value, n)
    is_uniform = by_entry and _shape_of(value, _code(50)) == (50,)
    rows = _undefined_outside(by_entries if is_uniform else row_by_row)
    sizes = _sizes(effort, is_row_by_row=not is_uniform)
    is_sum = by_entry or _is_additive(rows, n)
    scalar = (_undefined_outside(lambda z: np.asarray(value(z.copy()), float)), _claimed_entries(prox))
    tolerance = SINGLE if _is_single(value, prox, n) else 0.0
    claimed = quiet(lambda U, t: np.array([_claimed(prox, u, float(t)) for u in U]).reshape(U.shape))
    return Pair(
        rows,
        claimed,
        n,
        is_sum,
        sizes,
        scalar=scalar if is_uniform else None,
        tolerance=tolerance,
        reach=_reach(value, n),
    )


def _is_entrywise(value: Function, n: int) -> bool:
    """Whether entry j of the value depends on entry j of the code alone."""
    kept = np.arange(n) % 2 == 0
    with np.errstate(all="ignore"):
        for z, other in 3.0 * np.random.default_rng(n).normal(size=(6, 2, n)):
            here, there = (np.asarray(value(code))[kept] for code in (z.copy(), np.where(kept, z, other)))
            if not np.array_equal(here, there, equal_nan=True):
                return False
    return True


def _is_single(value: Function, prox: Function, n: int) -> bool:
    """Whether one of the two computes in single precision."""
    with np.errstate(all="ignore"):
        try:
            return np.float32 in (np.asarray(value(_code(n))).dtype, np.asarray(prox(_code(n), 1.0)).dtype)
        except Exception:  # what cannot be called has no precision
            return False


def _is_additive(rows: Function, n: int, count: int = 100) -> bool:
    """Whether a value of whole codes looks like a sum over coordinates: R(x, y') + R(x', y) = R(x, y) + R(x', y')."""
    rng = np.random.default_rng(n)
    x, y = 10.0 ** rng.uniform(-2, 2, (count, 1)) * rng.normal(size=(2, count, n))
    x, y = np.where(rng.random((2, count, n)) < rng.random((count, 1)), 0.0, (x, y))
    x[::2], y[::2] = np.abs(x[::2]), np.abs(y[::2])
    mask = rng.random((count, n)) < 0.5

    def is_exchangeable(x: Array, y: Array) -> bool:
        split, joint = rows(np.where(mask, x, y)) + rows(np.where(mask, y, x)), rows(x) + rows(y)
        return bool(np.allclose(split, joint, rtol=1e-9, atol=1e-9))  # infinities too

    known = np.isfinite(rows(x) + rows(y)) & x.any(axis=1) & y.any(axis=1)
    if n == 1 or known.sum() <= count // 8 or not is_exchangeable(x, y):
        return False
    # Of two codes at the edge of a domain that couples coordinates, such as a ball, the halves do not fit.
    return is_exchangeable(_at_the_edge(rows, x), _at_the_edge(rows, y))


def _at_the_edge(rows: Function, x: Array) -> Array:
    """Return multiples of codes just inside the domain."""
    low, high = np.full(len(x), 1e-3), np.full(len(x), 1e3)
    for _ in range(24):
        middle = np.sqrt(low * high)
        is_inside = np.isfinite(rows(middle[:, None] * x))
        low, high = np.where(is_inside, middle, low), np.where(is_inside, high, middle)
    return low[:, None] * x


def _reach(value: Function, n: int) -> float:
    """Return the largest modulus, of a ladder, up to which the value does not overflow."""
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    reach = 1.0
    for size in np.logspace(0.25, 8, 32):
        if any(_overflows(value, size * z) for z in (np.ones(n), -np.ones(n), signs)):
            return reach
        reach = float(size)
    return float("inf")


def _overflows(function: Function, *arguments: Any) -> bool:
    with np.errstate(all="ignore", over="raise"):
        try:
            function(*arguments)
        except (FloatingPointError, OverflowError):
            return True
        except Exception:  # another finding, for another place
            return False
    return False


def _undefined_outside(function: Function) -> Function:
    """Return the function with infinity for NaN: outside its domain a formula gives one or the other."""

    def called(Z: Array) -> Array:
        values = function(Z)
        return np.where(np.isnan(values), np.inf, values)

    return quiet(called)


def _claimed_entries(prox: Function) -> Function:
    """Return the prox of a scalar penalty for many numbers at once."""

    def called(U: Array, t: float) -> Array:
        try:
            Z = _of_shape(prox(U.copy(), float(t)), U)
        except Exception:
            if len(U) < 2:
                return _claimed(prox, U, float(t))
            middle = len(U) // 2  # some entry is to blame
            return np.concatenate([called(U[:middle], t), called(U[middle:], t)])
        for i in np.flatnonzero(~np.isfinite(Z)):
            Z[i] = _claimed(prox, U[[i]], float(t))[0]
        return Z

    return quiet(called)


def _claimed(prox: Function, u: Array, t: float) -> Array:
    """Return the claimed code: infinite where the prox overflows, NaN where it gives nothing else."""
    try:
        z = _of_shape(prox(u.copy(), t), u)
    except OverflowError:
        return np.full(u.shape, np.inf)
    except Exception as error:
        raise RefutedError({"u": u, "t": t, "raised": repr(error)}, "the prox raises an exception") from error
    if not np.isfinite(z).all():
        return np.full(u.shape, np.inf if _overflows(prox, u.copy(), t) else np.nan)
    return z


def _of_shape(z: Any, u: Array) -> Array:
    claimed = np.array(z, float)  # a copy: the function may return the same array next time
    if claimed.shape != u.shape:
        raise ValueError(f"prox must return an array of the shape of u, {u.shape}, got {z!r}")
    return claimed


# --- functions of Torch tensors ---------------------------------------------------------------------------------------


def on_arrays(function: Function, *probe: Any) -> Function:
    """Return the function as one of NumPy arrays: by way of tensors where it takes the probe in that form alone.

    Parameters
    ----------
    function : callable
        Of an array, or of a tensor, and perhaps of more arguments.
    probe : array, and further arguments
        What it is tried on; the function comes back as it is where it takes neither form.
    """
    for called in _readings(function):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's functions do not like tensors
                result = called(np.copy(probe[0]), *probe[1:])
        except Exception:  # noqa: S112 - a user's function may raise anything at what it was not written for
            continue
        return called if called is not function or not hasattr(result, "detach") else _called(function, None)
    return function


def _readings(function: Function) -> Iterator[Function]:
    """Yield the function as one of arrays and, if Torch is in use, of tensors: a module with its weights in float64."""
    yield function
    if "torch" in sys.modules:
        yield _called(function, "float64")
        if hasattr(function, "double"):
            yield _called(copy.deepcopy(function).double(), "float64")
        yield _called(function, "float32")


def _called(function: Function, dtype: str | None) -> Function:
    """Return the function with its first argument made a tensor, if a dtype is given, and tensors made arrays again."""

    def called(z: Any, *more: Any) -> Any:
        if dtype is not None:
            import torch

            z = torch.as_tensor(z, dtype=getattr(torch, dtype))
        result = function(z, *more)
        return result.detach().cpu().numpy() if hasattr(result, "detach") else result

    return called
