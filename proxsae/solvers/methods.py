"""The methods of `solve` by name, and the one that `method="auto"` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.active_set import ACTIVE_SET
from proxsae.solvers.adaptive import ADAPTIVE
from proxsae.solvers.admm import ADMM
from proxsae.solvers.algorithm import Algorithm, Direct
from proxsae.solvers.batched_active_set import BATCHED_ACTIVE_SET
from proxsae.solvers.descent import CD
from proxsae.solvers.groups import GROUP_CD
from proxsae.solvers.problem import GRAM_LIMIT
from proxsae.solvers.proximal_gradient import FISTA, ISTA
from proxsae.solvers.pursuits.exact import EXACT
from proxsae.solvers.pursuits.pursuit import PURSUITS

ALGORITHMS: dict[str, Algorithm | Direct] = {
    "active_set": ACTIVE_SET,
    "adaptive": ADAPTIVE,
    "admm": ADMM,
    "cd": CD,
    "fista": FISTA,
    "ista": ISTA,
    **PURSUITS,
    "exact": EXACT,
}
SMALLEST = 1e-140  # a correlation: what leaves at this one leaves at all


def algorithm_of(method: str, R: Any, *, on_device: bool = False) -> Algorithm | Direct:
    """Return the algorithm of a name.

    Coordinate descent is by groups where R is a function of the norms of groups; active sets of a convex R are solved
    in batches for tensors on a device other than the CPU.
    """
    if method == "cd" and not getattr(R, "is_separable", True):
        return GROUP_CD
    if method == "active_set" and on_device and BATCHED_ACTIVE_SET.refuses(R) is None:
        return BATCHED_ACTIVE_SET
    return ALGORITHMS[method]


def method_for(R: Regularizer, D: Array, gram_limit: int = GRAM_LIMIT) -> str:
    """Return the method that "auto" takes: the fastest at this size whose theory covers R.

    The choice does not depend on device and dtype, which would otherwise decide which minimum is found where R is not
    convex.
    """
    if PURSUITS["swap"].refuses(R) is None:
        return "swap"
    if ACTIVE_SET.refuses(R) is None and _leaves_zeros(R, D):
        return "active_set"
    can_descend = algorithm_of("cd", R).refuses(R) is None and len(D) <= gram_limit
    if can_descend and (not R.is_convex or (not R.is_separable and _leaves_zeros(R, D))):
        return "cd"
    return "fista" if R.is_convex else "ista"


def _leaves_zeros(R: Regularizer, D: Array) -> bool:
    """Whether every coordinate stays 0 for small correlations of at least one sign, so that codes are sparse."""
    tiny = np.full((1, len(D)), SMALLEST)
    return bool((R.prox_unchecked(tiny) * R.prox_unchecked(-tiny) == 0).all())


def check_name(method: Any) -> None:
    """Raise ValueError unless `method` is "auto" or the name of a method."""
    if not isinstance(method, str) or (method != "auto" and method not in ALGORITHMS):
        names = ", ".join(f'"{name}"' for name in ("auto", *ALGORITHMS))
        raise ValueError(f"method must be {names}, got {method!r}")


def checked_method(method: Any, R: Regularizer | tuple[Regularizer, ...], D: Array, gram_limit: int) -> str:
    """Return the name of an algorithm whose theory covers R, or raise ValueError."""
    best = "admm" if isinstance(R, tuple) else method_for(R, D, gram_limit)
    check_name(method)
    if method == "auto" and not isinstance(R, tuple):
        return best
    method = best if method == "auto" else method
    algorithm = algorithm_of(method, R)
    refusal = "takes one regularizer, and R is a list" if isinstance(R, tuple) and method != "admm" else None
    refusal = refusal or algorithm.refuses(R)  # type: ignore[arg-type]
    if refusal:
        advice = "" if method == best else f'; use "{best}"'
        raise ValueError(f"{method!r} {refusal}{advice}")
    return str(method)
