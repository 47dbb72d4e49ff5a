"""The common parts of the sparse autoencoders of all libraries: two matrices, two biases, one of six activations.

In all of them u = x W^T + b_e, z = activation(u), and the reconstruction is z D + b, of a transcoder z D + b + x S.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Activation = Literal["relu", "jumprelu", "topk", "abstopk", "groupmax", "topk_without_relu"]
Rows = Literal["raw", "layer_norm", "unit_mean_square"]
FORMULAS: dict[Rows, str] = {
    "layer_norm": "(x - mean(x)) / (std(x) + 1e-5), std with n - 1",
    "unit_mean_square": "sqrt(n_features) * x / norm(x)",
}


def normalised(x: Any, rows: Rows) -> tuple[Any, Any, Any]:
    """Return a row or rows x', each normalised by itself by one of the :data:`FORMULAS`; shift + scale x' undoes it."""
    if rows == "layer_norm":
        shift, std = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
        return (x - shift) / (std + 1e-5), shift, std
    scale = np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.shape[-1])
    return x / scale, np.zeros_like(scale), scale


@dataclass(frozen=True)
class Parts:
    """A sparse autoencoder between a file and :class:`~proxsae.ProxSAE`.

    Attributes
    ----------
    weight : Tensor of shape (n_components, n_features)
        W.
    bias : Tensor of shape (n_components,)
        b_e, which includes whatever a library subtracts from x.
    atoms : Tensor of shape (n_components, n_features)
        D, of any norm.
    intercept : Tensor of shape (n_features,)
        b.
    activation : {"relu", "jumprelu", "topk", "abstopk", "groupmax", "topk_without_relu"}
        max(u, 0); u where it exceeds both 0 and its threshold; the k largest u where they are positive; the k largest
        in modulus, with their signs; the largest of each of k blocks, where it is positive; the k largest u, whatever
        their sign, which is no prox.
    k : int or None
    threshold : Tensor of shape (n_components,) or None
        The thresholds of "jumprelu", >= 0.
    rows : {"raw", "layer_norm", "unit_mean_square"}
        The normalisation of each row before the encoder, which is undone in the reconstruction: no matrix can do that.
    unscaled : str or None
        The name that the file has for a scaling of all rows whose factor it does not state; see :meth:`of_scaled_rows`.
    provenance : dict
        The provenance of the activations by the file: ``model``, ``site``, ``context_length``.
    regularizer : str or None
        The text of R, where our library wrote the file and R has a text.
    is_transcoder : bool
        The codes of x decode to something else, so that D and b may have another width than x.
    skip : Tensor of shape (n_features, n_targets) or None
        S, of a transcoder.
    """

    weight: Tensor
    bias: Tensor
    atoms: Tensor
    intercept: Tensor
    activation: Activation
    k: int | None = None
    threshold: Tensor | None = None
    rows: Rows = "raw"
    unscaled: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    regularizer: str | None = None
    is_transcoder: bool = False
    skip: Tensor | None = None

    def overflow(self) -> str | None:
        """Return the name of a tensor that is not finite, or a threshold whose weight of L0 is not; None if all are."""
        tensors = {name: getattr(self, name) for name in ("weight", "bias", "atoms", "intercept", "skip")}
        tensors["threshold"] = None if self.threshold is None else self.threshold * (0.5 * self.threshold)
        return next((n for n, t in tensors.items() if t is not None and not bool(torch.isfinite(t).all())), None)

    def of_scaled_rows(self, scale: float) -> Parts:
        """Return parts for raw rows, given that these parts are for rows times `scale`."""
        atoms, intercept = self.atoms / scale, self.intercept / scale
        return replace(self, weight=scale * self.weight, atoms=atoms, intercept=intercept, unscaled=None)

    @property
    def bias_of_centred(self) -> Tensor:
        """b_e + W b: the bias for libraries that subtract b from x first."""
        return shifted(self.bias, self.weight, self.intercept)


def shifted(bias: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Return bias + W offset, summed in float64."""
    products = [block.double() @ offset.double() for block in torch.split(weight, 4096)]  # no copy of a large W
    return (bias.double() + torch.cat(products)).to(bias.dtype)


def with_unit_atoms(weight: Tensor, bias: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters with unit atoms, whose norms move into the codes; an atom of zeros is never used."""
    norms = torch.linalg.vector_norm(atoms, dim=1)
    return norms[:, None] * weight, norms * bias, atoms / torch.where(norms > 0, norms, 1.0)[:, None]


def gated(weight: Tensor, gate: Tensor, log_gain: Tensor, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Return W and the thresholds of the JumpReLU that a gated autoencoder is; its bias is that of the magnitude.

    The gate is open where a = x W^T + gate > 0, and the code is m = exp(r) x W^T + magnitude where m is positive. Hence
    the gate is open where m > magnitude - exp(r) gate.
    """
    gain = log_gain.exp()
    return gain[:, None] * weight, magnitude - gain * gate


def positive_part(threshold: Tensor) -> Tensor:
    """Return max(threshold, 0): where ReLU is applied as well, a negative threshold is 0."""
    return torch.clamp(threshold, min=0.0)
