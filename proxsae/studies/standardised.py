"""Rows to train on, each standardised on its own: (x - mean(x)) / (std(x) + 1e-5), std with n - 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxsae.formats.parts import normalised


class StandardisedRows:
    """Rows of an activation store, or of another matrix that is read by rows, each standardised on its own.

    Their ``info`` says so, and with it the autoencoder that is fitted on them: what reads raw rows normalises them for
    it, or refuses it.
    """

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, np.dtype(np.float32)
        self.info = {**getattr(rows, "info", {}), "normalised_rows": "layer_norm"}

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows: NDArray[np.floating] = normalised(np.asarray(self.rows[key], np.float64), "layer_norm")[0]
        return rows.astype(np.float32)
