"""Is this prox right? Search, enumeration, convex and mixed-integer solvers, properties and proofs; one report."""

from proxsae.verification.checks import verify
from proxsae.verification.proof import Proof, prove
from proxsae.verification.report import Check, Report

__all__ = ["Check", "Proof", "Report", "prove", "verify"]
