"""The sparse autoencoder that is trained: an encoder, unit-norm atoms and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from proxsae.encoders import Encoder, Encoding
from proxsae.encoders.pre_activation import Columns
from proxsae.regularizers import Regularizer
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.scaling import Scaling


class SquaredNorms(torch.autograd.Function):
    """The squared norm of each row; no matrix but the gradient of the rows is written, and that once."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """Return one number a row."""
        ctx.save_for_backward(rows)
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return norms.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of the rows."""
        (rows,), (gradient,) = ctx.saved_tensors, gradients
        return rows * (2.0 * gradient)[:, None]  # type: ignore[no-any-return]


def row_squared_norms(rows: Tensor) -> Tensor:
    """Return the squared norm of each row."""
    norms: Tensor = SquaredNorms.apply(rows)  # type: ignore[no-untyped-call]
    return norms


@dataclass(frozen=True)
class Forward:
    """All that a loss may ask about a batch.

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_features)
        The input.
    y : Tensor of shape (n_samples, n_targets)
        The target; x but for transcoders.
    encoding : Encoding
        The codes of x, with gradients.
    residual : Tensor of shape (n_samples, n_targets)
        y - Z D - b - x S.
    atoms : Tensor of shape (n_components, n_targets)
        D.
    unused_for : integer Tensor of shape (n_components,)
        For how many samples no code has used each atom, before this batch.
    weight : Tensor of shape (n_samples,) or None
        How much each sample counts, on average 1 over the data; all alike where it is None.
    room_for_dead : int or None
        On a device: the largest number of dead atoms that a loss uses, since counting them at every step is slow. None:
        all dead atoms.
    every_for_dead : int
        A loss of the dead atoms uses one of so many samples.
    """

    x: Tensor
    y: Tensor
    encoding: Encoding
    residual: Tensor
    atoms: Tensor
    unused_for: Tensor
    weight: Tensor | None = None
    room_for_dead: int | None = None
    every_for_dead: int = 1

    def mean(self, of_samples: Tensor, every: int = 1) -> Tensor:
        """Return the weighted mean of one number a sample, or of one number for every `every`-th sample."""
        of_samples = of_samples if self.weight is None else self.weight[::every] * of_samples
        return of_samples.sum() / len(of_samples)


class Autoencoder(nn.Module):
    """x -> codes -> reconstruction Z D + b, or of a transcoder Z D + b + x S.

    Parameters
    ----------
    encoder : Encoder
    atoms : Tensor of shape (n_components, n_targets)
        D; rows of unit norm.
    bias : Tensor of shape (n_targets,)
        b.
    skip : Tensor of shape (n_features, n_targets), optional
        S.
    is_transcoder : bool
        What the codes decode to is not x.
    blocks : FeatureBlocks, optional
        The blocks of features that the codes decode to; one block by default.
    """

    unused_for: Tensor

    def __init__(
        self,
        encoder: Encoder,
        atoms: Tensor,
        bias: Tensor,
        skip: Tensor | None = None,
        *,
        is_transcoder: bool = False,
        blocks: FeatureBlocks | None = None,
    ) -> None:
        super().__init__()
        self.atoms = nn.Parameter(atoms.contiguous())  # kernels change matrices in place, row after row
        self.bias = nn.Parameter(bias)
        self.skip = None if skip is None else nn.Parameter(skip.contiguous())
        self.is_transcoder = is_transcoder
        self.blocks = FeatureBlocks.one(atoms.shape[1]) if blocks is None else blocks
        if sum(self.blocks.sizes) != atoms.shape[1]:
            raise ValueError(f"blocks of {self.blocks.sizes} features do not make up the {atoms.shape[1]} of the atoms")
        self.register_buffer("unused_for", torch.zeros(len(atoms), dtype=torch.int64, device=atoms.device))
        self.use(encoder)

    def use(self, encoder: Encoder) -> None:
        """Put an encoder in place; it shares D and b where it computes with them."""
        encoder.tie(self.atoms, self.bias)
        self.encoder = encoder

    def forward(
        self, x: Tensor, y: Tensor | None = None, weight: Tensor | None = None, noting: Columns | None = None
    ) -> Forward:
        """Return what the losses are computed from; the target y is x where it is not given.

        Pre-activations of the columns `noting` are kept for a loss that asks for them.
        """
        y = x if y is None else y
        encoding = self.encoder.encode(x) if noting is None else self.encoder.encode_noting(x, noting)
        residual = (y - encoding.codes.decode(self.atoms)).sub_(self.beside_codes(x))
        return Forward(x, y, encoding, residual, self.atoms, self.unused_for, weight)

    def beside_codes(self, x: Tensor) -> Tensor:
        """Return what a reconstruction holds beside Z D: b, or of a transcoder with a skip matrix b + x S."""
        return self.bias if self.skip is None else self.bias + x @ self.skip

    @torch.no_grad()
    def in_units(self, inputs: Scaling, targets: Scaling) -> Autoencoder:
        r"""Return the same autoencoder for raw data, given that this one takes normalised data.

        Atoms keep unit norm, so codes and R are rescaled instead: with s the scale of the targets, z_raw = s z,
        b_raw = s b + mean, and R_raw(z) = s^2 R(z / s), whose prox at s u is s times the prox of R at u. The objective
        is multiplied by s^2. With a skip matrix S_raw = S s / s_x and b_raw has its mean taken off.
        """
        encoder = self.encoder.in_units(inputs.mean, inputs.scale, targets.scale)
        bias = targets.scale * self.bias + targets.mean
        skip = None if self.skip is None else self.skip * (targets.scale / inputs.scale)
        bias = bias if skip is None else bias - inputs.mean @ skip
        kind: dict[str, Any] = {"is_transcoder": self.is_transcoder, "blocks": self.blocks}
        return Autoencoder(encoder, self.atoms.clone(), bias, skip, **kind).eval()


def initial_autoencoder(
    encoder: Encoder,
    R: Regularizer,
    n_components: int,
    n_features: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    learn_thresholds: bool = True,
    *,
    linear_map: Tensor | None = None,
    has_skip: bool = False,
    atoms: Tensor | None = None,
    blocks: FeatureBlocks | None = None,
) -> Autoencoder:
    """Return an autoencoder for normalised data: random unit atoms or those given, an encoder started there, b = 0.

    With `linear_map`, a matrix A of shape (n_inputs, n_features), the model is a transcoder: its encoder starts from
    the directions of D A^T, along which x A grows in the directions of D, and its skip matrix, if any, as A.
    """
    if atoms is None:
        atoms = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    blocks = FeatureBlocks.one(n_features) if blocks is None else blocks
    atoms = (atoms / blocks.norm(atoms)).to(dtype)  # one start for both precisions
    of_inputs = atoms if linear_map is None else torch.nn.functional.normalize(atoms @ linear_map.T)
    of_inputs = 0.1 * of_inputs if has_skip else of_inputs  # the skip matrix explains most of the targets already
    fitted = encoder.initial(R, of_inputs, learn_thresholds=learn_thresholds)
    skip = linear_map.clone() if linear_map is not None and has_skip else None
    bias = torch.zeros(n_features, dtype=dtype)
    return Autoencoder(fitted, atoms, bias, skip, is_transcoder=linear_map is not None, blocks=blocks)


def fitted_autoencoder(
    encoder: Encoder,
    atoms: Any,
    bias: Any,
    skip: Any = None,
    *,
    is_transcoder: bool = False,
    blocks: FeatureBlocks | None = None,
) -> Autoencoder:
    """Return the autoencoder of a fitted encoder, atoms, a bias and optionally a skip matrix: arrays of any kind.

    Raises
    ------
    TypeError, ValueError
        If they do not fit one another.
    """
    if not (isinstance(encoder, Encoder) and encoder.is_fitted):
        raise TypeError(f"encoder must be fitted, with a regularizer and parameters, got {encoder!r}")
    atoms, bias, skip = (_writable(part) for part in (atoms, bias, skip))
    like = next(encoder.parameters(), torch.as_tensor(atoms))
    if like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"encoder and atoms must be float32 or float64, got {str(like.dtype).removeprefix('torch.')}")
    atoms, bias = (torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in (atoms, bias))
    if atoms.ndim != 2 or bias.shape != atoms.shape[1:]:
        raise ValueError(
            "atoms must have shape (n_components, n_features) and bias (n_features,), got "
            f"{tuple(atoms.shape)} and {tuple(bias.shape)}"
        )
    skip = None if skip is None else torch.as_tensor(skip, dtype=like.dtype, device=like.device)
    if not all(_is_finite(part) for part in (atoms, bias, skip) if part is not None):
        raise ValueError("atoms and bias must be finite, got NaN or infinity")
    if skip is not None and not is_transcoder:
        raise ValueError("a matrix from x to its own reconstruction is no part of an autoencoder: skip is for targets")
    model = Autoencoder(encoder, atoms, bias, skip, is_transcoder=is_transcoder, blocks=blocks).eval()
    n_features = encoder.n_features
    if not is_transcoder and n_features != atoms.shape[1]:
        raise ValueError(f"the encoder takes {n_features} features, and the atoms have {atoms.shape[1]}")
    if skip is not None and skip.shape != (n_features, atoms.shape[1]):
        raise ValueError(f"skip must have shape {(n_features, atoms.shape[1])}, got {tuple(skip.shape)}")
    with torch.no_grad():
        width = encoder.codes(atoms.new_zeros(1, n_features)).pattern.n_columns
    if width != len(atoms):
        raise ValueError(f"the encoder gives codes of {width} components, and there are {len(atoms)} atoms")
    encoder.regularizer.check_width(width)
    return model


def _is_finite(numbers: Tensor) -> bool:
    """Whether all numbers are finite; a finite sum answers without an array of booleans."""
    return bool(numbers.sum().isfinite()) or bool(numbers.isfinite().all())


def _writable(a: Any) -> Any:
    """Return an array itself, or a copy of one that is read-only, as of a pickle that is mapped: Torch would warn."""
    return np.require(a, requirements="W") if isinstance(a, np.ndarray) else a
