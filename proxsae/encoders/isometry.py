"""How far the atoms that a sample is about to use are from orthonormal."""

from __future__ import annotations

from torch import Tensor

from proxsae.kernels.sparse import Pattern, pairs


def isometry_defect(atoms: Tensor, supports: Pattern) -> Tensor:
    r"""Return :math:`\mathrm{tr}(G_S^2) / |S| - 1` of each sample, G_S the Gram matrix of the atoms in S.

    For atoms of unit norm it is the sum of the squared inner products of different atoms over :math:`|S|`: 0 where they
    are orthonormal, so that a small value stands for a restricted isometry of the supports that occur. A sample with an
    empty support counts as 0.

    Parameters
    ----------
    atoms : Tensor of shape (n_components, n_features)
    supports : Pattern
        S of each sample.
    """
    if not len(supports.indices):
        return atoms.new_zeros(supports.n_rows)
    first, second = pairs(supports, supports)
    places = supports.indices[first] * len(atoms) + supports.indices[second]
    squares = (atoms @ atoms.T).reshape(-1).index_select(0, places).square()
    sizes, rows = supports.offsets.diff(), supports.rows[first]
    sums = squares.new_zeros(len(sizes)).index_add(0, rows, squares / sizes[rows])
    return sums - (sizes > 0).int()
