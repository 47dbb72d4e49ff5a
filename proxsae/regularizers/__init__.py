"""R: what the user specifies. Every regularizer carries its value and its proximal operator."""

from proxsae.regularizers.asymmetric import AsymmetricL0, Tilt, gated
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import L0, L1, Box, LInfBall, NonNegative, SquaredL2, Zero
from proxsae.regularizers.blocks import Blocks
from proxsae.regularizers.cardinality import Cardinality, GroupCardinality, GroupL0
from proxsae.regularizers.concave import CEL0, MCP, SCAD, CappedL1
from proxsae.regularizers.entmax import Entmax
from proxsae.regularizers.envelope import conjugate_prox, moreau_envelope
from proxsae.regularizers.from_cvxpy import FromCvxpy, from_cvxpy
from proxsae.regularizers.groups import GroupL2, L2Ball, OfNorms
from proxsae.regularizers.huber import Huber
from proxsae.regularizers.k_support import KSupport, KSupportNorm, L1MinusL2
from proxsae.regularizers.log_tanh import LogSum, Tanh
from proxsae.regularizers.naming import get, parse
from proxsae.regularizers.numeric import Numeric
from proxsae.regularizers.powers import Lq
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.simplex import L1Ball, LInf, Simplex
from proxsae.regularizers.sorted_l1 import SortedL1, SumOfKLargest
from proxsae.regularizers.translated import Translated
from proxsae.regularizers.tree import TreeGroups

__all__ = [
    "CEL0",
    "L0",
    "L1",
    "MCP",
    "SCAD",
    "AsymmetricL0",
    "Blocks",
    "Box",
    "CappedL1",
    "Cardinality",
    "Entmax",
    "FromCvxpy",
    "GroupCardinality",
    "GroupL0",
    "GroupL2",
    "Huber",
    "KSupport",
    "KSupportNorm",
    "L1Ball",
    "L1MinusL2",
    "L2Ball",
    "LInf",
    "LInfBall",
    "LogSum",
    "Lq",
    "NonNegative",
    "Numeric",
    "OfNorms",
    "Regularizer",
    "Separable",
    "Simplex",
    "SortedL1",
    "SquaredL2",
    "SumOfKLargest",
    "Tanh",
    "Tilt",
    "Translated",
    "TreeGroups",
    "Zero",
    "conjugate_prox",
    "from_cvxpy",
    "gated",
    "get",
    "moreau_envelope",
    "parse",
]
