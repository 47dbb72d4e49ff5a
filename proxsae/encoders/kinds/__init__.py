"""The kinds of unrolled encoders: how a layer gets its pre-activation from the layers before it, a file each."""

from proxsae.encoders.kinds.base import KINDS, Kind, Past
from proxsae.encoders.kinds.ista import Ista

__all__ = ["KINDS", "Ista", "Kind", "Past"]
