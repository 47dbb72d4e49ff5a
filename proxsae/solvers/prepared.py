"""The preparation of a compiled method for D and R, kept from the last call, since samples may come one at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.bounded import check_bounded
from proxsae.solvers.certificates import CertificateKind, Certify, certificate_of, duality_gap
from proxsae.solvers.sparse_gap import sparse_gap

LARGEST_KEPT = 2**22  # entries of a dictionary: 32 MiB


class Prepared(NamedTuple):
    """The values that depend on the dictionary and R alone."""

    kind: CertificateKind
    certify: Certify
    tools: Any  # of the algorithm


_last: tuple[Algorithm, Regularizer, Array, Prepared] | None = None


def prepared(algorithm: Algorithm, R: Regularizer, D: Array) -> Prepared:
    """Return the preparation, that of the last call if R and D are equal; the caller may change both in place."""
    global _last
    last = _last
    if last is not None and last[0] is algorithm and _same(last[2], D) and last[1] == R:
        return last[3]
    found = _prepare(algorithm, R, D)
    if algorithm.is_compiled and D.size <= LARGEST_KEPT:
        _last = algorithm, with_own_arrays(R), D.copy(), found
    return found


def with_own_arrays(R: Regularizer) -> Regularizer:
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
