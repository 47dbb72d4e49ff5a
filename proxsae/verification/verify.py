"""Which oracle applies to what: `verify`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.naming import parse
from proxsae.verification.callables import pairs_of_callables
from proxsae.verification.oracles.backends import check_backends
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.oracles.convex import compare_with_solver
from proxsae.verification.oracles.line import STEPS, search_line
from proxsae.verification.oracles.mixed_integer import compare_with_mixed_integer, is_mixed_integer
from proxsae.verification.oracles.properties import (
    check_coordinates_apart,
    check_fenchel_young,
    check_firm,
    check_limits,
    check_monotone,
    check_repeatable,
    check_traits,
)
from proxsae.verification.oracles.supports import enumerate_supports
from proxsae.verification.pairs import Pair, pair_of_regularizer
from proxsae.verification.proofs.prove import can_prove, prove
from proxsae.verification.report import Check, Outcome, Report, run

MAX_COORDINATES = 8  # searched one by one where each has parameters of its own


def verify(
    R: Regularizer | str | None = None,
    *,
    value: Callable[..., Any] | None = None,
    prox: Callable[..., Any] | None = None,
    n: int | None = None,
    steps: tuple[float, ...] | None = None,
    proof_timeout: float = 20.0,
) -> Report:
    r"""Check whether a prox is right: :math:`\mathrm{prox}_{tR}(u) = \arg\min_z \frac12\|z - u\|^2 + t R(z)`.

    Every oracle that applies is run: a search over the whole line, brute force over codes, enumeration of supports, a
    convex and a mixed-integer solver, the properties that every prox has, agreement of the backends, and a proof.

    Parameters
    ----------
    R : Regularizer or str
        A regularizer, or the text of one: ``verify("0.1*L1 + NonNegative")``.
    value : callable
        In place of R: ``value(z)`` of an array z of shape (n,), which returns n numbers (a penalty applied entry by
        entry) or one (a penalty of the whole code); or of single numbers, of Torch tensors, or of matrices of codes
        alone. ``inf`` outside the domain, or NaN, or an arithmetic error.
    prox : callable
        With value: ``prox(u, t)``, which returns an array of the shape of u (or a number for a number). Where it, or
        the value, overflows, it is not judged.
    n : int, optional
        With value: the length of a code, for functions that fit one length only. Found by trial if not given.
    steps : tuple of float, optional
        With value: the steps t for which the prox is claimed, as some published formulas are for small t only. By
        default from 1e-4 to 1e4.
    proof_timeout : float, default 20
        Seconds for the proof; 0 leaves it out.

    Returns
    -------
    Report
        ``report.passed``; ``print(report)`` shows each check with its counterexample, if any.

    Raises
    ------
    TypeError, ValueError
        If neither R nor both of value and prox are given, or they cannot be read.

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
    if R is None and value is not None and prox is not None:
        name = f"value={_name(value)}, prox={_name(prox)}"
        return _run(name, _checks_of_callables(pairs_of_callables(value, prox, n, steps)))
    if not isinstance(R, Regularizer) or value is not None or prox is not None:
        raise TypeError("verify takes a regularizer or its text, or both value= and prox=")
    return _run(repr(R), _checks_of_regularizer(R, proof_timeout))


def _run(subject: str, checks: Iterator[partial[Check]]) -> Report:
    return Report(subject, tuple(run(check) for check in checks))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _checks_of_callables(pairs: list[Pair]) -> Iterator[partial[Check]]:
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


def _checks_of_pair(pair: Pair) -> Iterator[partial[Check]]:
    if pair.is_separable:
        yield from _line_searches(pair)
        if pair.n > 1:
            yield partial(check_coordinates_apart, pair)
    else:
        yield partial(search_codes, pair)
    yield partial(check_monotone, pair)
    yield partial(check_limits, pair)


def _checks_of_regularizer(R: Regularizer, proof_timeout: float) -> Iterator[partial[Check]]:
    pair = pair_of_regularizer(R)
    if R.scope != "batch":
        yield from _checks_of_pair(pair)
    if isinstance(R, Cardinality):
        yield partial(enumerate_supports, R)
    if is_mixed_integer(R):
        yield partial(_with_package, "pyscipopt", partial(compare_with_mixed_integer, R), "mixed-integer solver (SCIP)")
    if R.is_convex:
        yield partial(compare_with_solver, R)
        yield partial(check_firm, R, pair)
        yield partial(check_fenchel_young, R, pair)
    yield partial(check_traits, R, pair)
    yield partial(check_backends, R, pair)
    if proof_timeout > 0:
        yield partial(_check_proof, R, proof_timeout)


def _line_searches(pair: Pair) -> Iterator[partial[Check]]:
    seconds = pair.value_seconds + pair.prox_seconds
    steps = pair.steps or (STEPS if pair.tolerance > 0 else None)  # a numerical prox has a table to make for each
    search = partial(search_line, steps=steps, tolerance=pair.tolerance, reach=pair.reach)
    if pair.scalar is not None:
        yield partial(search, *pair.scalar, seconds=seconds)
        return
    chosen = range(pair.n) if pair.n <= MAX_COORDINATES else range(0, pair.n, pair.n // MAX_COORDINATES)
    for j in chosen:  # which share the time
        yield partial(search, *pair.coordinate(j), f", coordinate {j}", seconds=seconds * len(chosen))


def _with_package(package: str, check: partial[Check], method: str) -> Check:
    if importlib.util.find_spec(package) is None:
        return Check(method, "", "skipped", reason=f'{package} is not installed: pip install "proxsae[prove]"')
    return check()


def _check_proof(R: Regularizer, timeout: float) -> Check:
    if not can_prove():
        return Check("proof", "", "skipped", reason='z3 or python-flint is missing: pip install "proxsae[prove]"')
    proof = prove(R, timeout=timeout)
    found = "passed" if proof.verdict.startswith(("proved", "certified")) else "undecided"
    verdict: Outcome = "failed" if proof.verdict == "counterexample" else found  # type: ignore[assignment]
    reason = "" if verdict == "passed" else proof.verdict
    return Check("proof", f"{proof.verdict}: {proof.theorem}", verdict, proof.counterexample, reason)
