"""A user's own value and prox, read as pairs of functions of whole arrays.

They may be functions of numbers, of arrays of any length or of one, of matrices of codes, or of Torch tensors; return
arrays, lists, tensors, integers or truth values; change their input, or return the same array each time.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.verification.pairs import Pair, quiet
from proxsae.verification.report import RefutedError
from proxsae.verification.tensors import on_arrays

LENGTHS = (3, 2, 4, 5, 6, 8, 10, 7, 9, *range(11, 65), 1)
LONGER = ((8, 6, 5, 7, 9, 10, 12), (40, 36, 32, 48, 24, 20, 16))  # one of each too, where the functions fit it
SLOW = 1e-3  # seconds for one code: then no longer ones are looked at
SINGLE = 4e-6  # error to forgive a function that computes in single precision

Function = Callable[..., Any]
Read = tuple[Function, Function, str, int]


def pair_of_callables(value: Function, prox: Function, n: int | None = None) -> Pair:
    """Return a user's functions as a pair, at the shortest length of a code that is of use."""
    return pairs_of_callables(value, prox, n)[0]


def pairs_of_callables(
    value: Function, prox: Function, n: int | None = None, steps: tuple[float, ...] | None = None
) -> list[Pair]:
    """Return a user's functions as pairs, one for each length of a code to be looked at.

    Parameters
    ----------
    value : callable
        ``value(z)``. Given an array of shape (n,) it returns either n numbers (a scalar penalty, entry by entry) or
        one (a penalty of the whole code). One that takes only single numbers is a scalar penalty. Infinite, or NaN, or
        an arithmetic error, outside the domain.
    prox : callable
        ``prox(u, t)``: the minimiser of 1/2 ||z - u||^2 + t value(z), of the shape of u.
    n : int, optional
        Length of a code, for functions that fit one length only. Found by trial if not given.
    steps : tuple of float, optional
        The steps t for which the prox is claimed; all of them if not given.

    Raises
    ------
    TypeError
        If one of the two cannot be called, or the prox not with two arguments.
    ValueError
        If the value fits no length of a code, or a step is not positive and finite.
    """
    for name, function in (("value", value), ("prox", prox)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    if steps is not None and not (steps and all(0 < t < np.inf for t in steps)):
        raise ValueError(f"steps must be positive and finite, got {steps}")
    value, prox, form, length = _read(value, _with_positional_step(prox), n)
    pairs = [_pair(value, prox, form, length)]
    if n is None and form != "number" and pairs[0].value_seconds + pairs[0].prox_seconds < SLOW:
        for lengths in LONGER:
            fitting = (m for m in lengths if m > pairs[-1].n and _form(value, prox, m) == form)
            pairs += [_pair(value, prox, form, m) for m in list(fitting)[:1]]
    return [replace(pair, steps=steps) for pair in pairs]


def _with_positional_step(prox: Function) -> Function:
    try:
        signature = inspect.signature(prox)
    except (TypeError, ValueError):  # compiled functions need not have one
        return prox
    try:
        signature.bind(0.0, 1.0)
    except TypeError:
        named = [name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
        for name in named:
            try:
                signature.bind(0.0, **{name: 1.0})
            except TypeError:
                continue
            return lambda u, t: prox(u, **{name: t})
        raise TypeError(f"prox must take a point and a step, prox(u, t), but its arguments are {signature}") from None
    return prox


def _read(value: Function, prox: Function, n: int | None) -> Read:
    """Return the functions, what the value is of ("entry", "code" or "number"), and the length of a code."""
    short, long = ((n,), ()) if n else (LENGTHS[:9], LENGTHS[9:])
    if found := _fitting(value, prox, short):
        return found
    rows = _row_by_row(value), _row_by_row(prox)
    if (found := _fitting(*rows, short)) and found[2] == "code":
        return found
    takes_number, gives_number = _shape_of(value, 0.1) == (), _shape_of(prox, 0.1, 1.0) == ()
    if takes_number and gives_number and _form(value, None, short[0]) != "entry":
        return value, prox, "number", n or 3
    # A value may take arrays where its prox takes numbers; where the prox takes nothing, the checks will say so.
    if found := _fitting(value, prox, long) or _fitting(value, prox, (*short, *long), both=False):
        return found
    if takes_number:
        return value, prox, "number", n or 3
    raise ValueError(f"value fits no code of length {n or 'up to 64'}: it must return one real number, or one an entry")


def _fitting(value: Function, prox: Function, lengths: tuple[int, ...], *, both: bool = True) -> Read | None:
    """Return the functions as ones of arrays, the form and the first length that fits (the value at least), or None."""
    for m in lengths:
        f, g = on_arrays(value, _code(m)), on_arrays(prox, _code(m), 1.0)
        if form := _form(f, g if both else None, m):
            return f, g, form, m
    return None


def _row_by_row(function: Function) -> Function:
    """Return a function of a matrix of codes as one of a single code."""

    def of_code(z: Array, *step: float) -> Any:
        result = np.asarray(on_arrays(function, z[None], *step)(z[None], *step))
        return result[0] if result.shape[:1] == (1,) else result

    return of_code


def _code(m: int) -> Array:
    return np.linspace(0.1, 0.4, m)


def _form(value: Function, prox: Function | None, m: int) -> str | None:
    """Return whether the value of a code of length m is one number or one an entry; None where they do not fit."""
    if prox is not None and _shape_of(prox, _code(m), 1.0) != (m,):
        return None
    shape = _shape_of(value, _code(m))
    if shape == (m,) and _is_entrywise(value, m):
        return "entry"
    return "code" if shape in ((), (1,), (m,)) else None


def _is_entrywise(value: Function, m: int) -> bool:
    """Whether entry j of the value depends on entry j of the code alone."""
    rng = np.random.default_rng(m)
    with np.errstate(all="ignore"):
        try:
            for z, other in 3.0 * rng.normal(size=(6, 2, m)):
                kept = np.arange(m) % 2 == 0
                mixed = np.where(kept, z, other)
                if not np.array_equal(
                    np.asarray(value(z.copy()))[kept], np.asarray(value(mixed))[kept], equal_nan=True
                ):
                    return False
        except (ArithmeticError, TypeError, ValueError):
            pass  # where it is undefined it says nothing
    return True


def _shape_of(function: Function, z: Any, *step: float) -> tuple[int, ...] | None:
    with np.errstate(all="ignore"):
        try:
            result = np.asarray(function(z.copy() if isinstance(z, np.ndarray) else z, *step))
            return None if result.dtype == object or np.iscomplexobj(result) else np.shape(result.astype(float))
        except Exception:  # a user's function may raise anything at input it was not written for
            return None


def _pair(value: Function, prox: Function, form: str, n: int) -> Pair:
    probe = _probe(n)
    tolerance = SINGLE if _is_single(value, prox, form, n) else 0.0
    if form == "number":
        scalar = (_numbers(value), _claimed_numbers(prox))
        rows: Function = lambda Z: scalar[0](Z.ravel()).reshape(Z.shape).sum(-1)  # noqa: E731
        claimed: Function = lambda U, t: scalar[1](U.ravel(), t).reshape(U.shape)  # noqa: E731
        pair = Pair(rows, claimed, n, True, scalar, tolerance)
    else:
        takes_arrays = form == "code" or _shape_of(prox, _code(n), 1.0) is not None
        rows, claimed = _values(value, n), _claimed_codes(prox) if takes_arrays else _claimed_numbers(prox)
        uniform = form == "entry" and _shape_of(value, _code(50)) == (50,)
        several = _claimed_entries(prox) if takes_arrays else claimed
        one = (_undefined_outside(lambda z: np.asarray(value(z.copy()), float)), several) if uniform else None
        count = int(np.clip(0.05 / max(_seconds(lambda: rows(probe), len(probe)), 1e-9), 24, 100))
        pair = Pair(rows, claimed, n, form == "entry" or _is_additive(rows, n, count), one, tolerance)
    reach = _reach(value, np.array([1.0]) if form == "number" else np.ones(n), form)
    times = _seconds(lambda: pair.value(probe), len(probe)), _seconds(lambda: pair.prox(probe[:3], 1.0), 3)
    if pair.scalar is not None:  # several at once, or number by number
        z = np.linspace(-1.0, 1.0, 50)
        one_value, one_prox = pair.scalar
        times = _seconds(lambda: one_value(z), 50), _seconds(lambda: one_prox(z, 1.0), 50)
    return replace(pair, reach=reach, value_seconds=times[0], prox_seconds=times[1])


def _seconds(call: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(3):  # the first call may compile or import, another may be held up
        start = time.perf_counter()
        try:
            call()
        except RefutedError:
            return 0.0
        times.append((time.perf_counter() - start) / count)
    return min(times)


def _probe(n: int) -> Array:
    probe = np.random.default_rng(0).normal(size=(n + 3, n)) * np.logspace(-2, 3, n + 3)[:, None]
    return np.concatenate([probe, np.abs(probe), 0.0 * probe])[:24]


def _is_single(value: Function, prox: Function, form: str, n: int) -> bool:
    """Whether one of the two computes in single precision."""
    z = 0.1 if form == "number" else _code(n)
    with np.errstate(all="ignore"):
        try:
            return np.float32 in (np.asarray(value(z)).dtype, np.asarray(prox(z, 1.0)).dtype)
        except Exception:  # what cannot be called has no precision
            return False


def _is_additive(rows: Function, n: int, count: int) -> bool:
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


def _reach(value: Function, ones: Array, form: str) -> float:
    """Return the largest modulus, of a ladder, up to which the value does not overflow."""
    signs = np.where(np.arange(len(ones)) % 2, -ones, ones)
    reach = 1.0
    for size in np.logspace(0.25, 8, 32):
        for z in (ones, -ones, signs):
            if _overflows(value, float(size * z[0]) if form == "number" else size * z):
                return reach
        reach = float(size)
    return float("inf")


def _overflows(function: Function, *arguments: Any) -> bool:
    return _raises(function, *arguments, error=(FloatingPointError, OverflowError), over="raise")


def _raises(function: Function, *arguments: Any, error: Any, **state: Any) -> bool:
    with np.errstate(**{"all": "ignore"} | state):
        try:
            function(*arguments)
        except error:
            return True
        except Exception:  # another finding, for another place
            return False
    return False


# --- the value ------------------------------------------------------------------------------------------------------


def _undefined_outside(function: Function) -> Function:
    """Return the function with infinity for NaN: outside its domain a formula gives one or the other."""

    def called(Z: Array) -> Array:
        values = function(Z)
        return np.where(np.isnan(values), np.inf, values)

    return quiet(called)


def _values(value: Function, n: int) -> Function:
    """Return the value of each row: in one call where the function takes a matrix that way, row by row otherwise."""

    def one(z: Array) -> float:
        try:
            result = value(z.copy())
            return float(np.sum(np.asarray(result, float))) if np.ndim(result) else float(result)
        except (ArithmeticError, ValueError):  # the logarithm of a negative number, say
            return np.inf

    def one_by_one(Z: Array) -> Array:
        return np.array([one(z) for z in Z]).reshape(len(Z))

    def at_once(Z: Array) -> Array:
        values = np.asarray(value(Z.copy()), float)
        return values.sum(-1) if values.shape == Z.shape else values

    probe = _probe(n)
    if _shape_of(at_once, probe) == (len(probe),) and np.array_equal(
        quiet(at_once)(probe), quiet(one_by_one)(probe), equal_nan=True
    ):
        return _undefined_outside(at_once)
    return _undefined_outside(one_by_one)


def _numbers(value: Function) -> Function:
    def one(z: float) -> float:
        try:
            return float(value(z))
        except (ArithmeticError, ValueError):
            return np.inf

    return _undefined_outside(lambda Z: np.array([one(z) for z in Z.tolist()]))


# --- the prox: infinite where it overflows, NaN where it gives nothing else ------------------------------------------


def _claimed_codes(prox: Function) -> Function:
    return quiet(lambda U, t: np.array([_claimed(prox, u, float(t)) for u in U]).reshape(U.shape))


def _claimed_numbers(prox: Function) -> Function:
    return quiet(
        lambda U, t: np.array([_claimed(prox, u, float(t)) for u in U.ravel().tolist()], float).reshape(U.shape)
    )


def _claimed_entries(prox: Function) -> Function:
    """Return the prox of a scalar penalty for many numbers at once."""

    def called(U: Array, t: float) -> Array:
        try:
            Z = _of_shape(prox(U.copy(), float(t)), U)
        except Exception:  # some entry is to blame, or all of them together
            for u in U:
                _claimed(prox, np.array([u]), float(t))
            return _claimed(prox, U, float(t))
        for i in np.flatnonzero(~np.isfinite(Z)):
            Z[i] = _not_finite(prox, U[[i]], float(t), Z[i])
        return Z

    return quiet(called)


def _claimed(prox: Function, u: Any, t: float) -> Array:
    try:
        z = _of_shape(prox(u.copy() if isinstance(u, np.ndarray) else u, t), u)
    except OverflowError:
        return np.full(np.shape(u), np.inf)
    except Exception as error:
        raise RefutedError({"u": u, "t": t, "raised": repr(error)}, "the prox raises an exception") from error
    if not np.isfinite(z).all():
        return np.full(np.shape(u), _not_finite(prox, u, t, z))
    return z


def _not_finite(prox: Function, u: Any, t: float, z: Array) -> float:
    """Return infinity where the prox overflows, NaN where it is undefined."""
    is_quotient = _raises(prox, u, t, error=FloatingPointError, divide="raise")
    return np.inf if _overflows(prox, u, t) or (np.isinf(z).any() and not is_quotient) else np.nan


def _of_shape(z: Any, u: Any) -> Array:
    claimed = np.array(z, float)  # a copy: the function may return the same array next time
    if claimed.shape != np.shape(u):
        kind = f"an array of the shape of u, {u.shape}" if np.shape(u) else "a number for a number"
        raise ValueError(f"prox must return {kind}, got {z!r}")
    return claimed
