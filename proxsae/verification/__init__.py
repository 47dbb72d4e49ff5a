"""Checks of a prox: search, enumeration, convex and mixed-integer solvers, properties and proofs, in one report."""

from proxsae.verification.from_activation import regularizer_of
from proxsae.verification.map_check import check_map
from proxsae.verification.proofs.prove import prove
from proxsae.verification.report import Check, Proof, Report
from proxsae.verification.verify import verify

__all__ = ["Check", "Proof", "Report", "check_map", "prove", "regularizer_of", "verify"]
