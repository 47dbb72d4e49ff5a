"""The traits of a regularizer, known without computing: solvers, encoders and the rules for sums use them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

Scope = Literal["coordinate", "group", "sample", "batch"]


def of_parts(trait: str, combine: Callable[[Iterable[Any]], bool] = all) -> Any:
    """Return a property for a trait that R has where all of its parts, or any of its parts, have the trait."""
    return property(lambda R: combine(getattr(part, trait) for part in R.made_of()))


class Traits:
    """The traits and their defaults; a class states its own as plain attributes, or as properties of its parameters."""

    def made_of(self) -> list[Any]:
        """Return the regularizers that this one is made of."""
        return []

    @property
    def is_convex(self) -> bool:
        """R is convex, so that its prox is single-valued and firmly non-expansive."""
        return False

    @property
    def is_separable(self) -> bool:
        """R(z) is a sum of functions of one coordinate each."""
        return False

    @property
    def is_nonnegative(self) -> bool:
        """R(z) is infinite unless every z_i >= 0."""
        return False

    @property
    def is_indicator(self) -> bool:
        """R is 0 or infinite, so that it has no weight."""
        return False

    @property
    def is_scale_free(self) -> bool:
        """R is the indicator of a cone: neither step nor weight matters."""
        return False

    @property
    def is_symmetric(self) -> bool:
        """R ignores the signs of the z_i and does not fall as an abs(z_i) grows."""
        return False

    @property
    def is_least_at_zero(self) -> bool:
        """R is least at zero: in each coordinate, whatever the others are."""
        return self.is_symmetric

    @property
    def is_radial(self) -> bool:
        """R is a non-decreasing function of the Euclidean norm, or a sum of such over nested or disjoint groups."""
        return False

    @property
    def is_algebraic(self) -> bool:
        """Value and prox, and those of all parts, use +, -, *, /, comparisons and square roots alone.

        Every backend rounds these alike; a sum over a code may be added in another order.
        """
        return all(part.is_algebraic for part in self.made_of())

    @property
    def has_gradient(self) -> bool:
        """Value and prox can be differentiated by Torch, as encoders that are trained need."""
        return all(part.has_gradient for part in self.made_of())

    @property
    def has_formula(self) -> bool:
        """Value and prox are scalar formulas that can be compiled and printed."""
        return False

    @property
    def has_conjugate(self) -> bool:
        """The convex conjugate of R is written down, apart from the prox."""
        return False

    @property
    def has_conjugate_with_ridge(self) -> bool:
        """The convex conjugate of R plus a ridge is written down, apart from the prox."""
        return False

    @property
    def scope(self) -> Scope:
        """The part of a code matrix on which one decision of the prox depends."""
        return "sample"

    @property
    def tolerance(self) -> float:
        """The error of the prox in z, relative to 1 + abs(z), beyond rounding; 0 for a formula."""
        return 0.0

    @property
    def limit(self) -> float:
        """The largest modulus of an entry that the prox takes."""
        return np.inf

    @property
    def degree(self) -> float | None:
        """The q with R(s z; s c) = s^q R(z; c) for s > 0, c the parameters named by `lengths`; None without one."""
        return None

    @property
    def lengths(self) -> tuple[str, ...]:
        """The names of the parameters that are measured in the units of z."""
        return ()

    def is_sum_over(self, groups: Any) -> bool:
        """Whether R is a sum of one function of each of these groups, see :meth:`group_values`."""
        return False
