"""The best codes with at most k non-zeros: by all supports or, where these are too many, by branch and bound.

The problem is NP-hard in general: Natarajan (1995), Sparse approximate solutions to linear systems, SIAM J. Comput. 24.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Cardinality, Regularizer
from proxsae.solvers.algorithm import Direct
from proxsae.solvers.bounded import check_zero_atoms
from proxsae.solvers.pursuits.branch_and_bound import TERMS, Search
from proxsae.solvers.pursuits.enumeration import Enumeration
from proxsae.solvers.pursuits.pursuit import refuses_partner

MOST_SUPPORTS = 1_000_000  # for each sample; that many of three atoms take a few seconds


def plan(D: Array, R: Cardinality, *_: Any) -> Enumeration | Search:
    """Return the search for the best codes over a dictionary, or raise ValueError where none ends in bounded time."""
    check_zero_atoms(R.partner, D)
    enumeration = Enumeration(D, R)
    if (n := enumeration.n_supports) <= MOST_SUPPORTS:
        return enumeration
    too_many = (
        f"'exact' looks at {MOST_SUPPORTS:,} supports at most, and there are {n:.3g} of {R.k} "
        f"among {len(enumeration.used)} atoms that are not zero"
    )
    search = Search(D, R)
    if not all(type(term) in TERMS for term in R.partner.terms) or not search.is_bounded:
        raise ValueError(
            f"{too_many}; a search needs a partner of L1, SquaredL2, NonNegative and Box, and codes that are bounded "
            'by one of them or by atoms that are independent; use "swap"'
        )
    if find_spec("pyscipopt") is None:
        raise ValueError(f'{too_many}; pip install pyscipopt to search them, or use "swap"')
    return search


def _refuses(R: Regularizer) -> str | None:
    if (lack := refuses_partner(R)) is not None:
        return lack
    assert isinstance(R, Cardinality)
    return None if R.partner.is_convex else f"needs a convex partner, and {R.partner} is not convex"


EXACT = Direct(plan, _refuses, takes_init=False, has_step=False)
