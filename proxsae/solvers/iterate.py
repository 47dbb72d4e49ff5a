"""Run a method of pure steps on all samples, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Event

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.certificates import CertificateKind
from proxsae.solvers.driver import Outcome, joined, not_done, run
from proxsae.solvers.inputs import Inputs, checked_step
from proxsae.solvers.prepared import prepared
from proxsae.solvers.problem import Problem, gram_is_cheaper
from proxsae.solvers.threads import blocks_of, in_threads, n_threads

CACHE_ENTRIES = 2**18  # code entries that a thread of compiled loops works on: 2 MiB for each array of a float64 state
MIN_ROWS, MOST_ENTRIES = 256, 2**21  # rows that share the dense products, unless they have more code entries
FEW_ROWS = 16  # rows that one thread takes
ALL_ATOMS, PAIRS = 1.5, 3000  # products with all atoms, and of two, that a Gram matrix saves the active set a sample
PATH_ATOMS = 1024  # up to which the active set is faster from the end of a path than from zero


def iterate(
    algorithm: Algorithm,
    inputs: Inputs,
    R: Regularizer,
    *,
    sparse_output: bool,
    step: float | None,
    tol: float,
    max_iter: int,
    on_finished: Callable[[int], object],
    stop: Event,
    gram_limit: int,
) -> tuple[Outcome, CertificateKind]:
    """Return the outcome of all samples, and the kind of their certificates.

    Ctrl-C sets `stop`: samples that are not done keep their present codes.
    """
    D, (n_samples, n_components) = inputs.dictionary, inputs.shape
    t = math.nan if algorithm.by_coordinates and step is None else checked_step(step, D, R)
    ready = prepared(algorithm, R, D)
    gram = coarse = None
    if _pays_gram(algorithm, n_samples, *D.shape, gram_limit=gram_limit):
        atoms = D.astype(np.float64) if algorithm.is_compiled else D
        gram = ready.gram_of(atoms) if algorithm.is_compiled else atoms @ atoms.T
        follows_path = algorithm.knows_rest and R.is_convex and inputs.init is None and n_components <= PATH_ATOMS
        with np.errstate(over="ignore"):
            coarse = gram.astype(np.float32) if follows_path else None

    def attempted(targets: Array, codes: Array) -> Outcome:
        # Where squares overflow, the certificate says so: it is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            correlations = None if gram is None or algorithm.knows_rest else targets @ atoms.T
            problem = Problem(targets, D, R, t, gram, correlations, ready.tools, coarse)
            return run(
                problem, algorithm, ready.certify, codes, tol=tol, max_iter=max_iter, on_finished=on_finished, stop=stop
            )

    def solved(block: slice) -> Outcome:
        codes = inputs.codes(block)
        try:
            outcome = not_done(codes) if stop.is_set() else attempted(inputs.targets(block), codes)
        except KeyboardInterrupt:
            stop.set()
            outcome = not_done(codes)
        codes = inputs.result(outcome.codes)
        return outcome._replace(codes=_csr(codes) if sparse_output else codes)

    if algorithm.is_compiled:
        size = max(CACHE_ENTRIES // n_components, min(MIN_ROWS, MOST_ENTRIES // n_components), 1)
        size = min(size, max(FEW_ROWS, -(-n_samples // n_threads())))
        return joined(in_threads(solved, blocks_of(n_samples, size), stop.set)), ready.kind
    blocks = [slice(0, n_samples)] if R.scope == "batch" else inputs.blocks()
    return joined([solved(block) for block in blocks]), ready.kind


def _csr(codes: Array) -> csr_array:
    """Return a NumPy matrix as CSR, by flat indices: several times as fast as by the index pairs of SciPy."""
    rows, columns = np.divmod(np.flatnonzero(codes != 0), codes.shape[1])
    offsets = np.searchsorted(rows, np.arange(len(codes) + 1))
    return csr_array((codes[rows, columns], columns, offsets), shape=codes.shape)


def _pays_gram(algorithm: Algorithm, n_samples: int, n_components: int, n_features: int, *, gram_limit: int) -> bool:
    if algorithm.knows_rest:  # compiled, it computes half a Gram matrix; in batches, the products of active sets alone
        saved = n_samples * (ALL_ATOMS * n_components + PAIRS)
        return algorithm.is_compiled and n_components <= gram_limit and n_components * n_components < 2 * saved
    return algorithm.needs_gram or gram_is_cheaper(n_samples, n_components, n_features)
