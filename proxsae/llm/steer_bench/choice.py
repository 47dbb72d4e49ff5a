"""The choice of the direction that steers an axis, on one half of the templates, by one rule for all autoencoders."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 16


class Push(NamedTuple):
    """A direction, its sign towards side a, and the atom whose code is clamped along it, None where it is added."""

    vector: NDArray[np.float32]
    sign: int
    atom: int | None = None


def mean_difference(x_a: NDArray[np.float32], x_b: NDArray[np.float32]) -> Push:
    """Return the difference of the means of the two sides, the supervised reference."""
    return Push(x_a.mean(axis=0) - x_b.mean(axis=0), 1)


def one_atom(z_a: Any, z_b: Any, D: NDArray[np.float32], slope: NDArray[np.float32]) -> Push:
    r"""Return the atom that serves both directions, with its sign.

    Among the 16 atoms whose mean codes differ most between the sides, it is the atom along which the log-odds rise or
    fall fastest, by :math:`|d_i \cdot \nabla| / \|d_i\|`. Atoms whose code is larger on the side towards which d_i
    pushes come first.
    """
    difference = _mean(z_a) - _mean(z_b)
    rise = _rise(D, slope)
    candidates = np.argsort(-np.abs(difference), kind="stable")[:CANDIDATES]
    agrees = difference[candidates] * rise[candidates] > 0
    among = candidates[agrees] if agrees.any() else candidates
    atom = int(among[np.argmax(np.abs(rise[among]))])
    return Push(D[atom], 1 if rise[atom] > 0 else -1, atom)


def pair_of_atoms(z_a: Any, z_b: Any, D: NDArray[np.float32], slope: NDArray[np.float32]) -> tuple[Push, Push]:
    """Return an atom for each direction, in the sign in which it fires.

    A signed atom counts as two one-sided atoms. For side a it is, among the 16 atoms that fire most more on a than on
    b, the atom along which the log-odds rise fastest; for side b likewise the atom along which they fall fastest.
    """
    rise = _rise(D, slope)
    pushes = []
    for towards, (here, there) in ((1, (z_a, z_b)), (-1, (z_b, z_a))):
        best: tuple[float, Push] | None = None
        for sign in (1, -1):
            difference = _mean(_part(here, sign)) - _mean(_part(there, sign))
            gains = towards * sign * rise
            for atom in np.argsort(-difference, kind="stable")[:CANDIDATES]:
                if difference[atom] > 0 and (best is None or gains[atom] > best[0]):
                    # the sign is that towards a: a push towards b goes against it
                    best = float(gains[atom]), Push(D[atom], towards * sign, int(atom))
        pushes.append(best[1] if best else one_atom(z_a, z_b, D, slope))
    return pushes[0], pushes[1]


def random_atom(codes: Any, D: NDArray[np.float32], random: np.random.Generator) -> Push:
    """Return an atom that fires somewhere, with a random sign."""
    alive = np.unique(codes.nonzero()[1])
    atom = int(random.choice(alive))
    return Push(D[atom], int(random.choice([-1, 1])), atom)


def random_direction(n_features: int, random: np.random.Generator) -> Push:
    """Return a direction that is uniform on the sphere."""
    return Push(random.normal(size=n_features).astype(np.float32), 1)


def _rise(D: NDArray[np.float32], slope: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(D, axis=1)
    return np.asarray(D @ slope / np.where(norms > 0, norms, np.inf), np.float32)


def _mean(Z: Any) -> NDArray[np.float64]:
    return np.asarray(Z.mean(axis=0), np.float64).ravel()


def _part(Z: Any, sign: int) -> Any:
    """Return the codes of one sign, as positive numbers."""
    return (sign * Z).maximum(0)
