"""Which cases of a test are left to ``make soak``: those that take seconds and whose kind another case shows."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pytest


def apart_from(slow: Collection[Any], cases: Iterable[Any]) -> Iterator[Any]:
    """Yield the cases, the slow ones marked."""
    for case in cases:
        yield pytest.param(case, marks=pytest.mark.soak) if case in slow else case
