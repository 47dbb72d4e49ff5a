"""Every theorem that `proxsae prove` proves, one for each class and the sums, and the classes that it only searches."""

from __future__ import annotations

from collections.abc import Iterator

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.naming import parse
from proxsae.verification.proofs.prove import prove
from proxsae.verification.report import Proof
from proxsae.verification.verify import verify

# The parameters are one admissible choice: each theorem is about all of them, except where it is certified.
CLASSES = (
    "Zero",
    "L1",
    "L0",
    "SquaredL2",
    "NonNegative",
    "Box(-1.0, 2.0)",
    "MCP(3.0)",
    "SCAD(3.7, 1.0)",
    "CappedL1(1.0)",
    "Huber(1.0)",
    "Tilt(0.5)",
    "AsymmetricL0(0.2, 0.6)",
    "Translated(L1, 0.5)",
    "Lq(0.5)",
    "Lq(0.6666666666666666)",
    "LogSum(0.5)",
)
SUMS = (
    "L1 + NonNegative",
    "L0 + NonNegative",
    "L1 + SquaredL2",
    "L1 + SquaredL2 + NonNegative",
    "L0 + SquaredL2",
    "L1 + L0",
    "L1 + Box(-1.0, 2.0)",
    "L0 + Box(-1.0, 2.0)",
    "MCP(3.0) + NonNegative",
    "LogSum(0.5) + NonNegative",
)
SELECTIONS = (
    "Cardinality(2)",
    "NonNegative + Cardinality(2)",
    "L1 + Cardinality(2)",
    "SquaredL2 + Cardinality(2)",
    'Cardinality(2, "batch")',
    "LogSum(0.5) + Cardinality(2)",
)
GROUPS = (
    "OfNorms(MCP(3.0), 2)",
    "OfNorms(SCAD(3.7, 1.0), 2)",
    "OfNorms(Lq(0.5), 2)",
    "GroupL2(2)",
    "GroupL0(2)",
    "GroupCardinality(1, 2)",
    "L1 + GroupL2(2)",
    "L1 + NonNegative + GroupL2(2)",
    "GroupL2(2) + GroupL0(2)",
    "GroupL2(2) + GroupCardinality(1, 2)",
    "L1 + NonNegative + GroupCardinality(1, 2)",
    "TreeGroups([[0], [0, 1], [2]])",
    "L1 + TreeGroups([[0], [0, 1], [2]])",
)
WHOLE_CODES = (
    "Simplex",
    "L1Ball",
    "L1Ball + NonNegative",
    "L2Ball",
    "L1 + L2Ball",
    "LInf",
    "SortedL1([1.0, 0.5])",
    "SumOfKLargest(1)",
    "Simplex + SquaredL2",
    "Translated(L1Ball, 0.5)",
    "Blocks([(Simplex, 2), (L1, 3)])",
)

CERTIFIED = ("Lq(0.3)", "Tanh(1.0)", "Entmax(1.5)", "Entmax(1.2)")
SEARCHED = ("KSupport(2)", "KSupportNorm(2)", "L1MinusL2")  # where z3 is not done within seconds


def prove_all(timeout: float = 60.0) -> Iterator[Proof]:
    """Yield the proof of every theorem, each within `timeout` seconds, and then what is only searched."""
    for text in (*CLASSES, *SUMS, *SELECTIONS, *GROUPS, *WHOLE_CODES, *CERTIFIED):
        yield prove(parse(text), timeout=timeout)
    for text in SEARCHED:
        yield _searched(parse(text))


def _searched(R: Regularizer) -> Proof:
    report = verify(R, proof_timeout=0.0)
    seconds = sum(check.seconds for check in report.checks)
    if not report.passed:
        return Proof(repr(R), report.failures[0].covers, "counterexample", report.counterexample, seconds)
    theorem = f"no theorem; no better z is found among {report.checks[0].covers}"
    return Proof(repr(R), theorem, "searched", seconds=seconds)
