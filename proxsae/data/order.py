"""The order in which a training draws the rows of its batches."""

from __future__ import annotations

from typing import Any

import numpy as np


class BatchOrder:
    """The rows of each training batch: one random permutation an epoch, batches always full.

    The order is a function of the seed and the number of rows drawn, so that a resumed run draws the same rows.

    Parameters
    ----------
    n_rows, batch_size : int
        A batch never exceeds the data.
    seed : int
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int) -> None:
        self.n_rows = n_rows
        self.batch_size = min(batch_size, n_rows)
        self.seed = seed
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def after(self, n_drawn: int) -> Any:
        """Return the rows of the batch that follows `n_drawn` rows, ascending, since reading in order is faster."""
        epoch, start = divmod(n_drawn, self.n_rows)
        rows = self._order(epoch)[start : start + self.batch_size]
        if len(rows) < self.batch_size:
            rows = np.concatenate([rows, self._order(epoch + 1)[: self.batch_size - len(rows)]])
        return np.sort(rows)

    def _order(self, epoch: int) -> Any:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
        return self._permutation
