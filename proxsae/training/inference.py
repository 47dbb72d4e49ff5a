"""What a fitted autoencoder is used for, block by block of rows: codes, explained variance, amortization gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.data.rows import Rows
from proxsae.encoders import Codes, Encoder
from proxsae.metrics import ReconstructionSums
from proxsae.training.autoencoder import Autoencoder

GAP_ENTRIES = 2**24  # of a dense block of codes


@torch.no_grad()
def encoded(encoder: Encoder, rows: Rows, size: int) -> Iterator[tuple[Tensor, Codes]]:
    """Yield blocks of `size` rows, as tensors where the encoder is, and their codes."""
    for block in rows.blocks(size):
        x = rows.read(block, encoder.dtype, encoder.device)
        yield x, encoder.codes(x)


def codes(rows: Rows, encoder: Encoder, size: int) -> Any:
    """Return the codes of all rows as a CSR matrix, in the precision of the rows."""
    from scipy.sparse import vstack

    dtype = str(rows.dtype).removeprefix("torch.")
    return vstack([Z.to_csr().astype(dtype, copy=False) for _, Z in encoded(encoder, rows, size)], format="csr")


def explained_variance(rows: Rows, model: Autoencoder, size: int) -> float:
    """Return 1 - FVU of the reconstructions, see :mod:`proxsae.metrics`."""
    sums, D, b = ReconstructionSums(), model.atoms.detach(), model.bias.detach()
    for x, Z in encoded(model.encoder, rows, size):
        sums.add(x.cpu().numpy(), (Z.decode(D) + b).cpu().numpy(), Z.to_csr())
    return float(sums.result()["explained_variance"])


def amortization_gap(rows: Rows, model: Autoencoder) -> Any:
    """Return F(z_encoder) - F(z_solver) of each row, a float64 array; the solver starts at the code of the encoder."""
    from proxsae.solvers import solve

    D, b, R = model.atoms.detach(), model.bias.detach(), model.encoder.current_regularizer
    gaps = []
    for x, sparse in encoded(model.encoder, rows, max(1, GAP_ENTRIES // len(D))):
        Z = sparse.to_dense()
        encoder_objective = 0.5 * (x - sparse.decode(D) - b).double().square().sum(1) + R.value(Z)
        gaps.append(encoder_objective - solve(x, D, R, intercept=b, init=Z).objective)
    return np.concatenate([gap.cpu().numpy() for gap in gaps])
