"""What `solve` accepts: every refusal is one sentence that says what was given and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import array_api_compat

from proxsae.formulas.arrays import Array, as_float_array, dtype_name
from proxsae.regularizers import Regularizer, parse
from proxsae.solvers.problem import default_step, lipschitz_constant
from proxsae.solvers.proximal_gradient import ALGORITHMS

STEP_SLACK = 1e-6  # 1/L as a caller rounds it in float32


class Arrays(NamedTuple):
    """Arrays of one kind, dtype and device."""

    targets: Array  # Y = X - b, (n_samples, n_features)
    dictionary: Array  # D, (n_components, n_features)
    codes: Array  # where to start, (n_samples, n_components)


def checked_arrays(X: Any, D: Any, intercept: Any, init: Any) -> Arrays:
    """Return the arrays of the problem, without graph, or raise TypeError or ValueError."""
    X = _checked(X, "X", like=None)
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n_samples, n_features), got {tuple(X.shape)}")
    D = _checked(D, "D", like=X)
    if D.ndim != 2 or D.shape[1] != X.shape[1] or 0 in D.shape:
        raise ValueError(
            f"D must have shape (n_components, n_features) with n_features = {X.shape[1]} as in X and at least one of "
            f"each, got {tuple(D.shape)}"
        )
    targets = X
    if intercept is not None:
        intercept = _checked(intercept, "intercept", like=X)
        if tuple(intercept.shape) != (X.shape[1],):
            raise ValueError(f"intercept must have shape ({X.shape[1]},), got {tuple(intercept.shape)}")
        targets = X - intercept
    shape = (X.shape[0], D.shape[0])
    if init is None:
        xp = array_api_compat.array_namespace(X)
        return Arrays(targets, D, xp.zeros(shape, dtype=X.dtype, device=array_api_compat.device(X)))
    init = _checked(init, "init", like=X)
    if tuple(init.shape) != shape:
        raise ValueError(f"init must have shape (n_samples, n_components) = {shape}, got {tuple(init.shape)}")
    return Arrays(targets, D, init)


def checked_regularizer(R: Any, n_components: int) -> Regularizer:
    """Return R, parsed where it is text, or raise."""
    if isinstance(R, str):
        R = parse(R)
    if not isinstance(R, Regularizer):
        raise TypeError(f'R must be a regularizer or text such as "0.1*L1 + NonNegative", got {type(R).__name__}')
    R.check_width(n_components)
    return R


def checked_method(method: Any, R: Regularizer) -> str:
    """Return the name of an algorithm whose theory covers R, or raise ValueError."""
    if method == "auto":
        return "fista" if R.is_convex else "ista"
    if method not in ALGORITHMS:
        raise ValueError(f'method must be "auto", {", ".join(map(repr, ALGORITHMS))}, got {method!r}')
    if ALGORITHMS[method].needs_convex and not R.is_convex:
        raise ValueError(f'{method!r} needs a convex regularizer, and {R} is not convex; use "ista"')
    return str(method)


def checked_step(step: Any, D: Array, R: Regularizer) -> float:
    """Return the step, by default the largest that is safe, or raise ValueError outside (0, 1/L]."""
    L = lipschitz_constant(D)
    if step is None:
        return default_step(L, R)
    if not isinstance(step, Real) or not 0 < float(step) < math.inf or float(step) * L > 1 + STEP_SLACK:
        bound = f"(0, {1 / L:.9g}]" if L > 0 else "(0, inf)"
        raise ValueError(f"step must be a number in {bound}, where the objective cannot increase, got {step!r}")
    return float(step)


def check_limits(tol: Any, max_iter: Any) -> None:
    """Raise ValueError unless tol >= 0 and max_iter is an integer >= 0."""
    if not isinstance(tol, Real) or not 0 <= float(tol) < math.inf:
        raise ValueError(f"tol must be a finite number >= 0, got {tol!r}")
    if isinstance(max_iter, bool) or not isinstance(max_iter, Integral) or int(max_iter) < 0:
        raise ValueError(f"max_iter must be an integer >= 0, got {max_iter!r}")


def _checked(x: Any, name: str, like: Array | None) -> Array:
    x = as_float_array(x, name)
    if dtype_name(x) not in ("float32", "float64"):
        raise TypeError(f"{name} must be float32 or float64, got {dtype_name(x)}")
    if like is not None:
        mine, its = (_kind(a) for a in (x, like))
        if mine != its:
            raise TypeError(f"{name} must be of the same kind, dtype and device as X: X is {its}, {name} is {mine}")
    return x.detach() if array_api_compat.is_torch_array(x) else x


def _kind(x: Array) -> str:
    library = "Torch" if array_api_compat.is_torch_array(x) else "NumPy"
    return f"{library} {dtype_name(x)} on {array_api_compat.device(x)}"
