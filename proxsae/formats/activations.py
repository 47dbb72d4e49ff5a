r"""The activation of other libraries that is the prox of an R, and the R whose prox an activation is.

Let R be a sum of :math:`\lambda\|z\|_1`, :math:`\frac a2\|z\|^2`, :math:`\langle c, z\rangle` and costs p, q of a
positive and of a negative entry. Its prox is, with the positive part on the left and the negative part on the right,

.. math:: z = J_{\theta_+}\!\Big(\frac{u - \lambda - c}{1 + a}\Big) - J_{\theta_-}\!\Big(\frac{-u - \lambda + c}{1 +
          a}\Big), \qquad J_\theta(v) = v\,1[v > \theta],\ \theta_+ = \sqrt{2p / (1 + a)},

of which at most one is not zero: freeing z gains :math:`(1 + a) v^2 / 2`, which must exceed the cost of z. With z >= 0
the second part is absent. With at most k non-zeros the k largest are kept, since the gain grows with v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from proxsae.formats.parts import Parts
from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers import (
    L0,
    L1,
    AsymmetricL0,
    Blocks,
    Cardinality,
    NonNegative,
    Regularizer,
    SquaredL2,
    Tilt,
    Zero,
)

KNOWN = "sums of L1, L0, AsymmetricL0, SquaredL2, Tilt, NonNegative and Cardinality"


@dataclass(frozen=True)
class OneSide:
    """J_theta(slope * (sign * u) - shift), a side of the prox; numbers or one a coordinate, in float64."""

    sign: int
    slope: Any
    shift: Any
    threshold: Any


@dataclass(frozen=True)
class ActivationSides:
    """A prox as its sides, and the number of non-zeros that are kept (None: all)."""

    sides: tuple[OneSide, ...]
    k: int | None

    @property
    def is_plain(self) -> bool:
        """Whether the activation applies to u itself."""
        return all(np.all(side.slope == 1) and np.all(side.shift == 0) for side in self.sides)

    @property
    def has_thresholds(self) -> bool:
        """Whether a side jumps."""
        return any(np.any(side.threshold > 0) for side in self.sides)


def activation_sides(R: Regularizer) -> ActivationSides:
    """Return the prox of R at step 1 as ReLU, JumpReLU or TopK of its two sides.

    Raises
    ------
    ValueError
        If the prox is none of these.
    """
    terms: list[Any] = list(R.terms)
    kinds = (L0, L1, AsymmetricL0, Cardinality, NonNegative, SquaredL2, Tilt, Zero)
    if other := next((term for term in terms if type(term) not in kinds), None):
        raise ValueError(f"no other library has the activation of {other}; theirs are the prox of {KNOWN}")
    k = next((term.k for term in terms if isinstance(term, Cardinality)), None)
    if any(isinstance(term, Cardinality) and term.scope == "batch" for term in terms):
        raise ValueError(f"{R} selects over a batch, and no other library has that for single samples")
    lam, tilt = _total(terms, L1), _total(terms, Tilt, "slope")
    scale = 1.0 + _total(terms, SquaredL2)
    costs = [_total(terms, L0) + _total(terms, AsymmetricL0, side) for side in ("positive", "negative")]
    signs = (1,) if R.is_nonnegative else (1, -1)
    sides = ActivationSides(
        tuple(
            OneSide(sign, 1.0 / scale, (lam + sign * tilt) / scale, np.sqrt(2.0 * cost / scale))
            for sign, cost in zip(signs, costs, strict=False)
        ),
        k,
    )
    if k is not None and sides.has_thresholds:
        raise ValueError(f"{R} has thresholds as well as k, and no other library has both")
    if k is not None and np.ptp(scale) != 0:
        raise ValueError(f"in {R} the gains are not in the order of the codes, as TopK has them in other libraries")
    return sides


def regularizer_of_parts(parts: Parts) -> Regularizer:
    """Return the R whose prox at step 1 is the activation."""
    if parts.activation == "relu":
        return NonNegative()
    if parts.activation == "jumprelu":
        assert parts.threshold is not None
        return count(parts.threshold) + NonNegative()
    assert parts.k is not None
    if parts.activation == "groupmax":
        return Blocks([(NonNegative() + Cardinality(1), len(parts.atoms) // parts.k)] * parts.k)
    return Cardinality(parts.k) if parts.activation == "abstopk" else NonNegative() + Cardinality(parts.k)


def count(threshold: Tensor) -> Regularizer:
    """Return the L0 regularizer with these hard thresholds; one number where they are all the same."""
    cost = cost_of(threshold)
    return cost * L0() if np.any(cost) else Zero()


def cost_of(threshold: Tensor) -> Any:
    """Return theta^2 / 2 in float64: a float where all thresholds are the same, else one a coordinate."""
    cost = 0.5 * to_numpy(threshold).astype(np.float64) ** 2
    return float(cost[0]) if np.ptp(cost) == 0 else cost


def _total(terms: list[Any], kind: type, field: str | None = None) -> Any:
    """Return the sum of weight, or weight times a field, of the terms of a kind, in float64."""
    total: Any = np.float64(0.0)
    for term in terms:
        if isinstance(term, kind):
            numbers: Any = term
            value = 1.0 if field is None else to_numpy(getattr(numbers, field)).astype(np.float64)
            total = total + to_numpy(numbers.weight).astype(np.float64) * value
    return total
