"""A value and a prox given by the user, and their calling convention.

``value(z)`` takes an array of shape (n,) and returns n numbers, the penalty entry by entry, or one number for the whole
code; infinity or NaN outside of the domain. ``prox(u, t)`` returns an array of the shape of u. Both may be functions of
Torch tensors.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.pair import Effort, Pair, checked_steps, quiet, sizes_of
from proxsae.verification.report import RefutedError

LENGTHS = (3, 8, 40)  # lengths of codes, where none is given; those that fit the functions are tested
SINGLE = 4e-6  # error to forgive a function that computes in single precision
TAKES = "must take an array of shape (n,)"
WRAP = "; np.vectorize(f, otypes=[float]) makes such a function of one of single numbers"

Function = Callable[..., Any]


def pairs_of_functions(
    value: Function,
    prox: Function,
    n: int | None = None,
    steps: tuple[float, ...] | None = None,
    effort: Effort = "full",
) -> list[Pair]:
    """Return the functions of a user as pairs, one for each length of a code to check.

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
    return [replace(pair, steps=checked_steps(steps)) for pair in pairs]


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
    is_uniform = by_entry and _shape_of(value, _code(50)) == (50,) and _is_alike(value, n)
    rows = _undefined_outside(by_entries if is_uniform else row_by_row)
    sizes = sizes_of(effort, is_row_by_row=not is_uniform)
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


def _is_alike(value: Function, n: int) -> bool:
    """Whether an entry has the same value at every place of a code."""
    z = 3.0 * np.random.default_rng(n).normal(size=n)
    with np.errstate(all="ignore"):
        here, there = (np.asarray(value(code), float) for code in (z.copy(), np.roll(z, 1)))
    return np.allclose(np.roll(here, 1), there, rtol=SINGLE, equal_nan=True)


def _is_single(value: Function, prox: Function, n: int) -> bool:
    """Whether one of the two computes in single precision."""
    with np.errstate(all="ignore"):
        try:
            return np.float32 in (np.asarray(value(_code(n))).dtype, np.asarray(prox(_code(n), 1.0)).dtype)
        except Exception:  # a function that fails has no precision
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
        A function of an array, or of a tensor, and perhaps of more arguments.
    probe : array, and further arguments
        The arguments on which the function is tried; a function that takes neither form is returned as it is.
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
