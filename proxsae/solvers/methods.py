"""The methods of `solve` by name, and the one that `method="auto"` takes."""

from __future__ import annotations

from typing import Any

from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.proximal_gradient import FISTA, ISTA

ALGORITHMS: dict[str, Algorithm] = {"ista": ISTA, "fista": FISTA}


def method_for(R: Regularizer) -> str:
    """Return what "auto" takes: the fastest method whose theory covers R."""
    return "fista" if R.is_convex else "ista"


def checked_method(method: Any, R: Regularizer) -> str:
    """Return the name of an algorithm whose theory covers R, or raise ValueError."""
    if method == "auto":
        return method_for(R)
    if method not in ALGORITHMS:
        raise ValueError(f'method must be "auto", {", ".join(map(repr, ALGORITHMS))}, got {method!r}')
    refusal = ALGORITHMS[method].refuses(R)
    if refusal:
        raise ValueError(f'{method!r} {refusal}; use "{method_for(R)}"')
    return str(method)
