"""Checks of the input of measures of dictionaries and codes, and the cosines of atoms."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from proxsae.formulas.arrays import as_float_array, to_numpy

Matrix = NDArray[np.float64]
BLOCK = 2**24  # cosines held at once: 128 MiB


def checked_dictionary(D: Any, name: str = "D", n_features: int | None = None) -> Matrix:
    """Return a dictionary as a float64 NumPy array of shape (n_components, n_features), or raise."""
    atoms: Matrix = to_numpy(as_float_array(D, name)).astype(np.float64)
    if atoms.ndim != 2 or 0 in atoms.shape:
        raise ValueError(f"{name} must have shape (n_components, n_features), at least one of each, got {atoms.shape}")
    if n_features is not None and atoms.shape[1] != n_features:
        raise ValueError(f"{name} must have {n_features} features as the other dictionary has, got {atoms.shape[1]}")
    return atoms


def csr_codes(Z: Any, name: str = "Z") -> csr_array:
    """Return codes as a float64 CSR array of shape (n_samples, n_components) without stored zeros, or raise."""
    if issparse(Z):
        Z = csr_array(Z, dtype=np.float64, copy=True)
        as_float_array(Z.data, name)
        Z.sum_duplicates()
        Z.eliminate_zeros()
        return Z
    Z = to_numpy(as_float_array(Z, name)).astype(np.float64)
    if Z.ndim != 2:
        raise ValueError(f"{name} must have shape (n_samples, n_components), got {Z.shape}")
    return csr_array(Z)


def codes_over(D: Matrix, Z: Any) -> csr_array:
    """Return the codes of :func:`csr_codes`, or raise where they are not over this dictionary."""
    Z = csr_codes(Z)
    if Z.shape[1] != len(D):
        raise ValueError(f"Z must have {len(D)} components as D has atoms, got {Z.shape[1]}")
    return Z


def is_number(value: Any, low: float, high: float = np.inf) -> bool:
    """Whether `value` is a finite number from `low` to `high`, and not text, NaN or an array."""
    return isinstance(value, Real) and np.isfinite(float(value)) and low <= float(value) <= high


def unit(D: Matrix) -> Matrix:
    """Return the rows at norm 1; a row of zeros stays, and has cosine 0 with every other."""
    largest = np.abs(D).max(axis=1, keepdims=True, initial=0.0)
    D = D / np.where(largest > 0, largest, 1.0)  # no square over- or underflows
    norms = np.linalg.norm(D, axis=1, keepdims=True)
    return D / np.where(norms > 0, norms, 1.0)


def cosines_of_others(D: Matrix) -> Iterator[tuple[slice, Matrix]]:
    """Yield blocks of the cosines between atoms, with 0 for that of an atom with itself."""
    D = unit(D)
    size = max(1, BLOCK // len(D))
    for first in range(0, len(D), size):
        rows = slice(first, min(first + size, len(D)))
        C = D[rows] @ D.T
        C[np.arange(rows.stop - first), np.arange(first, rows.stop)] = 0.0
        yield rows, C
