"""Encoders x -> z as torch modules; every one of them calls the prox of R."""

from proxsae.encoders.amortized import Amortized
from proxsae.encoders.base import Encoder, Encoding
from proxsae.encoders.codes import Codes
from proxsae.encoders.solved import Solved
from proxsae.encoders.unrolled import Unrolled

__all__ = ["Amortized", "Codes", "Encoder", "Encoding", "Solved", "Unrolled"]
