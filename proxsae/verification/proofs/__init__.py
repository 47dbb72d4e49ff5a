"""Proofs by z3: what holds for all real numbers at once."""
