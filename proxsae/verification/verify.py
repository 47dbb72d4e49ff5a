"""`verify`: all oracles that apply to a regularizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from proxsae.formulas.integers import checked_count, evenly_spaced
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.naming import parse
from proxsae.verification.functions import pairs_of_functions
from proxsae.verification.oracles.backends import check_backends
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.oracles.convex import compare_with_solver
from proxsae.verification.oracles.fenchel import check_fenchel, check_fenchel_young
from proxsae.verification.oracles.line import search_pair
from proxsae.verification.oracles.mixed_integer import compare_with_mixed_integer, is_mixed_integer
from proxsae.verification.oracles.properties import (
    check_coordinates_apart,
    check_limits,
    check_monotone,
    check_repeatable,
)
from proxsae.verification.oracles.rounding import check_rounding
from proxsae.verification.oracles.supports import enumerate_supports
from proxsae.verification.oracles.traits import check_sums, check_traits, has_sums
from proxsae.verification.pair import Effort, Pair, pair_of_matrices, pair_of_regularizer
from proxsae.verification.proofs.prove import can_prove, prove
from proxsae.verification.report import Check, Outcome, Report, run

MAX_COORDINATES = 8  # searched one by one where each has parameters of its own
PROOF_SECONDS = 20.0


def verify(
    R: Regularizer | str | None = None,
    *,
    value: Callable[..., Any] | None = None,
    prox: Callable[..., Any] | None = None,
    n: int | None = None,
    steps: tuple[float, ...] | None = None,
    effort: Effort = "full",
    proof_timeout: float | None = None,
) -> Report:
    r"""Check whether a prox is right: :math:`\mathrm{prox}_{tR}(u) = \arg\min_z \frac12\|z - u\|^2 + t R(z)`.

    Every oracle that applies is run: a search over the whole line, brute force over codes, enumeration of supports, a
    convex and a mixed-integer solver, the properties that every prox has, what the traits and the conjugate of R
    promise, agreement of the backends, the rounding errors over the whole range of a dtype, and a proof. How many
    points are looked at is fixed by `effort`, and does not depend on the time that they take. At batch scope a matrix
    of two rows is searched as one code.

    Parameters
    ----------
    R : Regularizer or str
        A regularizer, or the text of one: ``verify("0.1*L1 + NonNegative")``.
    value : callable
        In place of R: ``value(z)`` of an array z of shape (n,), which returns n numbers (a penalty applied entry by
        entry) or one (a penalty of the whole code); ``inf`` or NaN where z is outside the domain by more than the
        rounding errors of the prox. NumPy or Torch.
    prox : callable
        With value: ``prox(u, t)``, which returns an array of the shape of u. Points where the prox or the value
        overflows are not judged.
    n : int, optional
        The length of a code. By default that of the parameters of R; for functions, those of 3, 8 and 40 that fit.
    steps : tuple of float, optional
        The steps t for which the prox is claimed, since some published formulas hold for small t only. By default from
        1e-4 to 1e4.
    effort : {"full", "quick"}
        "quick" checks fewer points and steps, for slow functions; each check reports how many.
    proof_timeout : float, default 20
        With R: CPU seconds for the proof; 0 leaves it out.

    Returns
    -------
    Report
        ``report.passed``; ``print(report)`` shows each check with its counterexample, if any.

    Raises
    ------
    TypeError
        If neither R nor both of value and prox are given, if a function takes single numbers only, or if a
        `proof_timeout` is given with functions, for which no proof is tried.
    ValueError
        If n is no count, R or a function does not fit codes of that length, or a step is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from proxsae.verification import verify
    >>> verify("0.1*L1 + NonNegative", proof_timeout=0).passed
    True
    >>> hard = lambda u, t: np.where(abs(u) > t, u, 0.0)
    >>> verify(value=lambda z: 1.0 * (z != 0), prox=hard).passed
    False
    """
    if isinstance(R, str):
        R = parse(R)
    n = None if n is None else checked_count("n", n)
    if R is None and value is not None and prox is not None:
        if proof_timeout is not None:
            raise TypeError("proof_timeout is for a regularizer: of value= and prox= there is no formula to prove")
        name = f"value={_name(value)}, prox={_name(prox)}"
        return _run(name, _checks_of_functions(pairs_of_functions(value, prox, n, steps, effort)))
    if not isinstance(R, Regularizer) or value is not None or prox is not None:
        raise TypeError("verify takes a regularizer or its text, or both value= and prox=")
    seconds = PROOF_SECONDS if proof_timeout is None else proof_timeout
    return _run(repr(R), _checks_of_regularizer(R, pair_of_regularizer(R, n, steps, effort), seconds))


def _run(subject: str, checks: Iterator[partial[Check]]) -> Report:
    return Report(subject, tuple(run(check) for check in checks))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _checks_of_functions(pairs: list[Pair]) -> Iterator[partial[Check]]:
    first, *longer = pairs
    yield partial(check_repeatable, first)
    yield from _checks_of_pair(first)
    if first.is_separable and first.scalar is None:
        yield partial(search_codes, first)
    for pair in longer:
        if pair.is_separable:
            yield partial(check_coordinates_apart, pair)
        if pair.scalar is None:
            yield partial(search_codes, pair)


def _checks_of_pair(pair: Pair, *, is_convex: bool = False) -> Iterator[partial[Check]]:
    if pair.is_separable:
        for j in [0] if pair.scalar is not None else evenly_spaced(pair.n, MAX_COORDINATES):
            yield partial(search_pair, pair, int(j))
        if pair.n > 1:
            yield partial(check_coordinates_apart, pair)
    else:
        yield partial(search_codes, pair)
    yield partial(check_monotone, pair, is_convex=is_convex)
    yield partial(check_limits, pair)


def _checks_of_regularizer(R: Regularizer, pair: Pair, proof_timeout: float) -> Iterator[partial[Check]]:
    if R.scope != "batch":
        yield from _checks_of_pair(pair, is_convex=R.is_convex)
    elif not isinstance(R, Cardinality):
        yield from _checks_of_pair(pair_of_matrices(R, pair), is_convex=R.is_convex)
    if isinstance(R, Cardinality):
        yield partial(enumerate_supports, R, pair)
    if is_mixed_integer(R):
        yield partial(compare_with_mixed_integer, R, pair)
    if R.is_convex:
        yield partial(compare_with_solver, R, pair)
        yield partial(check_fenchel_young, R, pair)
    if R.has_conjugate or R.has_conjugate_with_ridge:  # of a nonconvex R too: solvers ask for the conjugate alone
        yield partial(check_fenchel, R, pair)
    yield partial(check_traits, R, pair)
    if has_sums(R):
        yield partial(check_sums, R, pair)
    yield partial(check_backends, R, pair)
    yield partial(check_rounding, R, pair)
    if proof_timeout > 0:
        yield partial(_proof, R, pair.steps, proof_timeout)


def _proof(R: Regularizer, steps: tuple[float, ...] | None, timeout: float) -> Check:
    if not can_prove():
        return Check("proof", "", "skipped", reason='z3 or python-flint is missing: pip install "proxsae[prove]"')
    proof = prove(R, timeout=timeout)
    verdict: Outcome = "undecided"
    if proof.verdict.startswith(("proved", "certified")):
        verdict = "passed"
    elif proof.verdict == "counterexample" and steps is None:
        verdict = "failed"
    reason = "" if verdict == "passed" else proof.verdict
    if verdict == "undecided" and proof.counterexample:
        reason = f"refuted, but for all steps: {proof.counterexample}"
    counterexample = proof.counterexample if verdict == "failed" else None
    return Check("proof", f"{proof.verdict}: {proof.theorem}", verdict, counterexample, reason)
