"""The amortized encoder: one proximal step with a free matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxsae.encoders.codes import Codes
from proxsae.encoders.thresholds import Count, Jump, with_thresholds
from proxsae.kernels.sparse import LinearAt, Pattern
from proxsae.kernels.top_k import pattern_of
from proxsae.regularizers import Cardinality, Regularizer, Separable


class Amortized(nn.Module):
    r"""z = prox_R(x W^T + b_e): what the field calls an SAE encoder.

    With W = t D and b_e = -t D b it is one proximal-gradient step of size t from z = 0 on
    :math:`\frac12 \|x - b - z D\|^2 + R(z)`, up to the step inside R; ReLU, JumpReLU, TopK and AbsTopK are its
    activations for four choices of R.

    Parameters
    ----------
    regularizer : Regularizer
        Its prox is the activation.
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e.
    threshold : Tensor of shape (n_components,), optional
        For an L0 regularizer: one learnable hard threshold theta_i an atom, which sets the weight of the regularizer to
        theta_i^2 / 2. Kept in float32 or better, trained through the surrogate derivative of :class:`Jump`.
    bandwidth : float, default 0.5
        Width of the surrogate window around a threshold, in units of the codes.
    """

    def __init__(
        self,
        regularizer: Regularizer,
        weight: Tensor,
        bias: Tensor,
        threshold: Tensor | None = None,
        bandwidth: float = 0.5,
    ) -> None:
        super().__init__()
        self.regularizer = regularizer
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.threshold = None if threshold is None else nn.Parameter(threshold)
        self.bandwidth = bandwidth

    @property
    def current_regularizer(self) -> Regularizer:
        """R with the weight that the learned thresholds stand for."""
        if self.threshold is None:
            return self.regularizer
        return with_thresholds(self.regularizer, self.threshold.detach())

    def pre_activation(self, x: Tensor) -> Tensor:
        """Return u = x W^T + b_e, (n_samples, n_components)."""
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        codes: Tensor = self.current_regularizer.prox_unchecked(self.pre_activation(x))
        return codes

    def codes(self, x: Tensor, u: Tensor | None = None) -> Codes:
        """Return the same codes sparse; forward and backward touch only the entries that are not zero.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
        u : Tensor of shape (n_samples, n_components), optional
            The pre-activation of x where the caller has it already.
        """
        if separable_part(self.regularizer) is None:
            return _from_dense(self(x))
        pattern, at_support = self._at_support(x, u)
        return Codes(pattern, self._values(pattern, at_support))

    def penalized_codes(self, x: Tensor, u: Tensor | None = None) -> tuple[Codes, Tensor]:
        """Return the codes and the mean over the samples of R(z), both with gradients.

        An indicator contributes 0: the prox meets its constraint. With learned thresholds the count has the surrogate
        derivative of :class:`Count`.
        """
        part = separable_part(self.regularizer)
        if part is None:
            Z = self(x)
            return _from_dense(Z), self.regularizer.value_unchecked(Z).mean()
        pattern, at_support = self._at_support(x, u)
        values = self._values(pattern, at_support)
        if self.threshold is not None:
            threshold = self.threshold[pattern.indices]
            signed = not self.regularizer.is_nonnegative
            count = Count.apply(at_support, threshold, values, signed, self.bandwidth)  # type: ignore[no-untyped-call]
            penalties = 0.5 * threshold.detach() ** 2 * count
        else:
            penalties = part.at(pattern.indices).penalties(values)
        return Codes(pattern, values), penalties.sum() / max(1, pattern.n_rows)

    def _at_support(self, x: Tensor, u: Tensor | None) -> tuple[Pattern, Tensor]:
        """Return where codes may be non-zero (in training, where they almost are too) and u there."""
        with torch.no_grad():
            u = self.pre_activation(x) if u is None else u.detach()
            if self.threshold is None:
                support = self.regularizer.support(u)
            else:
                margin = 0.5 * self.bandwidth if self.training else 0.0
                support = with_thresholds(self.regularizer, (self.threshold - margin).clamp(min=0)).support(u)
            pattern = Pattern(*support, n_columns=len(self.bias))
            entries = pattern.gather(u)
        at_support: Tensor = LinearAt.apply(pattern, entries, x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return pattern, at_support

    def _values(self, pattern: Pattern, at_support: Tensor) -> Tensor:
        part = separable_part(self.current_regularizer)
        assert part is not None
        if self.threshold is None:
            return part.at(pattern.indices).prox_unchecked(at_support)  # type: ignore[no-any-return]
        cut = part.at(pattern.indices).prox_unchecked(at_support.detach())
        threshold, signed = self.threshold[pattern.indices], not self.regularizer.is_nonnegative
        values: Tensor = Jump.apply(at_support, threshold, cut, signed, self.bandwidth)  # type: ignore[no-untyped-call]
        return values


def separable_part(regularizer: Regularizer) -> Separable | None:
    """Return the scalar prox that acts on the selected coordinates, or None where coordinates interact."""
    if isinstance(regularizer, Cardinality):
        return regularizer.separable
    return regularizer if isinstance(regularizer, Separable) else None


def _from_dense(Z: Tensor) -> Codes:
    pattern = Pattern(*pattern_of(Z != 0), n_columns=Z.shape[1])
    return Codes(pattern, pattern.gather(Z))
