"""The truth values of a formula that is read over boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsae.verification.boxes.enclosures import Enclosure


class Condition:
    """A truth value of a formula, one a box."""

    def __and__(self, other: Condition) -> Condition:
        return Both(self, other)

    def __or__(self, other: Condition) -> Condition:
        return ~Both(~self, ~other)

    def __invert__(self) -> Condition:
        return Negation(self)

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch in Python on its arguments; use xp.where")


@dataclass(frozen=True, eq=False)
class Comparison(Condition):
    """left > right."""

    left: Enclosure
    right: Enclosure
    excess: Enclosure


@dataclass(frozen=True, eq=False)
class Both(Condition):
    """The conjunction."""

    one: Condition
    two: Condition


@dataclass(frozen=True, eq=False)
class Negation(Condition):
    """The contrary."""

    inner: Condition


@dataclass(frozen=True, eq=False)
class Choice:
    """What `where` returned: `first` where the condition holds, and else `second`, itself the result of `before`."""

    condition: Condition
    first: Enclosure
    second: Enclosure
    before: Choice | None
