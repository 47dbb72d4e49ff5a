"""What a fitted estimator is used for, block by block of rows: codes, reconstructions, explained variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from proxsae.data.rows import Rows, checked_rows, torch_device, with_targets, with_weights
from proxsae.encoders import Codes, Encoder
from proxsae.formulas.arrays import name_of_dtype, to_numpy
from proxsae.formulas.integers import evenly_spaced
from proxsae.metrics import ReconstructionSums
from proxsae.training.autoencoder import Autoencoder, fitted_autoencoder
from proxsae.training.sparsity import WeightControl

N_FOR_WEIGHT = 4096  # rows on which the weight of R is set


def model_of(sae: Any) -> Autoencoder:
    """Return the autoencoder of the fitted attributes, on the device that the parameter names."""
    check_is_fitted(sae)
    encoder = sae.encoder_.to(torch_device(sae.device))
    parts = (encoder, sae.components_, sae.intercept_, sae.skip_)
    return fitted_autoencoder(*parts, is_transcoder=sae.is_transcoder_, blocks=sae.blocks_)


def model_and_rows(sae: Any, X: Any) -> tuple[Autoencoder, Rows]:
    """Return the autoencoder and X as rows that fit it; rows of a crosscoder are in the units of its blocks."""
    check_is_fitted(sae)
    rows, model = checked_rows(sae, X, reset=False), model_of(sae)
    return model, rows if model.is_transcoder else rows.in_units(model.blocks.units)


def model_and_pairs(sae: Any, X: Any, Y: Any) -> tuple[Autoencoder, Rows]:
    """Return the autoencoder and X as rows that fit it, with the targets Y where it is a transcoder."""
    model, rows = model_and_rows(sae, X)
    if not model.is_transcoder:  # Y is that of another step in a pipeline
        return model, rows
    rows = with_targets(rows, Y).in_units(model.blocks.units)
    if not rows.has_targets:
        raise ValueError("the fitted model was trained with targets Y, of shape (n_samples, n_targets): give Y")
    if rows.targets.shape[1] != model.atoms.shape[1]:
        raise ValueError(
            f"Y has {rows.targets.shape[1]} features, but the fitted model is expecting {model.atoms.shape[1]}"
        )
    return model, rows


def codes(sae: Any, X: Any) -> Any:
    """Return the codes of X as a CSR matrix, in the precision of X."""
    from scipy.sparse import vstack

    model, rows = model_and_rows(sae, X)
    dtype = name_of_dtype(rows.dtype)
    parts = [Z.to_csr().astype(dtype, copy=False) for _, Z in encoded(model.encoder, rows, sae.batch_size)]
    return vstack(parts, format="csr")


@torch.no_grad()
def predictions(sae: Any, X: Any) -> Any:
    """Return what the codes of X decode to, with the skip connection of a transcoder, as an array."""
    model, rows = model_and_rows(sae, X)
    blocks = encoded(model.encoder, rows, sae.batch_size)
    dtype = name_of_dtype(rows.dtype)
    decoded = np.concatenate([to_numpy(Z.decode(model.atoms) + model.beside_codes(x)) for x, Z in blocks])
    return model.blocks.in_data_units(decoded).astype(dtype, copy=False)


@torch.no_grad()
def explained_variance(sae: Any, X: Any, Y: Any, sample_weight: Any = None) -> float:
    """Return 1 - FVU of the reconstructions, see :mod:`proxsae.metrics`."""
    model, rows = model_and_pairs(sae, X, Y)
    rows = with_weights(rows, sample_weight)
    sums = ReconstructionSums()
    blocks = zip(rows.blocks(sae.batch_size), encoded_pairs(model.encoder, rows, sae.batch_size), strict=True)
    for block, (x, y, Z) in blocks:
        weights = None if rows.weights is None else rows.weights[block]
        sums.add(to_numpy(y), to_numpy(Z.decode(model.atoms) + model.beside_codes(x)), Z.to_csr(), weights)
    return float(sums.result()["explained_variance"])


def calibrate(sae: Any, X: Any) -> None:
    """Set the weight of R, in the model and in the training that it keeps, so that codes of X have the target L0."""
    model, rows = model_and_rows(sae, X)
    if sae.target_l0 is None:
        raise ValueError("calibrate needs a model with target_l0")
    encoder = model.encoder
    x = rows.read(evenly_spaced(len(rows), N_FOR_WEIGHT), encoder.dtype, encoder.device)
    factor = WeightControl(sae.target_l0).meet(encoder, x)
    if sae._training is not None:
        sae._training.model.encoder.scale_weight(factor)


@torch.no_grad()
def encoded(encoder: Encoder, rows: Rows, size: int) -> Iterator[tuple[Tensor, Codes]]:
    """Yield blocks of `size` rows, as tensors where the encoder is, and their codes."""
    for block in rows.blocks(size):
        x = rows.read(block, encoder.dtype, encoder.device)
        yield x, encoder.codes(x)


@torch.no_grad()
def encoded_pairs(encoder: Encoder, rows: Rows, size: int) -> Iterator[tuple[Tensor, Tensor, Codes]]:
    """Yield blocks of `size` rows, their targets and their codes."""
    blocks = zip(rows.blocks(size), encoded(encoder, rows, size), strict=True)
    for block, (x, Z) in blocks:
        yield x, rows.targets.read(block, x.dtype, x.device) if rows.has_targets else x, Z
