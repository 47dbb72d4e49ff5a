"""The sparse autoencoder that is trained: an encoder, unit-norm atoms and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from proxsae.encoders import Encoder, Encoding
from proxsae.regularizers import Regularizer
from proxsae.training.scaling import Scaling


@dataclass(frozen=True)
class Forward:
    """All that a loss may ask about a batch.

    Attributes
    ----------
    x, y : Tensor of shape (n_samples, n_features)
        The input and the target; the same but for transcoders.
    encoding : Encoding
        The codes of x, with gradients.
    residual : Tensor of shape (n_samples, n_features)
        y - Z D - b.
    atoms : Tensor of shape (n_components, n_features)
        D.
    unused_for : integer Tensor of shape (n_components,)
        For how many samples no code has used each atom, before this batch.
    """

    x: Tensor
    y: Tensor
    encoding: Encoding
    residual: Tensor
    atoms: Tensor
    unused_for: Tensor

    @property
    def squared_error(self) -> Tensor:
        """The mean squared norm of the residual."""
        return self.residual.square().sum() / len(self.y)


class Autoencoder(nn.Module):
    """x -> codes -> reconstruction Z D + b.

    Parameters
    ----------
    encoder : Encoder
    atoms : Tensor of shape (n_components, n_features)
        D; rows of unit norm.
    bias : Tensor of shape (n_features,)
        b.
    """

    unused_for: Tensor

    def __init__(self, encoder: Encoder, atoms: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.atoms = nn.Parameter(atoms)
        self.bias = nn.Parameter(bias)
        self.register_buffer("unused_for", torch.zeros(len(atoms), dtype=torch.int64, device=atoms.device))
        self.use(encoder)

    def use(self, encoder: Encoder) -> None:
        """Put an encoder in place; it shares D and b where it computes with them."""
        encoder.tie(self.atoms, self.bias)
        self.encoder = encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> Forward:
        """Return what the losses are computed from; the target y is x where it is not given."""
        y = x if y is None else y
        encoding = self.encoder.encode(x)
        residual = y - encoding.codes.decode(self.atoms) - self.bias
        return Forward(x, y, encoding, residual, self.atoms, self.unused_for)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the reconstruction of x, or what a transcoder makes of it."""
        return self.encoder.codes(x).decode(self.atoms) + self.bias

    @torch.no_grad()
    def in_units(self, inputs: Scaling, targets: Scaling) -> Autoencoder:
        r"""Return the same autoencoder for raw data, given that this one takes normalised data.

        Atoms keep unit norm, so codes and R are rescaled instead: with s the scale of the targets, z_raw = s z,
        b_raw = s b + mean, and R_raw(z) = s^2 R(z / s), whose prox at s u is s times the prox of R at u. The objective
        is multiplied by s^2.
        """
        encoder = self.encoder.in_units(inputs.mean, inputs.scale, targets.scale)
        bias = targets.scale * self.bias + targets.mean
        return Autoencoder(encoder, self.atoms.clone(), bias).eval()


def initial_autoencoder(
    encoder: Encoder,
    R: Regularizer,
    n_components: int,
    n_features: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    learn_thresholds: bool = True,
) -> Autoencoder:
    """Return an autoencoder with random unit atoms, the encoder started from them, and b = 0, for normalised data."""
    atoms = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    atoms = (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).to(dtype)  # one start for both precisions
    fitted = encoder.initial(R, atoms, learn_thresholds=learn_thresholds)
    return Autoencoder(fitted, atoms, torch.zeros(n_features, dtype=dtype))


def fitted_autoencoder(encoder: Encoder, atoms: Any, bias: Any) -> Autoencoder:
    """Return the autoencoder of a fitted encoder, atoms and a bias, arrays of any kind.

    Raises
    ------
    TypeError, ValueError
        If they do not fit one another.
    """
    if not (isinstance(encoder, Encoder) and encoder.is_fitted):
        raise TypeError(f"encoder must be fitted, with a regularizer and parameters, got {encoder!r}")
    like = next(encoder.parameters(), torch.as_tensor(atoms))
    atoms, bias = (torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in (atoms, bias))
    if atoms.ndim != 2 or bias.shape != atoms.shape[1:]:
        raise ValueError(
            "atoms must have shape (n_components, n_features) and bias (n_features,), got "
            f"{tuple(atoms.shape)} and {tuple(bias.shape)}"
        )
    if not bool(torch.isfinite(atoms).all() & torch.isfinite(bias).all()):
        raise ValueError("atoms and bias must be finite, got NaN or infinity")
    model = Autoencoder(encoder, atoms, bias).eval()
    with torch.no_grad():
        width = encoder.codes(atoms.new_zeros(1, atoms.shape[1])).pattern.n_columns
    if width != len(atoms):
        raise ValueError(f"the encoder gives codes of {width} components, and there are {len(atoms)} atoms")
    encoder.regularizer.check_width(width)
    return model
