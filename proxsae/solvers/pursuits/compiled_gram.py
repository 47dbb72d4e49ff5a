"""Rows of the Gram matrix D D^T: all of them, or those that have been asked for, as many as fit (compiled)."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numba
import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.solvers.compiled_scalar import uncounted

# rows: (capacity, n_components). place: which of them is that of an atom, or -1. atoms: D. taken: how many there are.
Gram = namedtuple("Gram", "rows place atoms taken")


def all_rows(G: Array) -> Any:
    """Return all rows of a Gram matrix."""
    return Gram(G, np.arange(len(G)), G[:0], np.array([len(G)]))


def on_demand(atoms: Array, capacity: int) -> Any:
    """Return room for rows that are computed on demand; rows that are not written take no memory."""
    p = len(atoms)
    return Gram(np.empty((capacity, p), atoms.dtype), np.full(p, -1), atoms, np.array([0]))


@uncounted(cache=True)
def copy(source, n, target):
    """Write the first n numbers of one array to another; a slice would count references."""
    for i in range(n):
        target[i] = source[i]


@numba.njit(_nrt=True, cache=True, error_model="numpy")  # np.dot counts references, where callers do not
def place_of(G, j):
    """Return the row of `G.rows` with the products of atom j and all atoms; it is valid until the next call."""
    if G.place[j] < 0:
        if G.taken[0] == len(G.rows):
            G.place[:] = -1
            G.taken[0] = 0
        place = G.taken[0]
        np.dot(G.atoms, G.atoms[j], G.rows[place])
        G.place[j] = place
        G.taken[0] += 1
    return G.place[j]
