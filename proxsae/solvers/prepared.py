"""The preparation of a compiled method for D and R, kept from the last call, since samples may come one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.bounded import check_bounded
from proxsae.solvers.certificates import CertificateKind, Certify, certificate_of, duality_gap
from proxsae.solvers.sparse_gap import sparse_gap
from proxsae.solvers.threads import gram_of

LARGEST_KEPT = 2**22  # entries of a dictionary or a Gram matrix: 32 MiB


@dataclass
class Prepared:
    """The values that depend on the dictionary and R alone."""

    kind: CertificateKind
    certify: Certify
    tools: Any  # of the algorithm
    gram: Array | None = None  # D D^T in float64, once it was needed

    def gram_of(self, atoms: Array) -> Array:
        """Return the Gram matrix of the atoms, D in float64, and keep it where it is small."""
        gram = gram_of(atoms) if self.gram is None else self.gram
        self.gram = gram if gram.size <= LARGEST_KEPT else None
        return gram


_last: tuple[Algorithm, Regularizer, Array, Prepared] | None = None


def prepared(algorithm: Algorithm, R: Regularizer, D: Array) -> Prepared:
    """Return the preparation, that of the last call if R and D are equal; the caller may change both in place."""
    global _last
    last = _last if _last is not None and _same(_last[2], D) else None
    if last is not None and last[0] is algorithm and last[1] == R:
        return last[3]
    found = _prepare(algorithm, R, D)
    found.gram = None if last is None else last[3].gram
    if algorithm.is_compiled and D.size <= LARGEST_KEPT:
        _last = algorithm, _with_own_arrays(R), D.copy(), found
    return found


def _with_own_arrays(R: Regularizer) -> Regularizer:
    """Return R with copies of its arrays, so that no caller changes them."""
    return R.map_parameters(lambda _, value: np.copy(value) if np.ndim(value) else value)


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def _prepare(algorithm: Algorithm, R: Regularizer, D: Array) -> Prepared:
    check_bounded(R, D)
    kind, certify = certificate_of(R, D, by_coordinates=algorithm.by_coordinates)
    tools = algorithm.prepare(R, D)
    if algorithm.is_compiled and algorithm.knows_rest and certify is duality_gap:
        certify = sparse_gap(R, D, *tools[-2:]) or certify
    return Prepared(kind, certify, tools)
