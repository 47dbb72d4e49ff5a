"""Batches of rows in the units of a training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from proxsae.data.rows import BatchOrder, Rows
from proxsae.training.state import TrainingState


class NormalisedBatches:
    """Batches of rows in the units of a training, the targets equal to the inputs.

    Parameters
    ----------
    rows : Rows
    batch_size : int
    state : TrainingState
        Of which the scaling, the dtype, the device and the order are taken.
    """

    def __init__(self, rows: Rows, batch_size: int, state: TrainingState) -> None:
        self.rows, self.scaling = rows, state.inputs
        self.dtype, self.device = state.model.atoms.dtype, state.model.atoms.device
        self.order = BatchOrder(len(rows), batch_size, state.order_seed)

    def after(self, n_drawn: int) -> tuple[Tensor, Tensor]:
        """Return the batch that follows so many rows."""
        x = self.read(self.order.after(n_drawn))
        return x, x

    def read(self, numbers: Any) -> Tensor:
        """Return rows by number."""
        return self.scaling.normalised(self.rows.read(numbers, self.dtype, self.device))
