"""Run a method with its own stopping rule, block after block."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Direct
from proxsae.solvers.certificates import CertificateKind
from proxsae.solvers.driver import Outcome, joined, not_done
from proxsae.solvers.inputs import CHUNK_ENTRIES, Inputs, checked_step

STRONGEST_FIRST: tuple[CertificateKind, ...] = (
    "globally optimal",
    "swap-optimal",
    "local minimum",
    "fixed point",
    "consensus residual",
)


def weakest(kinds: Array) -> CertificateKind:
    """Return the kind that holds for all samples: the weakest, since a stronger kind implies it."""
    found = np.unique(kinds).tolist()
    return found[0] if len(found) == 1 else max(found, key=STRONGEST_FIRST.index, default=STRONGEST_FIRST[0])


def run_direct(
    name: str,
    algorithm: Direct,
    inputs: Inputs,
    R: Regularizer | tuple[Regularizer, ...],
    *,
    step: float | None,
    tol: float,
    max_iter: int,
    on_finished: Callable[[int], object],
    stop: Event,
    gram_limit: int,
) -> tuple[Outcome, Array]:
    """Return the outcome of all samples, with CSR codes, and the kind of certificate of each.

    Ctrl-C sets `stop`: a block that is not done keeps the codes that it started from.
    """
    if inputs.init is not None and not algorithm.takes_init:
        raise ValueError(f"{name!r} starts from zero and takes no codes to start from")
    D = inputs.dictionary
    t = 0.0
    if algorithm.has_step or step is not None:  # 1 / L takes longer than a pursuit
        if isinstance(R, tuple):
            raise ValueError(f"{name!r} takes no step")
        t = checked_step(step, D, R)
    plan = algorithm.plan(D, R, t, gram_limit)
    outcomes, kinds = [], []
    kind_of_undone = "consensus residual" if isinstance(R, tuple) else "fixed point"
    for block in inputs.blocks(getattr(plan, "rows_at_once", CHUNK_ENTRIES)):
        init = None if inputs.init is None else inputs.codes(block)
        try:
            if stop.is_set():
                raise KeyboardInterrupt
            with np.errstate(over="ignore", invalid="ignore"):  # the certificate says so: it is not finite
                ended = plan.run(inputs.targets(block), init, tol, max_iter)
            ended.codes.data = inputs.result(ended.codes.data)
            outcomes.append(Outcome(*ended[:-1]))
            kinds.append(ended.kinds)
            on_finished(ended.codes.shape[0])
        except KeyboardInterrupt:
            stop.set()
            outcome = not_done(inputs.codes(block))
            outcomes.append(outcome._replace(codes=csr_array(inputs.result(outcome.codes))))
            kinds.append(np.full(len(outcome.codes), kind_of_undone))
    return joined(outcomes), np.concatenate(kinds)
