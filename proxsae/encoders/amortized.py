"""The amortized encoder: one proximal step with a free matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from proxsae.encoders.base import Encoder, Encoding, check_tensors, separable_part
from proxsae.encoders.codes import Codes
from proxsae.encoders.thresholds import Count, Jump, initial_thresholds, with_thresholds
from proxsae.kernels.sparse import LinearAt, Pattern
from proxsae.kernels.top_k import pattern_of
from proxsae.regularizers import Regularizer, Separable

PRECISIONS = ("auto", "float32", "bfloat16")


class Amortized(Encoder):
    r"""z = prox_R(x W^T + b_e): what the field calls an SAE encoder.

    With W = t D and b_e = -t D b it is one proximal-gradient step of size t from z = 0 on
    :math:`\frac12 \|x - b - z D\|^2 + R(z)`, up to the step inside R; ReLU, JumpReLU, TopK and AbsTopK are its
    activations for four choices of R. :meth:`of` makes one from W and b_e.

    Parameters
    ----------
    bandwidth : float, default 0.5
        Where thresholds are learned: width of the surrogate window around each, in units of the codes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Of the factors of x W^T in training, whose sums are float32 in any case: "auto" is bfloat16 on CUDA devices that
        compute with it. Parameters, moments, thresholds and fitted codes keep the dtype of the data.

    Attributes
    ----------
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e.
    threshold : Tensor of shape (n_components,) or None
        For an L0 regularizer: one learnable hard threshold theta_i an atom, which sets the weight of the regularizer to
        theta_i^2 / 2. Kept in float32 or better, trained through the surrogate derivative of :class:`Jump`.
    """

    kind = "amortized"
    weight: Tensor
    bias: Tensor
    threshold: Tensor | None

    def __init__(self, bandwidth: float = 0.5, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
        self.precision = precision
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be positive, got {bandwidth!r}")
        self.bandwidth = bandwidth

    @classmethod
    def of(cls, R: Regularizer, weight: Tensor, bias: Tensor, threshold: Tensor | None = None, **options: Any) -> Self:
        """Return the encoder with these parameters, see the attributes for their shapes, and options."""
        encoder = cls(**options)
        encoder.regularizer = R
        encoder.weight = nn.Parameter(weight)
        encoder.bias = nn.Parameter(bias)
        encoder.threshold = None if threshold is None else nn.Parameter(threshold)
        return encoder

    def initial(self, R: Regularizer, atoms: Tensor, *, learn_thresholds: bool) -> Self:
        """Return the encoder with W = D and b_e = 0."""
        threshold = initial_thresholds(R, atoms) if learn_thresholds else None
        return self.of(R, atoms.clone(), torch.zeros_like(atoms[:, 0]), threshold, **self.get_params())

    def with_regularizer(self, R: Regularizer, *, learn_thresholds: bool) -> Self:
        """Return the encoder with the same W and b_e and another R."""
        weight, bias = self.weight.detach().clone(), self.bias.detach().clone()
        threshold = initial_thresholds(R, weight) if learn_thresholds else None
        return self.of(R, weight, bias, threshold, **self.get_params())

    def tensors(self) -> dict[str, Tensor]:
        """Return ``weight``, ``bias`` and, where it is learned, ``threshold``."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @classmethod
    def from_tensors(cls, R: Regularizer, tensors: Mapping[str, Tensor], **options: Any) -> Self:
        """Return the encoder with the parameters that :meth:`tensors` gave."""
        shape = tuple(tensors["weight"].shape) if "weight" in tensors else (0, 0)
        shapes = {"weight": shape if len(shape) == 2 else (0, 0), "bias": shape[:1]}
        shapes |= {"threshold": shape[:1]} if "threshold" in tensors else {}
        check_tensors(cls.kind, tensors, shapes)
        return cls.of(R, tensors["weight"], tensors["bias"], tensors.get("threshold"), **options)

    @torch.no_grad()
    def in_units(self, mean: Tensor, x_scale: float, z_scale: float) -> Self:
        r"""Return the same map in other units: with c the ratio of the scales, W c and :math:`s_z b_e - c W m`."""
        weight = self.weight * (z_scale / x_scale)
        R = self.current_regularizer.rescaled(z_scale)
        return self.of(R, weight, z_scale * self.bias - weight @ mean, **self.get_params())

    # --- codes -----------------------------------------------------------------------------------------------------

    def pre_activation(self, x: Tensor) -> Tensor:
        """Return u = x W^T + b_e, (n_samples, n_components)."""
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        codes: Tensor = self.current_regularizer.prox_unchecked(self.pre_activation(x))
        return codes

    def codes(self, x: Tensor) -> Codes:
        """Return the same codes sparse; forward and backward touch only the entries that are not zero."""
        if separable_part(self.regularizer) is None:
            return _from_dense(self(x))
        pattern, at_support = self._at_support(x, self._without_graph(x))
        return Codes(pattern, self._values(pattern, at_support))

    def encode(self, x: Tensor) -> Encoding:
        """Return the codes and their penalty, both with gradients.

        An indicator contributes 0 to the penalty: the prox meets its constraint. With learned thresholds the count has
        the surrogate derivative of :class:`Count`.
        """
        u = self._without_graph(x)
        part = separable_part(self.regularizer)
        if part is None:
            Z = self(x)
            codes, penalty = _from_dense(Z), self.regularizer.value_unchecked(Z).mean()
        else:
            pattern, at_support = self._at_support(x, u)
            codes = Codes(pattern, self._values(pattern, at_support))
            penalty = self._penalties(part, codes, at_support).sum() / max(1, pattern.n_rows)
        return Encoding(codes, penalty, self.regularizer, u, lambda pattern: self._linear_at(pattern, x, u))

    def _penalties(self, part: Separable, codes: Codes, at_support: Tensor) -> Tensor:
        """Return w_i r(z_i) of every entry of the codes."""
        if self.threshold is None:
            return part.at(codes.pattern.indices).penalties(codes.values)  # type: ignore[no-any-return]
        threshold = self.threshold[codes.pattern.indices]
        signed = not self.regularizer.is_nonnegative
        count = Count.apply(at_support, threshold, codes.values, signed, self.bandwidth)  # type: ignore[no-untyped-call]
        return 0.5 * threshold.detach() ** 2 * count  # type: ignore[no-any-return]

    @torch.no_grad()
    def _without_graph(self, x: Tensor) -> Tensor:
        """Return u, in training as a product of factors in the given precision."""
        can = x.is_cuda and x.dtype == torch.float32 and torch.cuda.is_bf16_supported()
        if not (self.training and can and self.precision != "float32"):
            return self.pre_activation(x)
        u = torch.mm(x.bfloat16(), self.weight.bfloat16().T, out_dtype=torch.float32)
        return u.add_(self.bias)

    def _linear_at(self, pattern: Pattern, x: Tensor, u: Tensor) -> Tensor:
        """Return u at a pattern, with gradients."""
        return LinearAt.apply(pattern, pattern.gather(u), x, self.weight, self.bias)  # type: ignore[no-untyped-call, no-any-return]

    def _at_support(self, x: Tensor, u: Tensor) -> tuple[Pattern, Tensor]:
        """Return where codes may be non-zero (in training, where they almost are too) and u there."""
        with torch.no_grad():
            if self.threshold is None:
                support = self.regularizer.support(u)
            else:
                margin = 0.5 * self.bandwidth if self.training else 0.0
                support = with_thresholds(self.regularizer, (self.threshold - margin).clamp(min=0)).support(u)
            pattern = Pattern(*support, n_columns=len(self.bias))
        return pattern, self._linear_at(pattern, x, u)

    def _values(self, pattern: Pattern, at_support: Tensor) -> Tensor:
        part = separable_part(self.current_regularizer)
        assert part is not None
        if self.threshold is None:
            return part.at(pattern.indices).prox_unchecked(at_support)  # type: ignore[no-any-return]
        cut = part.at(pattern.indices).prox_unchecked(at_support.detach())
        threshold, signed = self.threshold[pattern.indices], not self.regularizer.is_nonnegative
        values: Tensor = Jump.apply(at_support, threshold, cut, signed, self.bandwidth)  # type: ignore[no-untyped-call]
        return values

    # --- the weight of R -------------------------------------------------------------------------------------------

    @property
    def current_regularizer(self) -> Regularizer:
        """R with the weight that the learned thresholds stand for."""
        if self.threshold is None:
            return self.regularizer
        return with_thresholds(self.regularizer, self.threshold.detach())

    @property
    def learns_thresholds(self) -> bool:
        """Whether there is a threshold an atom."""
        return self.threshold is not None

    @torch.no_grad()
    def scale_weight(self, factor: float) -> None:
        """Multiply the weight of R; thresholds move by the square root."""
        if self.threshold is None:
            super().scale_weight(factor)
        else:
            self.threshold.mul_(math.sqrt(factor))

    @torch.no_grad()
    def l0_by_weight(self, x: Tensor) -> Callable[[float], float]:
        """Return the mean L0 of the codes of x as a function of a factor on the weight of R."""
        u = self.pre_activation(x)

        def l0(factor: float) -> float:
            if self.threshold is None:
                R = self.regularizer.scaled(factor)
            else:
                R = with_thresholds(self.regularizer, self.threshold.detach() * math.sqrt(factor))
            offsets, _ = R.support(u)
            return int(offsets[-1]) / len(x)

        return l0


def _from_dense(Z: Tensor) -> Codes:
    pattern = Pattern(*pattern_of(Z != 0), n_columns=Z.shape[1])
    return Codes(pattern, pattern.gather(Z))
