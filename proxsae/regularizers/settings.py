"""The settings of a regularizer by name, for searches over ``regularizer__weight`` or ``regularizer__k``."""

from __future__ import annotations

from dataclasses import fields
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from proxsae.regularizers.base import Regularizer


def settings_of(R: Regularizer) -> dict[str, Any]:
    """Return the numbers that R was made with: ``weight``, ``k`` ...; where two terms share a name, ``L1_weight``."""
    return {name: getattr(R.terms[term], field) for name, (term, field) in _places(R).items()}


def with_settings(R: Regularizer, **settings: Any) -> Regularizer:
    """Return R with other numbers.

    Raises
    ------
    ValueError
        If R has no setting of a name.
    """
    places = _places(R)
    terms: list[Regularizer] = list(R.terms)
    for name, value in settings.items():
        if name not in places:
            raise ValueError(f"{R} has no setting {name!r}; it has {', '.join(places) or 'none'}")
        term, field = places[name]
        terms[term] = terms[term].replace(**{field: value})
    return reduce(add, terms)


def _places(R: Regularizer) -> dict[str, tuple[int, str]]:
    """Return for each name the term and the field there."""
    found = [(number, name) for number, term in enumerate(R.terms) for name in _numbers(term)]
    names = [name for _, name in found]
    return {
        name if names.count(name) == 1 else f"{type(R.terms[number]).__name__}_{name}": (number, name)
        for number, name in found
    }


def _numbers(term: Regularizer) -> list[str]:
    names = [f.name for f in fields(term) if f.init and not (f.name == "weight" and term.is_indicator)]
    return [name for name in names if isinstance(getattr(term, name), int | float | np.ndarray)]
