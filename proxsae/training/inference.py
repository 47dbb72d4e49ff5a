"""What a fitted estimator is used for, block by block of rows: codes, explained variance, amortization gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from proxsae.data.rows import Rows, checked_rows, evenly_spaced, torch_device
from proxsae.encoders import Codes, Encoder
from proxsae.metrics import ReconstructionSums
from proxsae.training.autoencoder import Autoencoder, fitted_autoencoder
from proxsae.training.sparsity import WeightControl

GAP_ENTRIES = 2**24  # of a dense block of codes
N_FOR_WEIGHT = 4096  # rows on which the weight of R is set


def model_of(sae: Any) -> Autoencoder:
    """Return the autoencoder of the fitted attributes, on the device that the parameter names."""
    check_is_fitted(sae)
    return fitted_autoencoder(sae.encoder_.to(torch_device(sae.device)), sae.components_, sae.intercept_)


def model_and_rows(sae: Any, X: Any) -> tuple[Autoencoder, Rows]:
    """Return the autoencoder, and X as rows that fit it."""
    check_is_fitted(sae)
    rows = checked_rows(sae, X, reset=False)
    return model_of(sae), rows


def codes(sae: Any, X: Any) -> Any:
    """Return the codes of X as a CSR matrix, in the precision of X."""
    from scipy.sparse import vstack

    model, rows = model_and_rows(sae, X)
    dtype = str(rows.dtype).removeprefix("torch.")
    parts = [Z.to_csr().astype(dtype, copy=False) for _, Z in encoded(model.encoder, rows, sae.batch_size)]
    return vstack(parts, format="csr")


def explained_variance(sae: Any, X: Any) -> float:
    """Return 1 - FVU of the reconstructions, see :mod:`proxsae.metrics`."""
    model, rows = model_and_rows(sae, X)
    sums, D, b = ReconstructionSums(), model.atoms.detach(), model.bias.detach()
    for x, Z in encoded(model.encoder, rows, sae.batch_size):
        sums.add(x.cpu().numpy(), (Z.decode(D) + b).cpu().numpy(), Z.to_csr())
    return float(sums.result()["explained_variance"])


def amortization_gap(sae: Any, X: Any) -> Any:
    """Return F(z_encoder) - F(z_solver) of each row, a float64 array; the solver starts at the code of the encoder."""
    from proxsae.solvers import solve

    model, rows = model_and_rows(sae, X)
    D, b, R = model.atoms.detach(), model.bias.detach(), model.encoder.current_regularizer
    gaps = []
    for x, sparse in encoded(model.encoder, rows, max(1, GAP_ENTRIES // len(D))):
        Z = sparse.to_dense()
        encoder_objective = 0.5 * (x - sparse.decode(D) - b).double().square().sum(1) + R.value(Z)
        gaps.append(encoder_objective - solve(x, D, R, intercept=b, init=Z).objective)
    return np.concatenate([gap.cpu().numpy() for gap in gaps])


def calibrate(sae: Any, X: Any) -> None:
    """Set the weight of R so that codes of X have the target L0, and that of a training that goes on along with it."""
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
