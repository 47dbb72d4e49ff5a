"""Checks that the written conjugate of R is that of its value: with a conjugate too small, a gap is no bound."""

from __future__ import annotations

import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.integers import evenly_spaced
from proxsae.regularizers.base import Regularizer
from proxsae.verification.oracles.properties import EPS, ROUNDING
from proxsae.verification.pair import Pair
from proxsae.verification.report import Check

RIDGE = 0.7  # of R + ridge/2 ||z||^2, where that has a conjugate
LARGEST = 1e6  # modulus of a z_i
BEYOND = (1.0, 1.0 + 1e-6, 1.01, 2.0, -1.0)  # multiples of the v that a prox can reach
MOST_AXES = 8
DECIMALS = 9  # of v: rounding may move a 0 outside of dom R* by less than the conjugate allows
_SIZES = np.logspace(-3, 9, 13)
_LADDER = np.concatenate([_SIZES, -_SIZES])


def check_fenchel_young(R: Regularizer, pair: Pair) -> Check:
    """Check R(p) + R*(v) = <p, v> at v = (u - p) / t, with the conjugate R* that is written apart from the prox."""
    rounding = max(ROUNDING, pair.tolerance)
    method, covers = "Fenchel-Young equality with the conjugate", f"60 {pair.covers}"
    if not R.has_conjugate:
        return Check(method, covers, "skipped", reason="no conjugate is written for this R")
    for t in pair.tried_steps:
        U = pair.points(60)
        P = R.prox(U, t)
        V = _subgradients(U, P, t)
        gap = R.value(P) + R.conjugate_unchecked(V) - (P * V).sum(-1)
        scale = 1.0 + (np.abs(P) * np.abs(V)).sum(-1)
        i = int(np.argmax(np.nan_to_num(np.abs(gap) / scale, nan=np.inf)))
        if not abs(gap[i]) <= rounding * scale[i]:
            numbers = {"u": U[i], "t": t, "prox(u)": P[i], "v": V[i], "R(p) + R*(v) - <p, v>": float(gap[i])}
            return Check(method, covers, "failed", numbers, "p is not optimal, or R* is not the conjugate of R")
    return Check(method, covers, "passed")


def check_fenchel(R: Regularizer, pair: Pair) -> Check:
    """Check R(z) + R*(v) >= <z, v> for unrelated z and v, including v outside of dom R*.

    The equality tests R* only where it is finite. An R* without its domain, or too small elsewhere, passes that test,
    and gives a duality gap that is no bound.
    """
    rounding = max(ROUNDING, pair.tolerance)
    Z, V = _codes(pair), _slopes(pair)
    method = "Fenchel's inequality with the conjugate"
    covers = f"{len(Z)} codes z x {len(V)} slopes v of length {pair.n}, "
    covers += f"|z_i| to {np.abs(Z).max():g}, |v_i| to {np.abs(V).max():g}"
    for ridge in _ridges(R):
        values = pair.value(Z) + 0.5 * ridge * (Z**2).sum(-1)
        conjugates = np.asarray(R.conjugate_on(ArrayNamespace(V), V, ridge), float)
        added = f" + {0.5 * ridge:g} ||z||^2" if ridge else ""
        if np.isnan(conjugates).any():
            where = V[np.isnan(conjugates)][0]
            return Check(method, covers, "failed", {"v": where}, f"the conjugate of R{added} is no number")
        products = Z @ V.T
        gap = values[:, None] + conjugates - products
        sizes, heights = np.abs(Z), _finite(np.abs(values))
        steepest = (heights / (1.0 + sizes.sum(-1))).max()  # the edge of dom R* may be a rounding of this too far out
        scale = 1.0 + (1.0 + sizes) @ np.abs(V.T) + _finite(np.abs(conjugates))
        scale += (heights + steepest * sizes.sum(-1))[:, None]
        wrong = np.nan_to_num(gap, nan=np.inf) < -rounding * scale
        if wrong.any():  # the smallest numbers show it best
            lengths = np.where(wrong, np.outer(sizes.max(-1), np.abs(V).max(-1)), np.inf)
            i, j = np.unravel_index(int(np.argmin(lengths)), lengths.shape)
            names = (f"R(z){added}", "its conjugate at v", "<z, v>")
            sides = (float(values[i]), float(conjugates[j]), float(products[i, j]))
            numbers = {"z": Z[i], "v": V[j], **dict(zip(names, sides, strict=True))}
            reason = "R(z) + R*(v) < <z, v>: R* is too small at v, and so are the duality gaps that rest on it"
            return Check(method, covers, "failed", numbers, reason)
    return Check(method, covers, "passed")


def _ridges(R: Regularizer) -> list[float]:
    """Return the ridges with which the conjugate of R is written."""
    return [0.0] * R.has_conjugate + [RIDGE] * R.has_conjugate_with_ridge


def _codes(pair: Pair) -> Array:
    """Return codes, most of them in the domain of R, some as large as the domain allows."""
    sizes = _LADDER[np.abs(_LADDER) <= LARGEST]
    U = np.concatenate([pair.points(20), 1e3 * pair.points(20), _along_axes(np.zeros(pair.n), sizes)])
    P = pair.answers(U, (pair.steps or (1.0,))[0])[1]
    return np.concatenate([U, P[np.isfinite(P).all(axis=-1)]])


def _slopes(pair: Pair) -> Array:
    """Return v where R* is finite, v just and far beyond its domain, and v along each axis from a point inside."""
    U = np.concatenate([pair.points(20), _along_axes(np.zeros(pair.n), _LADDER)])
    steps = pair.tried_steps
    reached = np.concatenate([_subgradients(*pair.answers(U, t), t) for t in {min(steps), max(steps)}])
    reached = reached[np.isfinite(reached).all(axis=-1)]
    free = [10.0 * pair.points(40), *(_along_axes(v, _LADDER) for v in reached[:1])]
    return np.round(np.concatenate([*free, *(factor * reached for factor in BEYOND)]), DECIMALS)


def _subgradients(U: Array, P: Array, t: float) -> Array:
    """Return (u - p) / t, with differences that are rounding set to 0: for a weight 0 the domain of R* is {0}."""
    return np.where(np.abs(U - P) > 4.0 * EPS * (1.0 + np.abs(U)), U - P, 0.0) / t


def _along_axes(start: Array, sizes: Array) -> Array:
    """Return points that differ from a start in one coordinate by these sizes, for a few of the coordinates."""
    axes = np.eye(len(start))[evenly_spaced(len(start), MOST_AXES)]
    moves = sizes[:, None, None] * axes
    return (start + moves).reshape(-1, len(start))


def _finite(sizes: Array) -> Array:
    return np.where(np.isfinite(sizes), sizes, 0.0)
