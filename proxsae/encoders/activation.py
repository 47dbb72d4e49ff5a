"""The prox of R as the activation of an encoder, with thresholds that may be learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from proxsae.encoders.base import Encoder, Encoding
from proxsae.encoders.codes import Codes
from proxsae.encoders.pre_activation import PreActivation
from proxsae.encoders.thresholds import Count, Jump, thresholds_at, with_thresholds
from proxsae.formulas.arrays import name_of_dtype
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import FEW_ROWS, Outside, Rule, above, bound_below_kth, kept, top_k_mask
from proxsae.regularizers import L0, Cardinality, Regularizer, Separable
from proxsae.regularizers.cardinality import separable_part


@dataclass(frozen=True)
class Activation:
    r""":math:`z = \mathrm{prox}_{tR}(u)` of a pre-activation u.

    Attributes
    ----------
    regularizer : Regularizer
        R.
    threshold : Tensor of shape (n_components,) or (2, n_components), or None
        Learned hard thresholds theta_i of an L0 regularizer: its weight is then theta_i^2 / 2, and at step t the prox
        cuts at :math:`\sqrt t\,\theta_i`. Two rows are for positive and for negative codes.
    bandwidth : float
        Width of the surrogate window around each threshold, in units of the codes.
    training : bool
        Keep coordinates that almost are non-zero, from which thresholds learn.
    """

    regularizer: Regularizer
    threshold: Tensor | None = None
    bandwidth: float = 0.5
    training: bool = False

    @property
    def current_regularizer(self) -> Regularizer:
        """R with the learned thresholds as its weights, without graph."""
        if self.threshold is None:
            return self.regularizer
        return with_thresholds(self.regularizer, self.threshold.detach())

    def scaled(self, factor: float) -> Activation:
        """Return the activation with another weight of R; thresholds are multiplied by the square root."""
        if self.threshold is None:
            return replace(self, regularizer=self.regularizer.scaled(factor))
        return replace(self, threshold=self.threshold.detach() * math.sqrt(factor))

    def at_relative_price(self, factor: float) -> Activation:
        """Return the activation with another weight of the L0 in R."""
        terms = [factor * term if isinstance(term, L0) else term for term in self.regularizer.terms]
        return replace(self, regularizer=reduce(add, terms))

    @torch.no_grad()
    def price(self, at_support: Tensor, codes: Codes, step: Any = 1.0) -> Tensor:
        """Return the least gain of a non-zero code, divided by the step, float64 of shape (1,); for batch scope."""
        part = separable_part(self.regularizer)
        assert part is not None
        if not len(at_support):
            return at_support.new_zeros(1, dtype=torch.float64)
        gains = part.at(codes.pattern.indices).gains(at_support, step)
        return gains.min().double().reshape(1) / step  # type: ignore[no-any-return]

    def codes(self, pre: PreActivation, step: Any = 1.0) -> Codes:
        """Return the codes, with gradients; forward and backward touch only the entries that are not zero."""
        if separable_part(self.regularizer) is None:
            return self._dense(pre, step)
        pattern, entries = self._select(pre, step)
        return Codes(pattern, self._values(pattern, pre.at(pattern, entries), step))

    def encoding(self, pre: PreActivation, step: Any = 1.0) -> Encoding:
        """Return the codes and their penalty, both with gradients.

        An indicator contributes 0 to the penalty: the prox meets its constraint. With learned thresholds a code costs
        the mean over the atoms, and the count has the surrogate derivative of :class:`Count`.
        """
        part = separable_part(self.regularizer)
        if part is None:
            codes = self._dense(pre, step)
            return Encoding(codes, self.regularizer.value_unchecked(codes.to_dense()), self.regularizer, pre)
        pattern, entries = self._select(pre, step)
        at_support = pre.at(pattern, entries)
        codes = Codes(pattern, self._values(pattern, at_support, step))
        penalty = pattern.sums(self._penalties(part, codes, at_support, step))
        prices = self.price(at_support, codes, step) if self.regularizer.scope == "batch" else None
        return Encoding(codes, penalty, self.regularizer, pre, prices)

    def _dense(self, pre: PreActivation, step: Any) -> Codes:
        return Codes.of_dense(self.regularizer.prox_unchecked(pre.with_graph(), step))

    def support(self, u: Tensor, step: Any = 1.0) -> Pattern:
        """Return where codes of u, (n_samples, n_components), may be non-zero."""
        return Pattern(*self.support_rule(u.shape[1], u.dtype, step)(u), n_columns=u.shape[1])

    @torch.no_grad()
    def support_rule(self, p: int, dtype: torch.dtype, step: Any, margin: float = 0.0) -> Rule:
        """Return the rule that gives the pattern of u where codes may be non-zero, thresholds lower by a margin."""
        if self.threshold is None:
            return self.regularizer.support_rule(p, name_of_dtype(dtype), float(step))
        high = (self.threshold - margin).clamp(min=0) * float(step) ** 0.5
        high, low = (high[0], -high[1]) if high.ndim == 2 else (high, -high)
        low = torch.full_like(low, -torch.inf) if self.regularizer.is_nonnegative else low
        return Outside(low, high)

    def _select(self, pre: PreActivation, step: Any) -> tuple[Pattern, Tensor]:
        """Return the pattern where codes may be non-zero, in training also where thresholds learn, and u there."""
        if self.regularizer.scope == "batch" and pre.is_in_blocks:
            return self._select_of_batch(pre, float(step))
        margin = 0.5 * self.bandwidth if self.training else 0.0
        rule = self.support_rule(len(pre.weight), pre.x.dtype, step, margin)
        return pre.select(rule, by_rows=self.regularizer.scope != "batch")

    def _select_of_batch(self, pre: PreActivation, step: float) -> tuple[Pattern, Tensor]:
        """Return the pattern and u at batch scope, selected from the entries above a bound that a few samples give."""
        R, n, p = self.regularizer, len(pre.x), len(pre.weight)
        assert isinstance(R, Cardinality)
        few, mirror = R.ranked(replace(pre, x=pre.x[:: n // FEW_ROWS]).without_graph, step)
        bound = bound_below_kth(few, R.k / p, mirror)
        rule = above(bound, mirror, p)
        are_ranks = R.rank_sign(step) is not None
        candidates, entries = pre.select(rule if are_ranks else lambda u: rule(R.ranked(u, step)[0]), by_rows=True)
        if bound > 0 and len(entries) < R.k * n:  # the few samples misled
            return pre.select(self.support_rule(p, pre.x.dtype, step), by_rows=False)
        ranks, _ = R.at(candidates.indices).ranked(entries, step)
        keep = top_k_mask(torch.maximum(ranks, mirror * ranks)[None], R.k * n)[0]
        return Pattern(*kept(candidates.offsets, candidates.indices, keep), n_columns=p), entries[keep]

    def _values(self, pattern: Pattern, at_support: Tensor, step: Any) -> Tensor:
        part = separable_part(self.current_regularizer)
        assert part is not None
        part = part.at(pattern.indices)
        if self.threshold is None:
            return part.prox_unchecked(at_support, step)  # type: ignore[no-any-return]
        cut = part.prox_unchecked(at_support.detach(), _detached(step))
        values: Tensor = Jump.apply(at_support, *self._window(pattern, step, at_support, cut))  # type: ignore[no-untyped-call]
        return values

    def _penalties(self, part: Separable, codes: Codes, at_support: Tensor, step: Any) -> Tensor:
        """Return w_i r(z_i) of every entry of the codes; with learned thresholds what a code costs on average.

        If an atom paid half the square of its own threshold, a larger threshold would cost more and grow further.
        """
        if self.threshold is None:
            return part.at(codes.pattern.indices).penalties(codes.values)  # type: ignore[no-any-return]
        window = self._window(codes.pattern, step, at_support, codes.values)
        cost = self._mean_cost()
        cost = cost if cost.ndim == 0 else torch.where(at_support > 0, cost[0], cost[1])
        return cost * Count.apply(at_support, *window)  # type: ignore[no-any-return, no-untyped-call]

    def _mean_cost(self) -> Tensor:
        """Return the mean over the atoms of half the square of their thresholds: one number, or one for each sign."""
        assert self.threshold is not None
        return 0.5 * self.threshold.detach().square().mean(-1)

    def _window(self, pattern: Pattern, step: Any, u: Tensor, z: Tensor) -> tuple[Any, ...]:
        r"""Return the thresholds :math:`\sqrt t\,\theta` at a pattern, z there, whether R is signed, and the width."""
        assert self.threshold is not None
        root = step**0.5
        signed = not self.regularizer.is_nonnegative
        thresholds = thresholds_at(self.threshold, pattern.indices, u) * root
        return thresholds, z, signed, self.bandwidth * float(_detached(root))


def _detached(step: Any) -> Any:
    return step.detach() if isinstance(step, Tensor) else step


class Activated(Encoder):
    """An encoder that ends with an :class:`Activation`, whose thresholds are a parameter where they are learned.

    Attributes
    ----------
    threshold : Tensor of shape (n_components,) or (2, n_components), or None
        For an L0 regularizer: one learnable hard threshold theta_i an atom, or one a sign, which sets the cost of a
        non-zero to theta_i^2 / 2. Kept in float32 or better, trained through the surrogate derivative of :class:`Jump`.
    bandwidth : float
        Width of the surrogate window around each threshold, in units of the codes.
    """

    threshold: Tensor | None
    bandwidth: float

    @property
    def activation(self) -> Activation:
        """The prox of R, as it is now."""
        return Activation(self.regularizer, self.threshold, self.bandwidth, self.training)

    @property
    def current_regularizer(self) -> Regularizer:
        """R with the learned thresholds as its weights."""
        return self.activation.current_regularizer

    @property
    def learns_thresholds(self) -> bool:
        """Whether thresholds are parameters, beside the weight of R."""
        return self.threshold is not None

    @torch.no_grad()
    def scale_weight(self, factor: float) -> None:
        """Multiply the weight of R; thresholds move by the square root."""
        if self.threshold is None:
            super().scale_weight(factor)
        else:
            self.threshold.mul_(math.sqrt(factor))
