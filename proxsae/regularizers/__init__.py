"""R: what the user specifies. Every regularizer carries its value and its proximal operator."""

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.catalog import get, parse
from proxsae.regularizers.scalar import L0, L1, Box, NonNegative, SquaredL2, Zero
from proxsae.regularizers.selection import Cardinality
from proxsae.regularizers.separable import Separable

__all__ = [
    "L0",
    "L1",
    "Box",
    "Cardinality",
    "NonNegative",
    "Regularizer",
    "Separable",
    "SquaredL2",
    "Zero",
    "get",
    "parse",
]
