"""The proximal-gradient family: each algorithm is a state and a pure step; the driver does stopping and display.

A step is made of array operations alone: it can be batched, run on a GPU, differentiated and unrolled as an encoder.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.problem import Problem


class IstaState(NamedTuple):
    """The state of ISTA between two steps."""

    codes: Array  # z_k, (n_samples, n_components)


def ista_start(problem: Problem, codes: Array) -> IstaState:  # noqa: ARG001
    """Return the state at given codes."""
    return IstaState(codes)


def ista_update(problem: Problem, state: IstaState) -> IstaState:
    r"""Return one step :math:`z^+ = \mathrm{prox}_{tR}(z - t \nabla f(z))`.

    For t <= 1/L the objective never increases, whether R is convex or not: the step minimises an upper bound of F that
    touches it at z. With R = i{||z||_0 <= k} this is iterative hard thresholding.

    References
    ----------
    Daubechies, Defrise and De Mol (2004), Comm. Pure Appl. Math. 57;
    Blumensath and Davies (2008), J. Fourier Anal. Appl. 14.
    """
    return IstaState(problem.proximal_step(state.codes))


class FistaState(NamedTuple):
    """The state of FISTA between two steps."""

    codes: Array  # z_k, (n_samples, n_components)
    point: Array  # y_k, the extrapolated point at which the next gradient is taken
    momentum: Array  # theta_k >= 1 of each sample, (n_samples, 1)


def fista_start(problem: Problem, codes: Array) -> FistaState:  # noqa: ARG001
    """Return the state at given codes, without momentum."""
    xp = array_api_compat.array_namespace(codes)
    return FistaState(codes, codes, xp.ones_like(codes[:, :1]))


def fista_update(problem: Problem, state: FistaState) -> FistaState:
    r"""Return one accelerated step, with the gradient restart of each sample by itself.

    :math:`z^+ = \mathrm{prox}_{tR}(y - t\nabla f(y))`,
    :math:`\theta^+ = \frac12 (1 + \sqrt{1 + 4\theta^2})`,
    :math:`y^+ = z^+ + \frac{\theta - 1}{\theta^+} (z^+ - z)`; where :math:`\langle y - z^+, z^+ - z\rangle > 0`, the
    momentum points uphill and starts again. R must be convex and t <= 1/L.

    References
    ----------
    Beck and Teboulle (2009), SIAM J. Imaging Sci. 2;
    O'Donoghue and Candes (2015), Adaptive restart for accelerated gradient schemes, Found. Comput. Math. 15.
    """
    xp = array_api_compat.array_namespace(state.codes)
    codes = problem.proximal_step(state.point)
    move = codes - state.codes
    uphill = xp.sum((state.point - codes) * move, axis=-1, keepdims=True) > 0
    grown = grown_momentum(state.momentum)
    momentum = xp.where(uphill, xp.ones_like(grown), grown)
    pull = xp.where(uphill, xp.zeros_like(grown), (state.momentum - 1.0) / grown)
    return FistaState(codes, codes + pull * move, momentum)


def grown_momentum(theta: Any) -> Any:
    r"""Return :math:`\theta^+ = \frac12 (1 + \sqrt{1 + 4\theta^2})` of a number or an array."""
    return 0.5 * (1.0 + (1.0 + 4.0 * theta * theta) ** 0.5)


def _takes_all(R: Regularizer) -> None:  # noqa: ARG001
    return None


def needs_convex(R: Regularizer) -> str | None:
    """Return what is missing, in one sentence, where R is not convex."""
    return None if R.is_convex else f"needs a convex regularizer, and {R} is not convex"


CHECK_EVERY = 10  # a certificate costs about as much as a step

ISTA = Algorithm(ista_start, ista_update, _takes_all, ("codes",), CHECK_EVERY)
FISTA = Algorithm(fista_start, fista_update, needs_convex, ("codes", "point", "momentum"), CHECK_EVERY)
