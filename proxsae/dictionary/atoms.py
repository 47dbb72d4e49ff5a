"""Dictionaries to make data of; every atom has norm 1."""

from __future__ import annotations

from typing import Any

from sklearn.utils import check_random_state

from proxsae.dictionary.arrays import Matrix, unit
from proxsae.formulas.integers import is_count


def sphere_atoms(n_components: int, n_features: int, *, random_state: Any = None) -> Matrix:
    """Return atoms uniform on the sphere.

    Parameters
    ----------
    n_components, n_features : int
        The shape, at least 1 each.
    random_state : int, RandomState or None
    """
    if not is_count(n_components) or not is_count(n_features):
        raise ValueError(f"n_components and n_features must be integers >= 1, got {n_components!r} and {n_features!r}")
    return unit(check_random_state(random_state).standard_normal((n_components, n_features)))
