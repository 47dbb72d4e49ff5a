"""The settings of a regularizer by name, for searches over ``regularizer__weight`` or ``regularizer__k``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from proxsae.regularizers.base import Regularizer

Path = tuple[str, ...]  # the names of the fields that lead to a number


def settings_of(R: Regularizer) -> dict[str, Any]:
    """Return the numbers that R was made with: ``weight``, ``k`` ...; where two share a name, ``L1_weight``."""
    return {name: reduce(getattr, path, R.terms[term]) for name, (term, path) in _places(R).items()}


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
        term, path = places[name]
        terms[term] = _replaced(terms[term], path, value)
    return reduce(add, terms)


def _replaced(R: Regularizer, path: Path, value: Any) -> Regularizer:
    field, *rest = path
    return R.replace(**{field: _replaced(getattr(R, field), tuple(rest), value) if rest else value})


def _places(R: Regularizer) -> dict[str, tuple[int, Path]]:
    """Return for each name the term and the path of fields there."""
    found = [(number, owner, path) for number, term in enumerate(R.terms) for owner, path in _numbers(term)]
    names = [path[-1] for _, _, path in found]
    return {
        path[-1] if names.count(path[-1]) == 1 else f"{type(owner).__name__}_{path[-1]}": (number, path)
        for number, owner, path in found
    }


def _numbers(R: Regularizer) -> Iterator[tuple[Regularizer, Path]]:
    """Yield whose each number of R, or of a regularizer inside it, is, and its path; of weights only the outermost."""
    names = [f.name for f in fields(R) if f.init and not (f.name == "weight" and R.is_indicator)]
    for name in names:
        value = getattr(R, name)
        if isinstance(value, int | float | np.ndarray):
            yield R, (name,)
        elif isinstance(value, Regularizer):
            inner = ((owner, (name, *path)) for owner, path in _numbers(value))
            yield from (found for found in inner if "weight" not in names or found[1][-1] != "weight")
