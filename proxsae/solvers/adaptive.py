"""Proximal gradient steps whose length follows the curvature along the path of each sample."""

from __future__ import annotations

from typing import NamedTuple

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.solvers.algorithm import Algorithm
from proxsae.solvers.problem import Problem
from proxsae.solvers.proximal_gradient import CHECK_EVERY, needs_convex


class AdaptiveState(NamedTuple):
    """The state of the adaptive method between two steps."""

    codes: Array  # z_k, (n_samples, n_components)
    previous: Array  # z_{k-1}
    gradient: Array  # at z_{k-1}
    steps: Array  # t_{k-1} of each sample, (n_samples, 1)
    ratios: Array  # t_{k-1} / t_{k-2}


def start(problem: Problem, codes: Array) -> AdaptiveState:
    """Return the state at given codes, with the step that is safe everywhere."""
    xp = array_api_compat.array_namespace(codes)
    ones = xp.ones_like(codes[:, :1])
    return AdaptiveState(codes, codes, xp.zeros_like(codes), problem.step * ones, ones / 3.0)


def update(problem: Problem, state: AdaptiveState) -> AdaptiveState:
    r"""Return one step :math:`z^+ = \mathrm{prox}_{t_k R}(z - t_k \nabla f(z))` of each sample by itself.

    .. math:: t_k = t_{k-1} \min\left(\sqrt{\tfrac23 + \theta_{k-1}},\;
              \frac1{\sqrt{[2 t_{k-1}^2 L_k^2 - 1]_+}}\right), \quad
              L_k = \frac{\|\nabla f(z_k) - \nabla f(z_{k-1})\|}{\|z_k - z_{k-1}\|}, \quad
              \theta_k = \frac{t_k}{t_{k-1}}.

    Where the curvature along the path is small the steps grow beyond 1 / L. F need not fall at every step. R must be
    convex. :math:`L_k` is capped at L, which it exceeds by rounding alone.

    References
    ----------
    Malitsky and Mishchenko (2024), Adaptive proximal gradient method for convex optimization, NeurIPS 37.
    """
    xp = array_api_compat.array_namespace(state.codes)
    gradient = problem.gradient(state.codes)
    moved = _length(state.codes - state.previous)
    has_moved = moved > 0
    slopes = _length(gradient - state.gradient) / xp.where(has_moved, moved, xp.ones_like(moved))
    bent = state.steps * xp.minimum(slopes, xp.ones_like(moved) / problem.step)
    excess = 2.0 * bent * bent - 1.0
    growth = xp.sqrt(2.0 / 3.0 + state.ratios)
    growth = xp.where(excess > 0, xp.minimum(growth, 1.0 / xp.sqrt(xp.where(excess > 0, excess, 1.0))), growth)
    ratios = xp.where(has_moved, growth, state.ratios)
    steps = xp.where(has_moved, growth * state.steps, state.steps)
    codes = problem.regularizer.prox_unchecked(state.codes - steps * gradient, steps)
    return AdaptiveState(codes, state.codes, gradient, steps, ratios)


def _length(rows: Array) -> Array:
    xp = array_api_compat.array_namespace(rows)
    return xp.sqrt(xp.sum(rows * rows, axis=-1, keepdims=True))


ADAPTIVE = Algorithm(start, update, needs_convex, ("codes", "previous", "gradient", "steps", "ratios"), CHECK_EVERY)
