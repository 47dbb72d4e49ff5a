"""How far a code is from optimal, sample by sample, in float64: a duality gap, or a fixed-point residual."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.conjugate import (
    conjugates,
    dual_scaling,
    has_conjugate,
    is_finite_around_zero,
    is_free,
    joint_dual_scaling,
    normal_form,
)
from proxsae.solvers.problem import Problem

CertificateKind = Literal["duality gap", "fixed-point residual"]


class Report(NamedTuple):
    """What is known of each sample at given codes; float64 arrays of shape (n_samples,)."""

    objective: Array  # F(z)
    certificate: Array  # the gap, or the residual
    scale: Array  # tol is relative to this


def certificate_of(R: Regularizer, D: Array) -> tuple[CertificateKind, Callable[[Problem, Array], Report]]:
    """Return the kind of certificate that codes of R over D can have, and the function that computes it.

    The gap needs a dual point in the domain of R*. Where every r_i grows to infinity (L1, ridge, bounded boxes) a
    scaled residual is one. Where some do not (NonNegative alone, zero weights), a direction into the domain is looked
    for once; if there is none, or R is unbounded below, not convex or without a conjugate here, what remains is the
    residual. For an R of whole codes, R* has to be finite around 0.
    """
    if not has_conjugate(R):
        return "fixed-point residual", fixed_point_residual
    if not isinstance(R, Separable):
        if is_finite_around_zero(R, D):
            return "duality gap", joint_duality_gap
        return "fixed-point residual", fixed_point_residual
    free = np.broadcast_to(to_numpy(is_free(R, D)), D.shape[:1])
    if not free.any():
        return "duality gap", duality_gap
    form = normal_form(R, D)
    if form.lower is None or bool((form.curve.weight + form.slope < 0).any()):
        return "fixed-point residual", fixed_point_residual
    direction = inward_direction(to_numpy(D)[free])
    if direction is None:
        return "fixed-point residual", fixed_point_residual
    xp = array_api_compat.array_namespace(D)
    direction = xp.asarray(direction, device=array_api_compat.device(D))
    return "duality gap", partial(duality_gap, direction=direction)


def duality_gap(problem: Problem, Z: Array, direction: Array | None = None) -> Report:
    r"""Return F(z) and the duality gap, an upper bound on F(z) - min F.

    With the residual :math:`\nu = y - zD` and the dual function
    :math:`D(\theta) = \langle\theta, y\rangle - \frac12\|\theta\|^2 - R^*(\theta D^T)`, the dual point is
    :math:`\theta = s\nu` with the largest s in [0, 1] for which R* is finite. The difference is summed in the form

    .. math:: F(z) - D(\theta) = \tfrac12\|\nu - \theta\|^2 + \sum_i \left[r_i(z_i) + r_i^*(v_i) - v_i z_i\right],
              \quad v = \theta D^T,

    whose terms are all >= 0, so that it is accurate when small. The scale is
    :math:`\max(\frac12\|y\|^2, \frac12\|zD\|^2)`; the first is the objective of the zero code.

    Parameters
    ----------
    problem : Problem
        With an R that has a conjugate. Its parameters are taken as the dtype of Z rounds them.
    Z : array of shape (n_samples, n_components)
    direction : array of shape (n_features,), optional
        c with <c, d_i> > 0 for every unpenalised atom; nu - tau c, with the least tau that is enough, replaces nu.

    References
    ----------
    Mairal (2010), Sparse coding for machine learning, appendix D; Rockafellar (1970), section 31.
    """
    R = problem.regularizer
    assert isinstance(R, Separable)
    in_dtype_of_Z = ArrayNamespace(Z)
    R = R.map_parameters(lambda _, value: _double(in_dtype_of_Z.asarray(value)))
    D, Y, Z = _double(problem.dictionary), _double(problem.targets), _double(Z)
    fit = Z @ D
    residual = Y - fit
    penalties = R.penalties(Z)

    theta, V = residual, residual @ D.T
    if direction is not None:
        theta, V = _moved_inside(R, theta, V, direction, D @ direction)
    scaling = dual_scaling(R, V)[:, None]
    theta, V = scaling * theta, scaling * V
    return _gap_report(Y, fit, theta, penalties.sum(-1), (penalties + conjugates(R, V) - V * Z).sum(-1))


def joint_duality_gap(problem: Problem, Z: Array) -> Report:
    """Return F(z) and the duality gap where R looks at a whole code: :func:`duality_gap` with one term for all i.

    R(z) is computed in the dtype of Z: what rounding puts outside a ball in float32 is far outside in float64.
    """
    R = problem.regularizer
    value = _double(R.value_on(ArrayNamespace(Z), Z))
    D, Y, Z = _double(problem.dictionary), _double(problem.targets), _double(Z)
    fit = Z @ D
    theta = Y - fit
    V = theta @ D.T
    scaling = joint_dual_scaling(R, V)[:, None]
    theta, V = scaling * theta, scaling * V
    return _gap_report(Y, fit, theta, value, value + R.conjugate_on(ArrayNamespace(V), V) - (V * Z).sum(-1))


def _gap_report(Y: Array, fit: Array, theta: Array, penalty: Array, excess: Array) -> Report:
    """Return the report of codes at the dual points theta; excess is R(z) + R*(v) - <v, z>."""
    residual = Y - fit
    distance = residual - theta
    gap = 0.5 * (distance * distance).sum(-1) + excess
    xp = ArrayNamespace(gap)
    energy = 0.5 * xp.maximum((Y * Y).sum(-1), (fit * fit).sum(-1))
    return Report(0.5 * (residual * residual).sum(-1) + penalty, xp.maximum(gap, 0.0), energy)


def fixed_point_residual(problem: Problem, Z: Array) -> Report:
    r"""Return F(z) and :math:`\|z - \mathrm{prox}_{tR}(z - t\nabla f(z))\| / \max(1, \|z\|)`; the scale is 1.

    Zero at the fixed points of the proximal-gradient step: the minimisers where R is convex, and otherwise points that
    no single step improves, which need not be global.
    """
    R = problem.regularizer
    move = _double(Z - problem.proximal_step(Z))
    residual = _double(problem.targets) - _double(Z) @ _double(problem.dictionary)
    objective = 0.5 * (residual * residual).sum(-1) + _double(R.value_on(ArrayNamespace(Z), Z))
    xp = ArrayNamespace(objective)
    certificate = _norms(xp, move) / xp.maximum(_norms(xp, _double(Z)), 1.0)
    return Report(objective, certificate, 0.0 * certificate + 1.0)


def inward_direction(atoms: Array) -> Array | None:
    """Return c with <c, d> > 0 for every atom d, a row each, or None where there is none.

    c is the residual of a non-negative least-squares problem, whose optimality conditions are these inequalities; it
    vanishes exactly where 0 is in the convex hull of the atoms (Gordan's theorem).
    """
    from scipy.optimize import nnls

    atoms = np.asarray(atoms, np.float64)
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    if not norms.all():
        return None
    units = atoms / norms
    system = np.vstack([units.T, np.ones(len(units))])
    try:
        weights, _ = nnls(system, np.append(np.zeros(units.shape[1]), 1.0))
    except RuntimeError:  # too many iterations
        return None
    direction: Array = weights @ units
    return direction if (units @ direction).min() > 1e-8 else None


def _moved_inside(R: Separable, theta: Array, V: Array, direction: Array, slopes: Array) -> tuple[Array, Array]:
    """Move along minus the direction until no unpenalised atom correlates positively."""
    xp = ArrayNamespace(V)
    free = is_free(R, V)
    needed = xp.where(free, xp.maximum(V, 0.0) / xp.where(free, slopes, 1.0), 0.0)
    # Eight roundings of slack, so that the correlations are <= 0 in floating point too.
    tau = (1.0 + 8.0 * float(np.finfo(np.float64).eps)) * array_api_compat.array_namespace(V).max(needed, axis=-1)
    return theta - tau[:, None] * direction, V - tau[:, None] * slopes


def _norms(xp: ArrayNamespace, Z: Array) -> Array:
    return xp.sqrt((Z * Z).sum(-1))


def _double(a: Array) -> Array:
    xp = array_api_compat.array_namespace(a)
    return xp.astype(a, xp.float64, copy=False)
