"""Sources of rows for trainings: rows are checked once, and a batch that several trainings draw is read once."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from proxsae.data.large_rows import ordinary
from proxsae.data.memory import physical_memory
from proxsae.data.order import BatchOrder
from proxsae.data.rows import (
    Rows,
    checked_rows,
    has_labels_alone,
    is_row_source,
    provenance_of,
    with_targets,
    with_weights,
)
from proxsae.data.stream import ReadAhead, ShuffledRows, Stream
from proxsae.training.distributed import mesh
from proxsae.training.scaling import MAX_ROWS
from proxsae.training.settings import Settings
from proxsae.training.state import TrainingState

Batch = tuple[Tensor, Tensor, Tensor | None]  # rows, their targets, and their weights where they differ


class NormalisedBatches:
    """Batches of rows and of their targets in the units of a training: the part of each batch that this process takes.

    Parameters
    ----------
    rows : Rows
    batch_size : int
    state : TrainingState
        The training whose scaling, dtype, device and order of rows are used.
    """

    def __init__(self, rows: Rows, batch_size: int, state: TrainingState) -> None:
        self.dtype, self.device = state.model.atoms.dtype, state.model.atoms.device
        self.rows, self.inputs, self.targets = rows.moved(self.dtype, self.device), state.inputs, state.targets
        self.order = BatchOrder(len(rows), batch_size, state.order_seed)
        self.batch_size = self.order.batch_size
        self.mesh = mesh()
        self.part = self.mesh.all.part(self.batch_size)
        self._last: tuple[int, Batch] | None = None  # the last batch, which another training may draw next

    def after(self, n_drawn: int) -> Batch:
        """Return the batch that follows the first `n_drawn` rows."""
        if self._last is None or self._last[0] != n_drawn:
            numbers = self.order.after(n_drawn)[self.part]
            joined = self.mesh.atoms.joined  # processes that take the same rows
            x, weights = joined(self.read(numbers)), self.weights(numbers)
            y = joined(self._targets(numbers)) if self.rows.has_targets else x
            self._last = n_drawn, (x, y, weights if weights is None else joined(weights))
        return self._last[1]

    def read(self, numbers: Any) -> Tensor:
        """Return rows by number."""
        return self.inputs.normalised(self.rows.read(numbers, self.dtype, self.device))

    def weights(self, numbers: Any) -> Tensor | None:
        """Return the weights of rows by number; None where all are alike."""
        return self.rows.weights_of(numbers, self.dtype, self.device)

    def _targets(self, numbers: Any) -> Tensor:
        return self.targets.normalised(self.rows.targets.read(numbers, self.dtype, self.device))


class BatchSource:
    """The rows of one X for all trainings that begin together.

    The order is that of :class:`proxsae.data.order.BatchOrder`, a function of the seed of a training, its batch size
    and the number of rows; trainings that agree in these share the batches.

    Parameters
    ----------
    X : rows of any kind
    Y : rows of any kind, labels in one dimension, or None
        What the codes of X are to decode to.
    sample_weight : weights of the rows, or None
    """

    def __init__(self, X: Any, Y: Any = None, sample_weight: Any = None) -> None:
        self.X, self.Y, self.sample_weight, self.provenance = X, Y, sample_weight, provenance_of(X)
        if "site" in (of_targets := provenance_of(Y)):
            self.provenance["target_site"] = of_targets["site"]
        self._checked: Rows | None = None
        self._ordinary: dict[float | None, Rows] = {}
        self._batches: dict[Any, NormalisedBatches] = {}

    def checked(self, sae: Any, *, reset: bool) -> Rows:
        """Return all rows, after the estimator has recorded their features; see :func:`checked_rows`."""
        rows = checked_rows(sae, self.X, reset=reset)
        self._checked = self._checked or with_weights(with_targets(rows, self.Y), self.sample_weight)
        return self._checked

    def ordinary(self, rows: Rows, max_norm_ratio: float | None) -> Rows:
        """Return the rows to train on; see :func:`proxsae.data.large_rows.ordinary`."""
        if max_norm_ratio not in self._ordinary:
            self._ordinary[max_norm_ratio] = ordinary(rows, max_norm_ratio, MAX_ROWS)
        return self._ordinary[max_norm_ratio]

    def batches(self, rows: Rows, settings: Settings, state: TrainingState) -> NormalisedBatches:
        """Return the batches of a training."""
        scale = (state.inputs.scale, settings.blocks)
        made_of = (state.order_seed, settings.batch_size, settings.max_norm_ratio, settings.device, scale)
        if made_of not in self._batches:
            self._batches[made_of] = NormalisedBatches(rows, settings.batch_size, state)
        return self._batches[made_of]

    def n_rows(self, rows: Rows) -> int | None:
        """Return how many rows one pass has, where that is known."""
        return len(rows)

    def close(self) -> None:
        """End reading ahead."""


class StreamSource(BatchSource):
    """The rows of one stream, in its order, for all trainings that begin together; checks look at its first block."""

    def __init__(self, stream: Stream) -> None:
        self.reader = ReadAhead(stream)
        super().__init__(self.reader.head.source)
        self.provenance, self.stream = provenance_of(stream), stream

    def ordinary(self, rows: Rows, max_norm_ratio: float | None) -> Rows:
        """Return the first block."""
        if max_norm_ratio is not None:
            raise ValueError("max_norm_ratio looks at all rows before the first step, and a stream has only begun then")
        first = super().ordinary(rows, None)
        first.stream = self.stream
        return first

    def batches(self, rows: Rows, settings: Settings, state: TrainingState) -> NormalisedBatches:
        """Return the batches of a training."""
        return StreamBatches(rows, settings.batch_size, state, self.reader)

    def n_rows(self, rows: Rows) -> int | None:  # noqa: ARG002
        """Return how many rows one pass has, where that is known."""
        return self.stream.n_rows

    def close(self) -> None:
        """End the thread that reads ahead."""
        self.reader.close()


class StreamBatches(NormalisedBatches):
    """Batches of a stream, whose rows follow one another in its own order.

    Attributes
    ----------
    waited : list of float
        The seconds spent waiting for each batch.
    """

    def __init__(self, rows: Rows, batch_size: int, state: TrainingState, reader: ReadAhead) -> None:
        super().__init__(rows, batch_size, state)
        self.batch_size, self.reader = batch_size, reader
        self.waited: list[float] = []

    def after(self, n_drawn: int) -> Batch:
        """Return the batch that follows the first `n_drawn` rows."""
        rows, waited = self.reader.read(n_drawn, self.batch_size, self.dtype, self.device)
        self.waited.append(waited)
        x = self.inputs.normalised(self.rows.scaled(rows))
        return x, x, None


def batch_source(X: Any, Y: Any = None, sample_weight: Any = None) -> BatchSource:
    """Return the source of the rows of X for trainings; an X larger than the memory is read as a stream.

    Raises
    ------
    ValueError
        If a stream, which fixes the order of its rows, is given targets or weights.
    """
    if mesh().all.size > 1:  # each process reads its part of every batch, wherever that lies
        if isinstance(X, Stream):
            raise ValueError("a stream is read in its order by one process: give several a store or a memory map")
        return BatchSource(X, Y, sample_weight)
    is_alone = has_labels_alone(Y) and sample_weight is None
    if isinstance(X, Stream):
        if not is_alone:
            raise ValueError(
                "a stream gives its rows in an order of its own, so that no targets Y and no weights can go with them"
            )
        return StreamSource(X)
    if not is_alone:
        return BatchSource(X, Y, sample_weight)
    if is_row_source(X) and not isinstance(X, Tensor) and len(X.shape) == 2:
        size = X.shape[0] * X.shape[1] * np.dtype(X.dtype).itemsize
        if size > physical_memory():
            return StreamSource(ShuffledRows(X))
    return BatchSource(X)
