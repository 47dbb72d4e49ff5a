"""Codes for a fixed dictionary: `solve`, and the algorithms and certificates it is made of."""

from proxsae.solvers.problem import Problem
from proxsae.solvers.solve import Solution, solve

__all__ = ["Problem", "Solution", "solve"]
