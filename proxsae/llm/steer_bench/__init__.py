"""The steering benchmark: how far an atom moves the odds of a concept, at what damage to everything else."""

from proxsae.llm.steer_bench.run import steer_bench
from proxsae.llm.steer_bench.summary import at_damage, differences, summarise

__all__ = ["at_damage", "differences", "steer_bench", "summarise"]
