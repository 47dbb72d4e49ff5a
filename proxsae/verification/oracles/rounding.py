"""The rounding error of a formula in floating point, judged by the same code evaluated with many digits."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers.base import Regularizer
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check

DTYPES = {"float32": 37, "float64": 307}  # powers of ten on either side
FEWER_DECADES = 10  # powers and logarithms of exact numbers are dear far from 1
MOST_ENTRIES = 40  # entries of a code
N_ROWS = 8


def rounding_points(dtype: str, n: int, decades: int, steps: tuple[float, ...] | None) -> tuple[Array, Array]:
    """Return points u of every size that a dtype holds, ties, zeros and denormals, and a step for each."""
    rng = np.random.default_rng(0)
    ordinary = rng.normal(size=(N_ROWS, n))
    sizes = 10.0 ** np.linspace(-decades, decades, N_ROWS)[:, None]
    ties = rng.integers(-2, 3, size=(N_ROWS // 2, n)) * 0.5
    denormal = rng.integers(-9, 10, size=(1, n)) * float(np.finfo(dtype).smallest_subnormal)
    U = np.concatenate([ordinary, ordinary * sizes, ties, denormal])
    t = 10.0 ** rng.uniform(-2, 2, (len(U), 1)) if steps is None else np.resize(steps, (len(U), 1))
    return U.astype(dtype), t.astype(dtype)


def check_rounding(R: Regularizer, pair: Pair) -> Check:
    """Compare the prox in float32 and float64 with the one that the same code gives with many digits.

    The error is counted in roundings, see :func:`~proxsae.verification.oracles.exact_numbers.prox_roundings`; for a
    formula without step or parameters those are units in the last place. The error is reported for every size of u. The
    check fails where half of the digits are lost at a size from 1e-10 to 1e10; far beyond, a formula of a user may
    overflow.
    """
    # Here, so that no one loads mpmath who does not verify.
    from proxsae.verification.oracles.exact_numbers import answer, as_float, fewer_digits, prox_roundings, rounded

    method = "rounding errors"
    if pair.tolerance or R.scope == "batch" or pair.n > MOST_ENTRIES:
        reason = f"for formulas of single codes of at most {MOST_ENTRIES} entries"
        return Check(method, "", "skipped", reason=reason)
    is_algebraic = all(term.is_algebraic for term in R.terms)
    found = []
    for dtype, decades in DTYPES.items():
        decades = decades if is_algebraic else FEWER_DECADES
        U, t = rounding_points(dtype, pair.n, decades, pair.steps)
        with nullcontext() if is_algebraic else fewer_digits():
            try:
                errors = prox_roundings(R, U, t)
            except (TypeError, ValueError, AttributeError) as error:
                return Check(method, "", "skipped", reason=f"its code does not take exact numbers: {error}")
            found.append(f"{errors.max():.2g} in {dtype} (u from 1e-{decades} to 1e{decades})")
            covers = f"{len(U)} codes u of length {pair.n}, denormals too; at most {' and '.join(found)} roundings"
            is_ordinary = ((abs(U) >= 10.0**-FEWER_DECADES) | (U == 0)).all(-1) & (abs(U) <= 10.0**FEWER_DECADES).all(
                -1
            )
            errors = np.where(is_ordinary, errors, 0.0)
            if errors.max() > float(np.finfo(dtype).eps) ** -0.5:
                i = int(np.argmax(errors))
                exact = answer(rounded(R, dtype), U[[i]], t[[i]]).exact[0]
                claimed, right = R.prox(U[i], t[i]), np.array([as_float(z) for z in exact])
                numbers = {"u": U[i], "t": float(t[i, 0]), "claimed z": claimed, "exact z": right}
                return Check(method, covers, "failed", numbers, f"more than half of the digits of {dtype} are lost")
    return Check(method, covers, "passed")
