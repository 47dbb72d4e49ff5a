"""The kinds of unrolled encoders: how a layer gets its pre-activation from the layers before it, a file each."""

from proxsae.encoders.kinds.alista import Alista
from proxsae.encoders.kinds.base import KINDS, Kind, Past
from proxsae.encoders.kinds.bregman import Bregman, Lca
from proxsae.encoders.kinds.ista import Ista
from proxsae.encoders.kinds.lista import Lista
from proxsae.encoders.kinds.lista_cp import ListaCp

__all__ = ["KINDS", "Alista", "Bregman", "Ista", "Kind", "Lca", "Lista", "ListaCp", "Past"]
