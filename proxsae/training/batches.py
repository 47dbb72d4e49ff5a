"""Where trainings take their rows from: looked at once, and what several draw is read once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from proxsae.data.rows import BatchOrder, Rows, checked_rows, ordinary, provenance_of
from proxsae.training.scaling import MAX_ROWS
from proxsae.training.settings import Settings
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
        self._last: tuple[int, Tensor] | None = None  # which another training may draw next

    def after(self, n_drawn: int) -> tuple[Tensor, Tensor]:
        """Return the batch that follows so many rows."""
        if self._last is None or self._last[0] != n_drawn:
            self._last = n_drawn, self.read(self.order.after(n_drawn))
        x = self._last[1]
        return x, x

    def read(self, numbers: Any) -> Tensor:
        """Return rows by number."""
        return self.scaling.normalised(self.rows.read(numbers, self.dtype, self.device))


class Source:
    """The rows of one X for all trainings that begin together.

    The order is that of :class:`proxsae.data.rows.BatchOrder`, a function of the seed of a training, its batch size and
    the number of rows; trainings that agree in these share the batches.

    Parameters
    ----------
    X : rows of any kind
    """

    def __init__(self, X: Any) -> None:
        self.X, self.provenance = X, provenance_of(X)
        self._checked: Rows | None = None
        self._ordinary: dict[float | None, Rows] = {}
        self._batches: dict[Any, NormalisedBatches] = {}

    def checked(self, sae: Any, *, reset: bool) -> Rows:
        """Return all rows, once an estimator has taken note of their features; see :func:`checked_rows`."""
        rows = checked_rows(sae, self.X, reset=reset)
        self._checked = self._checked or rows
        return self._checked

    def ordinary(self, rows: Rows, max_norm_ratio: float | None) -> Rows:
        """Return the rows to train on; see :func:`proxsae.data.rows.ordinary`."""
        if max_norm_ratio not in self._ordinary:
            self._ordinary[max_norm_ratio] = ordinary(rows, max_norm_ratio, MAX_ROWS)
        return self._ordinary[max_norm_ratio]

    def batches(self, rows: Rows, settings: Settings, state: TrainingState) -> NormalisedBatches:
        """Return the batches of a training."""
        made_of = (state.order_seed, settings.batch_size, settings.max_norm_ratio, settings.device, state.inputs.scale)
        if made_of not in self._batches:
            self._batches[made_of] = NormalisedBatches(rows, settings.batch_size, state)
        return self._batches[made_of]
