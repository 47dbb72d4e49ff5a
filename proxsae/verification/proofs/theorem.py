"""A theorem about a regularizer, and the result of its proof."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import z3

from proxsae.regularizers.base import Regularizer
from proxsae.verification.proofs.decide import decide
from proxsae.verification.report import Proof


class NotProvedError(Exception):
    """Raised where no proof was found; its numbers, if any, refute the claim."""

    def __init__(self, numbers: dict[str, Any] | None = None) -> None:
        super().__init__("unknown" if numbers is None else f"counterexample {numbers}")
        self.numbers = numbers


@dataclass(frozen=True)
class Theorem:
    """A statement and its proof.

    Attributes
    ----------
    statement : str
        In words.
    prove : callable
        A function of the ``time.process_time()`` after which it gives up; it raises NotProvedError where it finds no
        proof.
    verdict : str
        The verdict where the proof succeeds.
    """

    statement: str
    prove: Callable[[float], None]
    verdict: str = "proved"


def proof_of(R: Regularizer, theorem: Theorem, timeout: float = 60.0) -> Proof:
    """Return the result of the proof of a theorem, within `timeout` seconds."""
    verdict, numbers = theorem.verdict, None
    try:
        theorem.prove(time.process_time() + timeout)
    except NotProvedError as error:
        verdict, numbers = ("unknown" if error.numbers is None else "counterexample"), error.numbers
    return Proof(repr(R), theorem.statement, verdict, numbers)


def prove_lemmas(refutations: list[list[Any]], deadline: float) -> None:
    """Prove that none of the conjunctions can be met."""
    for refutation in refutations:
        result, model = decide(refutation, [], deadline)
        if result == z3.sat:
            raise NotProvedError({"fails": "a lemma", **{str(symbol): str(model[symbol]) for symbol in model.decls()}})
        if result != z3.unsat:
            raise NotProvedError
