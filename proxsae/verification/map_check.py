"""Whether a map of whole codes is a prox: monotone between pairs, with a symmetric semidefinite Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxsae.formulas.integers import checked_count
from proxsae.verification.functions import on_arrays

ACCURACY = 1e-5  # of a Jacobian by central differences
N_POINTS, RADIUS = 40, 3.0  # which are normal with this standard deviation


@dataclass(frozen=True, eq=False)
class MapCheck:
    """What :func:`check_map` found: the first violation, or none.

    Attributes
    ----------
    is_prox : bool
        False is certain; True says only that no violation was found.
    violation : {"monotone", "symmetric", "semidefinite"} or None
        Which condition fails.
    detail : str
        The failure in words, with its numbers.
    points : tuple of arrays
        The pair (u, v) where it is monotonicity, else the point u.
    """

    is_prox: bool
    violation: str | None
    detail: str
    points: tuple[Any, ...]

    def __str__(self) -> str:
        return f"no violation found: {self.detail}" if self.is_prox else f"not a prox of any R: {self.detail}"


def check_map(function: Callable[[Any], Any], n_components: int, *, random_state: int = 0) -> MapCheck:
    r"""Return whether a map R^p -> R^p can be a prox, by the conditions of Gribonval and Nikolova.

    A map is the prox of some R exactly if it is a subgradient of a convex function. Then
    :math:`\langle F(u) - F(v), u - v\rangle \ge 0` for all pairs, and where F is differentiable its Jacobian is
    symmetric and positive semidefinite; on an open convex set where F is continuously differentiable this is enough.

    Parameters
    ----------
    function : callable
        F, of a float64 vector of shape (n_components,), NumPy or Torch.
    n_components : int
        p.
    random_state : int, default 0
        Seed of the points; each is paired with others, near and far, and with its own entries exchanged.

    Raises
    ------
    TypeError, ValueError
        If the map is no function, does not return `n_components` finite numbers, or `n_components` is no count.

    References
    ----------
    Gribonval and Nikolova (2020), A characterization of proximity operators, J. Math. Imaging Vis. 62.
    """
    if not callable(function):
        raise TypeError(f"the map must be a function, got {function!r}")
    n_components = checked_count("n_components", n_components)
    rng = np.random.default_rng(random_state)
    points = rng.normal(size=(N_POINTS, n_components)) * RADIUS
    function = on_arrays(function, points[0])

    def image_of(u: Any) -> Any:
        image = np.asarray(function(u.copy()), dtype=np.float64)
        if image.shape != u.shape or not np.isfinite(image).all():
            raise ValueError(f"the map must return {n_components} finite numbers, got {image!r} at {u!r}")
        return image

    for u in points:
        image = image_of(u)
        others = [*points[:8], *(u + rng.normal(size=(4, n_components)) * RADIUS * 10.0**-k for k in range(4)), -u]
        for v in (*np.concatenate([np.atleast_2d(other) for other in others]), *_exchanges(u, rng)):
            product = float((image - image_of(v)) @ (u - v))
            if product < -1e-9 * (1 + np.abs(u).max() + np.abs(v).max()) ** 2:
                sentence = f"<F(u) - F(v), u - v> = {product:.6g} < 0 at u = {u}, v = {v}"
                return MapCheck(False, "monotone", sentence, (u, v))
    differentiable = 0
    for u in points:
        J = _jacobian(image_of, u)
        if J is None:
            continue
        differentiable += 1
        skew = np.abs(J - J.T)
        i, j = np.unravel_index(skew.argmax(), skew.shape)
        scale = 1 + np.abs(J).max()
        if skew[i, j] > 10 * ACCURACY * scale:
            sentence = f"dF_{i}/du_{j} = {J[i, j]:.6g} and dF_{j}/du_{i} = {J[j, i]:.6g} at u = {u}"
            return MapCheck(False, "symmetric", sentence, (u,))
        least = float(np.linalg.eigvalsh(0.5 * (J + J.T))[0])
        if least < -10 * ACCURACY * scale:
            sentence = f"the Jacobian has the eigenvalue {least:.6g} < 0 at u = {u}"
            return MapCheck(False, "semidefinite", sentence, (u,))
    return MapCheck(True, None, f"{N_POINTS} points, {differentiable} with a Jacobian", ())


def _exchanges(u: Any, rng: Any) -> list[Any]:
    """Return u with two entries exchanged, which refutes a selection by the wrong order."""
    exchanged = []
    for _ in range(6):
        i, j = rng.integers(len(u), size=2)
        v = u.copy()
        v[[i, j]] = v[[j, i]]
        exchanged.append(v)
    return exchanged


def _jacobian(image_of: Callable[[Any], Any], u: Any) -> Any:
    """Return the Jacobian by central differences, or None where two step sizes disagree: a kink or a jump is near."""

    def differences(h: float) -> Any:
        return np.stack([(image_of(u + h * e) - image_of(u - h * e)) / (2 * h) for e in np.eye(len(u))], axis=1)

    coarse, fine = differences(1e-5), differences(5e-6)
    return fine if np.allclose(coarse, fine, rtol=ACCURACY, atol=ACCURACY) else None
