"""How far a dictionary is from an orthonormal one."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.dictionary.arrays import checked_dictionary, cosines_of_others


def mutual_coherence(D: Any) -> float:
    r"""Return :math:`\mu = \max_{i \ne j} |\langle d_i, d_j \rangle|`, with atoms at norm 1.

    Codes of fewer than :math:`\frac12 (1 + 1/\mu)` non-zeros are unique, and found by orthogonal matching pursuit and
    by L1. The coherence of a single atom is 0; an atom of zeros has cosine 0 with every other.

    Parameters
    ----------
    D : array of shape (n_components, n_features)

    References
    ----------
    Donoho and Elad (2003), Proc. Natl. Acad. Sci. 100; Tropp (2004), Greed is good, IEEE Trans. Inf. Theory 50.

    Examples
    --------
    >>> mutual_coherence([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    0.7071067811865475
    """
    return float(min(1.0, max(np.abs(C).max() for _, C in cosines_of_others(checked_dictionary(D)))))
