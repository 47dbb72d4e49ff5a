"""The positions of the rows of a store in its text, and the rows where an atom is strongest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class TokenPlaces:
    """The contexts of the rows of a store.

    Parameters
    ----------
    store : ActivationStore

    Attributes
    ----------
    tokens : int array of shape (n_contexts, context_length)
        The tokens of the contexts that have a row, in the order of the store.
    contexts, positions : int arrays of shape (n_rows,)
        For each row its line in `tokens` and its position in that line.
    row_at : int array of the shape of `tokens`
        The row of each token; -1 where a dropped position has none.
    """

    def __init__(self, store: Any) -> None:
        numbers, self.positions = store.trace(np.arange(len(store)))
        present, self.contexts = np.unique(numbers, return_inverse=True)
        self.tokens = np.stack([store.tokens(int(number)) for number in present])
        self.row_at = np.full(self.tokens.shape, -1, dtype=np.int64)
        self.row_at[self.contexts, self.positions] = np.arange(len(numbers))

    def strongest(self, rows: Rows, z: NDArray[Any], n: int) -> Rows:
        """Return at most n of the rows with z > 0, the largest z first, and only one a context.

        Several rows of one context would mostly be neighbours of one peak.
        """
        order = np.argsort(-z, kind="stable")
        order = order[z[order] > 0]
        _, first = np.unique(self.contexts[rows[order]], return_index=True)
        return rows[order[np.sort(first)[:n]]]

    def window(self, rows: Rows, width: int) -> tuple[Rows, Rows]:
        """Return the tokens up to `width` before and after each row, and their rows; -1 where there is none.

        Both are of shape (len(rows), 2 width + 1).
        """
        places = self.positions[rows][:, None] + np.arange(-width, width + 1)
        is_inside = (places >= 0) & (places < self.tokens.shape[1])
        inside = np.where(is_inside, places, 0)
        lines = self.contexts[rows][:, None]
        return np.where(is_inside, self.tokens[lines, inside], -1), np.where(is_inside, self.row_at[lines, inside], -1)
