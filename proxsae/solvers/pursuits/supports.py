"""At most k codes of each sample, as atoms and values: what a pursuit fills."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array


class Supports(NamedTuple):
    """The codes of some samples, in the order in which the atoms entered, and their counts, gains and steps."""

    atoms: Array  # int64, (n_samples, k)
    codes: Array  # (n_samples, k)
    counts: Array  # how many of the k there are, (n_samples,)
    falls: Array  # the fall of F by the best exchange, (n_samples,)
    n_iter: Array  # steps taken, (n_samples,)

    @property
    def held(self) -> Array:
        """A mask of the places that are filled."""
        return np.arange(self.atoms.shape[1]) < self.counts[:, None]

    def at(self, rows: slice) -> Supports:
        """Return a view of some samples."""
        return Supports(*(part[rows] for part in self))

    def csr(self, n_components: int) -> csr_array:
        """Return the codes as a sparse matrix with sorted columns."""
        held = self.held & (self.codes != 0)
        offsets = np.append(0, held.sum(1).cumsum())
        shape = (len(held), n_components)
        matrix = csr_array((self.codes[held], self.atoms[held], offsets), shape=shape)
        matrix.sort_indices()
        return matrix


def room_for(n_samples: int, k: int, dtype: Any) -> Supports:
    """Return room for the codes of some samples."""
    shape, n = (n_samples, k), n_samples
    return Supports(
        np.zeros(shape, np.int64), np.zeros(shape, dtype), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
    )


def fill(room: Supports, Z: Array) -> None:
    """Write dense codes to `room`, or raise ValueError where a row has too many non-zeros."""
    counts = (Z != 0).sum(1)
    k = room.atoms.shape[1]
    if counts.max(initial=0) > k:
        raise ValueError(f"init must have at most {k} non-zeros a row, got {counts.max()}")
    rows, columns = np.nonzero(Z)
    places = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    room.atoms[rows, places], room.codes[rows, places], room.counts[:] = columns, Z[rows, columns], counts
