"""Proofs by z3, for all real numbers at once."""
