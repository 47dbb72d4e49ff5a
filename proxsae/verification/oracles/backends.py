"""Do all readers of a formula agree? NumPy, Torch and the compiled loops, in single and double precision."""

from __future__ import annotations

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.separable import Separable
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check

ULPS = 64  # for transcendental functions, whose last digits every library rounds in its own way


def check_backends(R: Regularizer, pair: Pair) -> Check:
    """Compare the prox of all backends, bit by bit where the formula is algebraic; ties are among the points."""
    import torch

    exact = R.is_separable and all(term.is_algebraic for term in R.terms)
    is_compiled = isinstance(R, Separable) and R.has_formula
    readers = f"NumPy, Torch{' and Numba' if is_compiled else ''}"
    covers = (
        f"{readers} in float32 and float64, {'bit by bit' if exact else 'to rounding'}, ties and signed zeros included"
    )
    steps = (pair.steps or (0.5, 3.0))[:2]
    for dtype in ("float32", "float64"):
        U = np.concatenate([pair.points(42), np.full((1, pair.n), -0.0)]).astype(dtype)
        for t in steps:
            plain = R.prox(U, t)
            others = {"Torch": R.prox(torch.from_numpy(U), t).numpy()}
            if isinstance(R, Separable) and is_compiled:
                others["Numba"] = _compiled_prox(R, U, t)
            for name, other in others.items():
                wrong = _differs(plain, other, exact=exact)
                if wrong.any() or other.dtype != plain.dtype:
                    i = int(np.argmax(wrong.any(axis=-1)))
                    numbers = {"u": U[i], "t": t, "dtype": dtype, "NumPy": plain[i], name: other[i]}
                    return Check("agreement of backends", covers, "failed", numbers, f"{name} differs from NumPy")
        double = R.prox(U.astype("float64"), steps[0])
        close = np.isclose(double, R.prox(U, steps[0]), rtol=1e-4, atol=1e-5)
        if close.mean() < 0.9:  # at a jump, rounding u may change the side; nowhere else
            i = int(np.argmin(close.all(axis=-1)))
            numbers = {"u": U[i], "float32": R.prox(U, steps[0])[i], "float64": double[i]}
            return Check("agreement of backends", covers, "failed", numbers, "float32 is far from float64")
    return Check("agreement of backends", covers, "passed")


def _compiled_prox(R: Separable, U: Array, t: float) -> Array:
    from proxsae.formulas.numba import compiled

    scalar = compiled(R, "prox", str(U.dtype))
    parameters = [np.broadcast_to(np.asarray(p, U.dtype), U.shape[1]) for _, p in R.parameters()]
    columns = [tuple(p[j] for p in parameters) for j in range(U.shape[1])]
    return np.array([[scalar(u, U.dtype.type(t), columns[j]) for j, u in enumerate(row)] for row in U], U.dtype)


def _differs(one: Array, other: Array, *, exact: bool) -> Array:
    if exact:
        integer = {4: np.int32, 8: np.int64}[one.itemsize]
        return np.asarray(one.view(integer) != other.astype(one.dtype).view(integer))
    return np.asarray(~(np.abs(one - other) <= ULPS * np.finfo(one.dtype).eps * (1.0 + np.abs(one))))
