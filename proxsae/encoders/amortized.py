"""The amortized encoder: one proximal step with a free matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from proxsae.encoders.activation import Activated
from proxsae.encoders.base import Encoding, check_number, check_tensors
from proxsae.encoders.codes import Codes
from proxsae.encoders.pre_activation import Columns, PreActivation
from proxsae.encoders.thresholds import initial_thresholds, threshold_shape
from proxsae.kernels.memory import rows_at_once
from proxsae.regularizers import Regularizer

PRECISIONS = ("auto", "float32", "bfloat16")


@cache
def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device multiplies factors in bfloat16 itself; earlier ones emulate it."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


class Amortized(Activated):
    r"""z = prox_R(x W^T + b_e): what the field calls an SAE encoder.

    With W = t D and b_e = -t D b it is one proximal-gradient step of size t from z = 0 on
    :math:`\frac12 \|x - b - z D\|^2 + R(z)`, up to the step inside R; ReLU, JumpReLU, TopK and AbsTopK are its
    activations for four choices of R. :meth:`of` makes one from W and b_e.

    Parameters
    ----------
    bandwidth : float, default 0.5
        Width of the surrogate window around each learned threshold, in units of the codes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Precision of the factors of x W^T in training; their sums are float32. "auto" is bfloat16 on CUDA devices that
        compute with it. Parameters, moments, thresholds and fitted codes keep the dtype of the data. A CPU that
        multiplies in bfloat16 always does so, to find the few entries that it then computes in float32.

    Attributes
    ----------
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e.
    threshold : Tensor of shape (n_components,) or None
        For an L0 regularizer: one learnable hard threshold an atom.
    """

    name = "amortized"
    weight: Tensor
    bias: Tensor

    def __init__(self, bandwidth: float = 0.5, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
        self.precision = precision
        check_number("bandwidth", bandwidth)
        self.bandwidth = bandwidth

    @classmethod
    def of(cls, R: Regularizer, weight: Tensor, bias: Tensor, threshold: Tensor | None = None, **options: Any) -> Self:
        """Return the encoder with these parameters, whose shapes are those of the attributes, and options."""
        encoder = cls(**options)
        encoder.regularizer = R
        encoder.weight = nn.Parameter(weight.contiguous())  # kernels change it in place, row after row
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
        shapes |= {"threshold": threshold_shape(R, shape[0])} if "threshold" in tensors else {}
        check_tensors(cls.name, tensors, shapes)
        return cls.of(R, tensors["weight"], tensors["bias"], tensors.get("threshold"), **options)

    @torch.no_grad()
    def in_units(self, mean: Tensor, x_scale: float, z_scale: float) -> Self:
        r"""Return the same map in other units: with c the ratio of the scales, W c and :math:`s_z b_e - c W m`."""
        weight = self.weight * (z_scale / x_scale)
        R = self.current_regularizer.rescaled(z_scale)
        return self.of(R, weight, z_scale * self.bias - weight @ mean, **self.get_params())

    @torch.no_grad()
    def draw_to(self, atoms: Tensor, share: float) -> None:
        """Shrink by `share` the part of each row of W that is orthogonal to its atom, where non-zeros keep their size.

        Non-zeros keep their size under a scale-free R and under learned thresholds. Where R shrinks codes, the encoder
        would lose more than it gains.
        """
        if not self.regularizer.is_scale_free and self.threshold is None:
            return
        size = rows_at_once(atoms)
        parts = torch.split(self.weight.detach(), size), torch.split(atoms.detach(), size)
        for rows, along in zip(*parts, strict=True):
            sizes = (rows * along).sum(1, keepdim=True) / along.square().sum(1, keepdim=True)
            rows.mul_(1.0 - share).addcmul_(share * sizes, along)

    # --- codes -----------------------------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """How many features x has."""
        return int(self.weight.shape[1])

    def pre_activation(self, x: Tensor) -> Tensor:
        """Return u = x W^T + b_e, (n_samples, n_components)."""
        return PreActivation(x, self.weight, self.bias).with_graph()

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        codes: Tensor = self.current_regularizer.prox_unchecked(self.pre_activation(x))
        return codes

    def codes(self, x: Tensor) -> Codes:
        """Return the codes as sparse :class:`Codes`; forward and backward touch only the entries that are not zero."""
        return self.activation.codes(self._argument(x))

    def encode(self, x: Tensor) -> Encoding:
        """Return the codes and their penalty, both with gradients."""
        return self.activation.encoding(self._argument(x))

    def encode_noting(self, x: Tensor, columns: Columns) -> Encoding:
        """Return :meth:`encode`, and keep u of some columns for a loss."""
        return self.activation.encoding(replace(self._argument(x), noted=columns))

    def _argument(self, x: Tensor) -> PreActivation:
        """Return u, in training as a product of factors in the given precision."""
        can = x.is_cuda and x.dtype == torch.float32 and _computes_in_bfloat16(x.device)
        in_bfloat16 = self.training and can and self.precision != "float32"
        return PreActivation(x, self.weight, self.bias, in_bfloat16=in_bfloat16)

    @torch.no_grad()
    def l0_by_weight(self, x: Tensor) -> Callable[[float], Tensor]:
        """Return the L0 of the code of each row of x as a function of a factor on the weight of R."""
        u = self.pre_activation(x)
        return lambda factor: self.activation.scaled(factor).support(u).offsets.diff()
