"""Sums of convex regularizers whose joint prox is not known: ADMM, with a copy of the code for each term."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Direct, Ended

CHECK_EVERY = 10  # steps between certificates and changes of the penalty
LAST_CHANGE = 1000  # step: the method converges where the penalty rests
UNBALANCED = 5.0  # times one residual above the other: the penalty is doubled or halved


class State(NamedTuple):
    """The state between two steps: a row, or a row of each copy, for every sample."""

    codes: Array  # z, (n_samples, n_components)
    copies: Array  # w_i, (n_terms, n_samples, n_components)
    duals: Array  # u_i: rho u_i is a subgradient of R_i at w_i, like the copies
    penalties: Array  # rho, (n_samples, 1)


@dataclass(frozen=True)
class Consensus:
    r"""Minimise :math:`\frac12\|y - zD\|^2 + \sum_i R_i(w_i)` subject to w_i = z, for convex R_i.

    .. math:: z^+ = \left(y D^T + \rho \textstyle\sum_i (w_i - u_i)\right)(D D^T + m\rho I)^{-1}, \quad
              w_i^+ = \mathrm{prox}_{R_i/\rho}(z^+ + u_i), \quad u_i^+ = u_i + z^+ - w_i^+.

    The code is w_1, and each R_i is taken at its own copy. The certificate is the larger of two residuals: the distance
    of the copies, and 1 / L times the residual of the optimality condition :math:`(zD - y)D^T + \sum_i \rho u_i = 0` at
    z = w_1; both relative to the code as in :func:`proxsae.solvers.certificates.fixed_point_residual`. Before the first
    step rho u_i is no subgradient, and the certificate is infinite. In the first thousand steps the penalty rho of each
    sample is doubled or halved where one residual is far above the other.

    References
    ----------
    Boyd, Parikh, Chu, Peleato and Eckstein (2011), Distributed optimization and statistical learning via the
    alternating direction method of multipliers, Found. Trends Mach. Learn. 3, sections 3.4.1 and 7.2.
    """

    dictionary: Array  # NumPy, in the working dtype
    terms: tuple[Regularizer, ...]

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """The squared singular values of D and the matching basis of the codes, in float64."""
        left, sizes, _ = np.linalg.svd(self.dictionary.astype(np.float64), full_matrices=False)
        return sizes * sizes, left

    @property
    def lipschitz(self) -> float:
        """L, the largest eigenvalue of D D^T, or 1 where there is none."""
        return float(self.spectrum[0].max()) or 1.0

    def run(self, Y: Array, init: Array | None, tol: float, max_iter: int) -> Ended:
        """Return codes of the targets Y."""
        D, T = self.dictionary.astype(np.float64), Y.astype(np.float64)
        n, p = len(T), len(D)
        codes = np.zeros((n, p)) if init is None else init.astype(np.float64)
        copies = np.repeat(codes[None], len(self.terms), axis=0)
        state = State(codes, copies, 0.0 * copies, np.full((n, 1), 0.1 * self.lipschitz))
        objective, certificate, n_iter = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
        rows = np.arange(n)
        for step in range(max_iter + 1):
            if step % CHECK_EVERY == 0 or step == max_iter:
                apart, slope, F = self._look(T[rows], state)
                worst = np.maximum(apart, slope) if step else np.full(len(rows), np.inf)
                done = (worst <= tol) if step < max_iter else np.ones(len(rows), bool)
                ended = rows[done]
                codes[ended], objective[ended], certificate[ended] = state.copies[0][done], F[done], worst[done]
                n_iter[ended] = step
                rows, stays = rows[~done], ~done
                state = State(state.codes[stays], state.copies[:, stays], state.duals[:, stays], state.penalties[stays])
                if step <= LAST_CHANGE:
                    state = _balanced(state, apart[stays], slope[stays])
            if len(rows) == 0:
                break
            state = self._update(T[rows] @ D.T, state)
        kinds = np.full(n, "consensus residual")
        return Ended(csr_array(codes.astype(Y.dtype)), objective, certificate, certificate <= tol, n_iter, kinds)

    def _update(self, C: Array, state: State) -> State:
        (squares, basis), rho = self.spectrum, state.penalties
        total = len(self.terms) * rho
        right = C + rho * (state.copies - state.duals).sum(0)
        z = (right - (right @ basis * (squares / (squares + total))) @ basis.T) / total
        copies = np.stack([R.prox_unchecked(z + u, 1.0 / rho) for R, u in zip(self.terms, state.duals, strict=True)])
        return State(z, copies, state.duals + z - copies, rho)

    def _look(self, T: Array, state: State) -> tuple[Array, Array, Array]:
        """Return how far the copies are apart, how far they are from optimal, and F."""
        D, z = self.dictionary.astype(np.float64), state.copies[0]
        residual = T - z @ D
        slope = np.linalg.norm((state.penalties * state.duals).sum(0) - residual @ D.T, axis=1) / self.lipschitz
        apart = np.maximum(np.linalg.norm(state.copies - z, axis=2).max(0), np.linalg.norm(state.codes - z, axis=1))
        size = np.maximum(np.linalg.norm(z, axis=1), np.linalg.norm(T, axis=1) / np.sqrt(self.lipschitz))
        size[size == 0] = 1.0
        values = [R.value_unchecked(w) for R, w in zip(self.terms, state.copies, strict=True)]
        return apart / size, slope / size, 0.5 * (residual * residual).sum(1) + np.sum(values, axis=0)


def _balanced(state: State, apart: Array, slope: Array) -> State:
    """Return the state with a larger penalty where the copies are too far apart, and a smaller one where too close."""
    factor = np.where(apart > UNBALANCED * slope, 2.0, np.where(slope > UNBALANCED * apart, 0.5, 1.0))[:, None]
    return State(state.codes, state.copies, state.duals / factor, state.penalties * factor)


def refuses(terms: tuple[Regularizer, ...] | Regularizer) -> str | None:
    """Return in one sentence what is missing, or None."""
    if not isinstance(terms, tuple):
        return f"needs a list of regularizers, and {terms} is one"
    bent = [R for R in terms if not R.is_convex]
    return f"needs convex regularizers, and {bent[0]} is not convex" if bent else None


ADMM = Direct(lambda D, R, *_: Consensus(D, R), refuses, takes_init=True, has_step=False)
