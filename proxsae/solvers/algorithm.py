"""The interface of the algorithms of `solve`: a state, a pure step, and the sentence with which it refuses an R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.certificates import FitTerms
from proxsae.solvers.problem import Problem


def no_tools(R: Regularizer, D: Array) -> None:
    """Prepare nothing."""


class Algorithm(NamedTuple):
    """A method that `solve` can run step by step; the driver does stopping, certificates and display.

    A state is a named tuple with a field ``codes``. Its step returns a new one and leaves the old one as it was.
    """

    start: Callable[[Problem, Array], Any]  # (problem, codes) -> state
    update: Callable[[Problem, Any], Any]  # (problem, state) -> state
    refuses: Callable[[Regularizer], str | None]  # one sentence on what the method lacks for R, or None
    of_samples: tuple[str, ...]  # the fields of the state with a row a sample: a sample that is done leaves them
    check_every: int  # steps between certificates
    is_compiled: bool = False  # loops over NumPy arrays, a coordinate at a time
    by_coordinates: bool = False  # each coordinate has a step of its own
    prepare: Callable[[Regularizer, Array], Any] = no_tools  # (R, D) -> what every batch needs, as ``problem.tools``
    needs_gram: bool = False  # and its state has a field ``correlations``
    knows_rest: bool = False  # its state has a field ``at_rest``: for how many steps nothing was left to change
    may_be_done: Callable[[Problem, Any, float], Array] | None = None  # (problem, state, tol) -> which samples
    fit: Callable[[Problem, Any], FitTerms] | None = None  # (problem, state) -> its terms, in the dtype of the codes


class Direct(NamedTuple):
    """A method with its own stopping rule and certificates: planned once for a dictionary, then run on blocks.

    It takes NumPy arrays alone. The plan has ``run(targets, init, tol, max_iter) -> Ended``, and ``rows_at_once`` where
    samples take so long that Ctrl-C should not wait for many of them.
    """

    plan: Callable[[Array, Any, float, int], Any]  # (dictionary, R, step, gram_limit) -> plan
    refuses: Callable[[Any], str | None]
    takes_init: bool  # or starts from zero
    has_step: bool  # whether one step serves all coordinates
    is_compiled: bool = True


class Ended(NamedTuple):
    """The codes of a block and their certificates."""

    codes: Any  # CSR, (n_samples, n_components)
    objective: Array  # F, (n_samples,)
    certificate: Array  # what F could still fall by, by the moves that the kind names
    converged: Array
    n_iter: Array
    kinds: Array  # the kind of certificate of each sample


def restricted(algorithm: Algorithm, state: Any, rows: Array) -> Any:
    """Return the state of some of the samples."""
    return state._replace(**{name: getattr(state, name)[rows] for name in algorithm.of_samples})
