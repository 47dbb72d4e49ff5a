"""The report of a verification: each check, its method and range, and the numbers of a refutation."""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

Outcome = Literal["passed", "failed", "undecided", "skipped"]


@dataclass(frozen=True)
class Check:
    """One oracle's verdict.

    Attributes
    ----------
    method : str
        The oracle.
    covers : str
        The codes, steps and points that the oracle checked.
    verdict : {"passed", "failed", "undecided", "skipped"}
        "undecided" and "skipped" count neither for nor against.
    counterexample : dict or None
        For a failed check: u, t, the claimed z, a better z and both objectives (1/2 ||z - u||^2 + t R(z)), or other
        numbers that show the failure.
    reason : str
        Why it failed, or why it was not decided.
    seconds : float
        Time taken.
    """

    method: str
    covers: str
    verdict: Outcome
    counterexample: dict[str, Any] | None = None
    reason: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.verdict:9s} {self.method} ({self.seconds:.2f} s): {self.covers}"
        lines = textwrap.wrap(text, 116, subsequent_indent=" " * 10)
        if self.reason:
            lines += textwrap.wrap(self.reason, 106, initial_indent=" " * 10, subsequent_indent=" " * 10)
        if self.counterexample:
            width = max(map(len, self.counterexample))
            lines += [f"{'':12s}{name:{width}s} = {_shown(value)}" for name, value in self.counterexample.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All checks of one regularizer, or of one pair of value and prox.

    Attributes
    ----------
    subject : str
        What was verified.
    checks : tuple of Check
        In the order in which they ran.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and one at least passed."""
        verdicts = [check.verdict for check in self.checks]
        return "failed" not in verdicts and "passed" in verdicts

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")

    @property
    def counterexample(self) -> dict[str, Any] | None:
        """The numbers of the first failure."""
        return self.failures[0].counterexample if self.failures else None

    def __str__(self) -> str:
        head = f"{'passed' if self.passed else 'FAILED'}: {self.subject}"
        return "\n".join([head, *(textwrap.indent(str(check), "  ") for check in self.checks)])


@dataclass(frozen=True)
class Proof:
    """The theorem about a regularizer and its verdict, or the numbers that refute it.

    Attributes
    ----------
    regularizer : str
        The regularizer as typed; where the theorem says so, its parameters are replaced by variables.
    theorem : str
        The statement, or why there is none.
    verdict : str
        "proved"; "proved for n = 2", for codes of that many entries only; "proved for this tree", for the groups given;
        "certified at N points" (u, t), for all z; "counterexample"; or "unknown", where the prover ran out of time or
        cannot read the formula.
    counterexample : dict or None
        The numbers of the parameters and, where a prox is wrong, u, t, the claimed z, a better z and both objectives,
        as floats (NaN where a formula is undefined), and under "fails" the part of the theorem that does not hold.
    seconds : float
        CPU time taken.
    """

    regularizer: str
    theorem: str
    verdict: str
    counterexample: dict[str, Any] | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.regularizer}: {self.verdict} in {self.seconds:.2f} s: {self.theorem}"
        return text if self.counterexample is None else f"{text}\n  {self.counterexample}"


def counterexample(u: Any, t: float, claimed: Any, better: Any, objectives: tuple[float, float]) -> dict[str, Any]:
    """Return the numbers of a refutation under the names that every oracle uses."""
    return {
        "u": u,
        "t": float(t),
        "claimed z": claimed,
        "better z": better,
        "claimed objective": float(objectives[0]),
        "better objective": float(objectives[1]),
    }


class RefutedError(Exception):
    """Raised with the numbers and the reason where a function under test returns a wrong result."""

    def __init__(self, numbers: dict[str, Any], reason: str) -> None:
        super().__init__(reason)
        self.numbers = numbers
        self.reason = reason


def run(check: partial[Check]) -> Check:
    """Run a check and measure its time; an exception from the functions under test is a failure."""
    start = time.perf_counter()
    name, covers = check.func.__name__.replace("_", " "), "calls of the two functions"
    try:
        with np.errstate(all="ignore"):  # infinity and NaN are findings here, not accidents
            result = check()
    except RefutedError as refuted:
        result = Check(name, covers, "failed", refuted.numbers, refuted.reason)
    except Exception as error:  # a user's function may raise anything
        result = Check(name, covers, "failed", {"raised": repr(error)}, "the value or the prox raised an exception")
    return replace(result, seconds=time.perf_counter() - start)


def _shown(value: Any) -> str:
    return np.array2string(value, threshold=24) if isinstance(value, np.ndarray) else repr(value)
