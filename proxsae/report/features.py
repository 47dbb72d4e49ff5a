"""Feature cards: contexts in which an atom is active, on its positive and on its negative side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proxsae.report.examples import TokenPlaces

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore

MAX_DENSITY = 0.02  # an atom that is nearly always on says little about a token
TOP = 20  # activations a side on which the clearness of an atom is measured


@dataclass(frozen=True)
class Token:
    """A token of a context: its text, the activation of the atom there, and whether the context is shown for it."""

    text: str
    activation: float
    is_active: bool


@dataclass(frozen=True)
class FeatureCard:
    """One atom: how often and how strongly it is active on each side, and the contexts of its extremes."""

    atom: int
    n_samples: int
    activations: Any  # all non-zero activations, signed
    positive: list[list[Token]]  # contexts, the strongest first
    negative: list[list[Token]]

    @property
    def density(self) -> float:
        """The fraction of samples on which the atom is active."""
        return len(self.activations) / self.n_samples

    @property
    def n_positive(self) -> int:
        """On how many samples the activation is positive."""
        return int((self.activations > 0).sum())

    @property
    def n_negative(self) -> int:
        """On how many samples the activation is negative."""
        return int((self.activations < 0).sum())


def feature_cards(
    codes: Any,
    store: ActivationStore,
    decode: Callable[[int], str],
    *,
    atoms: Sequence[int] | None = None,
    n_features: int = 12,
    n_contexts: int = 6,
    window: int = 12,
) -> list[FeatureCard]:
    """Return cards of atoms: of those given, or of those that are clear in both directions (in one, if no code is < 0).

    Parameters
    ----------
    codes : CSR matrix of shape (n_samples, n_components)
        Codes of the rows of the store.
    store : ActivationStore
    decode : callable
        From a token id to its text.
    atoms : sequence of int, optional
        The atoms to show; None takes the `n_features` atoms of :func:`clearest_atoms`.
    n_features, n_contexts : int
        Cards, and contexts a side.
    window : int
        Tokens shown on each side of the active one.
    """
    columns = codes.tocsc()
    places = TokenPlaces(store)
    cards = []
    for atom in clearest_atoms(columns, n_features) if atoms is None else atoms:
        entries = slice(columns.indptr[atom], columns.indptr[atom + 1])
        rows, z = columns.indices[entries], columns.data[entries]
        sides = [_contexts(places, rows, z, side, decode, n_contexts, window) for side in (1, -1)]
        cards.append(FeatureCard(int(atom), codes.shape[0], z, *sides))
    return cards


def clearest_atoms(columns: Any, n: int) -> Any:
    """Return the n atoms of largest clearness, in that order; none of clearness 0."""
    clear = clearness(columns)
    order = np.argsort(-clear, kind="stable")[:n]
    return order[clear[order] > 0]


def clearness(columns: Any) -> NDArray[np.float64]:
    """Return how strong the weaker side of each atom is: the mean of its 20 largest activations in modulus.

    Only atoms active on at most 2 % of the samples count, and only atoms with 20 activations on each side; where no
    code is negative, the positive side alone. The clearness of all other atoms is 0, and -1 if they never fire, so that
    these come last.
    """
    signed = bool((columns.data < 0).any())
    clear = np.zeros(columns.shape[1])
    for atom in range(columns.shape[1]):
        z = columns.data[columns.indptr[atom] : columns.indptr[atom + 1]]
        if not z.any():
            clear[atom] = -1.0
            continue
        if len(z) > MAX_DENSITY * columns.shape[0]:
            continue
        sides = [np.sort(z[z > 0])[-TOP:], np.sort(-z[z < 0])[-TOP:]] if signed else [np.sort(z)[-TOP:]]
        if all(len(side) == TOP for side in sides):
            clear[atom] = min(side.mean() for side in sides)
    return clear


def _contexts(
    places: TokenPlaces, rows: Any, z: Any, side: int, decode: Callable[[int], str], n_contexts: int, window: int
) -> list[list[Token]]:
    """Return the tokens around the strongest rows with the activations there; dropped positions show none."""
    activation_of = dict(zip(rows.tolist(), z.tolist(), strict=True))
    shown = places.strongest(rows, side * z, n_contexts)
    return [
        [
            Token(decode(token), activation_of.get(near, 0.0), near == row)
            for token, near in zip(tokens, around, strict=True)
            if token >= 0
        ]
        for row, tokens, around in zip(
            shown.tolist(), *(part.tolist() for part in places.window(shown, window)), strict=True
        )
    ]
