"""Feature cards: what makes an atom active, on its positive and on its negative side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore


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
    """Return cards of atoms: of those given, or those that speak clearly in both directions (in one, if none is < 0).

    Parameters
    ----------
    codes : CSR matrix of shape (n_samples, n_components)
        Codes of the rows of the store.
    store : ActivationStore
    decode : callable
        From a token id to its text.
    atoms : sequence of int, optional
        Which; None takes the `n_features` that :func:`clearest_atoms` finds.
    n_features, n_contexts : int
        Cards, and contexts a side.
    window : int
        Tokens shown on each side of the active one.
    """
    columns = codes.tocsc()
    return [
        FeatureCard(
            atom=int(atom),
            n_samples=codes.shape[0],
            activations=columns.data[columns.indptr[atom] : columns.indptr[atom + 1]],
            positive=_contexts(columns, atom, 1, store, decode, n_contexts, window),
            negative=_contexts(columns, atom, -1, store, decode, n_contexts, window),
        )
        for atom in (clearest_atoms(columns, n_features) if atoms is None else atoms)
    ]


def clearest_atoms(columns: Any, n: int, max_density: float = 0.02, top: int = 20) -> Any:
    """Return the n atoms whose weaker side is strongest: the mean of its `top` largest activations in modulus.

    Only atoms active on at most `max_density` of the samples count, since an atom that is always on says little about a
    token, and only atoms with `top` activations on each side; where no code is negative, the positive side alone.
    """
    signed = bool((columns.data < 0).any())
    strength = np.zeros(columns.shape[1])
    for atom in range(columns.shape[1]):
        z = columns.data[columns.indptr[atom] : columns.indptr[atom + 1]]
        if len(z) > max_density * columns.shape[0]:
            continue
        sides = [np.sort(z[z > 0])[-top:], np.sort(-z[z < 0])[-top:]] if signed else [np.sort(z)[-top:]]
        if all(len(side) == top for side in sides):
            strength[atom] = min(side.mean() for side in sides)
    order = np.argsort(-strength, kind="stable")[:n]
    return order[strength[order] > 0]


def _contexts(
    columns: Any, atom: int, side: int, store: Any, decode: Callable[[int], str], n_contexts: int, window: int
) -> list[list[Token]]:
    entries = slice(columns.indptr[atom], columns.indptr[atom + 1])
    rows, z = columns.indices[entries], columns.data[entries]
    activation_of = dict(zip(rows.tolist(), z.tolist(), strict=True))
    strongest = rows[np.argsort(-side * z, kind="stable")]
    strongest = strongest[: int((side * z > 0).sum())]
    shown: list[list[Token]] = []
    seen: set[int] = set()
    for row in strongest.tolist():
        context = int(store.trace([row])[0][0])
        if context in seen:  # one example a context: neighbours of a peak say the same again
            continue
        seen.add(context)
        shown.append(_tokens_around(row, store, decode, window, activation_of))
        if len(shown) == n_contexts:
            break
    return shown


def _tokens_around(
    row: int, store: Any, decode: Callable[[int], str], window: int, activation_of: dict[int, float]
) -> list[Token]:
    """Return the tokens around a row with the activations there; dropped positions have no row and show none."""
    context, position = (int(a[0]) for a in store.trace([row]))
    tokens = store.tokens(context)
    near = np.arange(max(0, row - len(tokens)), min(len(store), row + len(tokens)))
    contexts, positions = store.trace(near)
    row_at = {int(p): int(r) for r, c, p in zip(near, contexts, positions, strict=True) if c == context}
    return [
        Token(decode(int(tokens[p])), activation_of.get(row_at.get(p, -1), 0.0), p == position)
        for p in range(max(0, position - window), min(len(tokens), position + window + 1))
    ]
