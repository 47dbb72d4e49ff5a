"""The sparse autoencoder that is trained: an encoder, unit-norm atoms and a bias, in normalised units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxsae.encoders import Amortized
from proxsae.encoders.thresholds import takes_thresholds
from proxsae.regularizers import L0, Cardinality, Regularizer, Separable


class SparseAutoencoder(nn.Module):
    """x -> codes -> reconstruction Z D + b.

    Parameters
    ----------
    encoder : Amortized
    atoms : Tensor of shape (n_components, n_features)
        D; rows of unit norm.
    bias : Tensor of shape (n_features,)
        b.
    """

    def __init__(self, encoder: Amortized, atoms: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.atoms = nn.Parameter(atoms)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of x."""
        return self.encoder.codes(x).decode(self.atoms) + self.bias


def initial_autoencoder(
    regularizer: Regularizer,
    n_components: int,
    n_features: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    learn_thresholds: bool = True,
) -> SparseAutoencoder:
    """Return an autoencoder with random unit atoms, W = D, and zero biases, for data centred and scaled."""
    atoms = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    atoms = (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).to(dtype)  # one start for both precisions
    threshold = None
    if learn_thresholds and takes_thresholds(regularizer):
        weight = next(term.weight for term in regularizer.terms if isinstance(term, L0))
        threshold = torch.as_tensor(weight, dtype=dtype).mul(2).sqrt().expand(n_components).clone()
    encoder = Amortized(regularizer, atoms.clone(), torch.zeros(n_components, dtype=dtype), threshold)
    return SparseAutoencoder(encoder, atoms, torch.zeros(n_features, dtype=dtype))


@torch.no_grad()
def in_data_units(model: SparseAutoencoder, mean: Tensor, scale: float) -> SparseAutoencoder:
    r"""Return the same autoencoder for raw data, given that it was trained on x' = (x - mean) / scale.

    Atoms keep unit norm, so codes and R are rescaled instead: with s the scale, W_raw = W,
    :math:`b_{e,raw} = s\,b_e - W m`, z_raw = s z, b_raw = s b + m, and R_raw(z) = s^2 R(z / s), whose prox at s u is s
    times the prox of R at u. The objective is multiplied by s^2.
    """
    encoder = model.encoder
    bias = scale * encoder.bias - encoder.weight @ mean
    raw = Amortized(encoder.current_regularizer.rescaled(scale), encoder.weight.clone(), bias)
    return SparseAutoencoder(raw, model.atoms.clone(), scale * model.bias + mean).eval()


@torch.no_grad()
def in_normalised_units(model: SparseAutoencoder, mean: Tensor, scale: float) -> SparseAutoencoder:
    """Return the inverse of :func:`in_data_units`: a fitted autoencoder, ready to be trained further."""
    encoder = model.encoder
    bias = (encoder.bias + encoder.weight @ mean) / scale
    normalised = Amortized(encoder.regularizer.rescaled(1 / scale), encoder.weight.clone(), bias)
    return SparseAutoencoder(normalised, model.atoms.clone(), (model.bias - mean) / scale)


def per_sample(regularizer: Regularizer, smallest_gain: float) -> Separable:
    """Return the regularizer that frees a coordinate where its gain exceeds the one a batch demanded on average."""
    assert isinstance(regularizer, Cardinality)
    threshold: Regularizer = smallest_gain * L0()
    for term in regularizer.separable.terms:
        threshold = threshold + term
    assert isinstance(threshold, Separable)
    return threshold
