"""How far a code is from optimal, sample by sample, in float64: a duality gap, or a fixed-point residual."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, dtype_name, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.regularizers.conjugate import (
    conjugate_domain,
    conjugates,
    dual_scaling,
    is_finite_around_zero,
    is_free,
)
from proxsae.solvers.problem import Problem
from proxsae.solvers.scalar import steps_of

CertificateKind = Literal[
    "duality gap", "coordinate-wise residual", "fixed-point residual",
    "globally optimal", "swap-optimal", "local minimum", "fixed point", "consensus residual",
]  # fmt: skip
ROUNDINGS = 2.0  # roundings that a correlation is off by, in units of its largest terms
FAR = 1e140  # outside of every domain; its square does not overflow


class CertificateReport(NamedTuple):
    """F, the certificate and its tolerance for each sample at given codes; float64 arrays of shape (n_samples,)."""

    objective: Array  # F(z)
    certificate: Array  # the gap, or the residual
    scale: Array  # tol is relative to this
    rounding: Array  # how much of the certificate may be the rounding of the codes in their dtype

    def meets(self, tol: float) -> Array:
        """Return whether the certificate is at most tol * scale + rounding; False where one of them is not finite."""
        limit = tol * self.scale + self.rounding
        xp = array_api_compat.array_namespace(limit)
        return xp.isfinite(self.certificate) & xp.isfinite(limit) & (self.certificate <= limit)


class FitTerms(NamedTuple):
    """The smooth part at given codes, a row a sample, in float64; correlations may be in float32."""

    correlations: Array  # (y - z D) D^T, (n_samples, n_components)
    residual: Array  # ||y - z D||^2
    explained: Array  # ||z D||^2
    target: Array  # ||y||^2


Certify = Callable[[Problem, Array, FitTerms], CertificateReport]


def fit_of(problem: Problem, Z: Array) -> FitTerms:
    """Return the fit in float64, computed through the features, as for all certificates that are returned."""
    D, Y = _double(problem.dictionary), _double(problem.targets)
    explained = _double(Z) @ D
    residual = Y - explained
    return FitTerms(residual @ D.T, _squares(residual), _squares(explained), _squares(Y))


def quick_fit_of(problem: Problem, Z: Array, correlations: Array | None = None) -> FitTerms:
    """Return the fit through the Gram matrix in the dtype of Z: it tells when :func:`fit_of` is worth its cost."""
    V = _double(-problem.gradient(Z) if correlations is None else correlations)
    C, Z, target = _double(problem.correlations), _double(Z), _squares(_double(problem.targets))
    xp = ArrayNamespace(V)
    residual = xp.maximum(target - (Z * (C + V)).sum(-1), 0.0)
    return FitTerms(V, residual, xp.maximum((Z * (C - V)).sum(-1), 0.0), target)


def certificate_of(R: Regularizer, D: Array, *, by_coordinates: bool = False) -> tuple[CertificateKind, Certify]:
    """Return the kind of certificate that codes of R over D can have, and the function that computes it.

    The gap needs a dual point in the domain of R*. Where every r_i grows to infinity (L1, ridge, bounded boxes) a
    scaled residual is such a point. Where some r_i do not (NonNegative alone, zero weights), a direction into the
    domain is sought once. If there is none, but every point is a sum of these atoms with weights >= 0, the dual point
    is 0, and the gap is F - min R. Elsewhere, and for an R that is unbounded below, not convex or without a known
    conjugate, the certificate is the residual. For an R of whole codes, R* has to be finite around 0.
    """
    residual: tuple[CertificateKind, Certify] = ("fixed-point residual", fixed_point_residual)
    if by_coordinates:
        residual = ("coordinate-wise residual", coordinate_residual)
    if not R.has_conjugate:
        return residual
    if not isinstance(R, Separable):
        return ("duality gap", joint_duality_gap) if is_finite_around_zero(R, D) else residual
    free = np.broadcast_to(to_numpy(is_free(R, D)), D.shape[:1])
    if not free.any():
        return "duality gap", duality_gap
    low, high = (np.broadcast_to(to_numpy(end), D.shape[:1])[free] for end in conjugate_domain(R, D))
    if np.isfinite(low).any() or (high < 0).any():
        return residual
    atoms = to_numpy(D)[free]
    direction = inward_direction(atoms)
    if direction is None:
        return ("duality gap", duality_gap) if spans_positively(atoms) else residual
    xp = array_api_compat.array_namespace(D)
    direction = xp.asarray(direction, device=array_api_compat.device(D))
    return "duality gap", partial(duality_gap, direction=direction)


def duality_gap(
    problem: Problem, Z: Array, fit: FitTerms | None = None, direction: Array | None = None
) -> CertificateReport:
    r"""Return F(z) and the duality gap, an upper bound on F(z) - min F.

    With the residual :math:`\nu = y - zD` and the dual function
    :math:`D(\theta) = \langle\theta, y\rangle - \frac12\|\theta\|^2 - R^*(\theta D^T)`, the dual point is
    :math:`\theta = s\nu` with the largest s in [0, 1] for which R* is finite. The gap is summed in the form

    .. math:: F(z) - D(\theta) = \tfrac12\|\nu - \theta\|^2 + \sum_i \left[r_i(z_i) + r_i^*(v_i) - v_i z_i\right],
              \quad v = \theta D^T,

    whose terms are all >= 0, so that a small gap is accurate. The scale is
    :math:`\max(\frac12\|y\|^2, \frac12\|zD\|^2)`; the first is the objective of the zero code.

    Parameters
    ----------
    problem : Problem
        A problem whose R has a conjugate. Parameters of R are taken as the dtype of Z rounds them.
    Z : array of shape (n_samples, n_components)
    fit : FitTerms, optional
        The fit, where it is known.
    direction : array of shape (n_features,), optional
        c with <c, d_i> > 0 for every unpenalised atom; nu - tau c, with the least tau that is enough, replaces nu.

    References
    ----------
    Mairal (2010), Sparse coding for machine learning, appendix D; Rockafellar (1970), section 31.
    """
    fit = fit_of(problem, Z) if fit is None else fit
    R = rounded(problem.regularizer, Z)
    noise = noise_of(problem, Z, fit)
    Z, V = _double(Z), _double(fit.correlations)
    lean, blur, reach = 0.0 * fit.residual, 0.0 * fit.residual, noise.norms
    if direction is not None:  # theta = nu - tau c
        slopes, free = _double(problem.dictionary) @ direction, is_free(R, V)
        lean = least_shift(V, slopes, free)
        V = V - lean[:, None] * slopes
        blur = noise.unit * least_shift(noise.norms, slopes, free) * (abs(Z) * abs(slopes)).sum(-1)
        reach = ArrayNamespace(V).where(free, 0.0, reach)
    s = dual_scaling(R, V)
    penalties, excess, products = summed(R, Z, V, s)
    distance = (1.0 - s) ** 2 * fit.residual
    if direction is not None:  # nu - s theta = (1 - s) nu + s tau c
        along = _double(problem.targets) @ direction - Z @ slopes
        distance = distance + 2.0 * (1.0 - s) * s * lean * along + (s * lean) ** 2 * (direction * direction).sum()
    rounding = noise.of_gap(products, steepness(R, reach), s, fit.residual) + blur
    at_zero = R.penalties(_double(_zero_code(problem))).sum()
    return gap_report(fit, distance, penalties.sum(-1), excess, rounding, at_zero)


def rounded(R: Regularizer, like: Array) -> Separable:
    """Return a separable R with its parameters rounded to the dtype of an array, as float64 arrays of its kind."""
    assert isinstance(R, Separable)
    xp = ArrayNamespace(like)
    return R.map_parameters(lambda _, value: _double(xp.asarray(value)))


def summed(R: Separable, Z: Array, V: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return every r_i(z_i), and sums over i of r_i(z_i) + r_i*(s v_i) - s v_i z_i and of abs(s v_i z_i)."""
    penalties, V = R.penalties(Z), s[:, None] * V
    products = V * Z
    return penalties, (penalties + conjugates(R, V) - products).sum(-1), abs(products).sum(-1)


def joint_duality_gap(problem: Problem, Z: Array, fit: FitTerms | None = None) -> CertificateReport:
    """Return F(z) and the duality gap for an R of whole codes: :func:`duality_gap` with one term in place of the sum.

    R(z) is computed in the dtype of Z: what rounding puts outside a ball in float32 is far outside in float64.
    """
    fit = fit_of(problem, Z) if fit is None else fit
    R = problem.regularizer
    noise = noise_of(problem, Z, fit)
    value = _double(R.value_unchecked(Z))
    s = dual_scaling(R, fit.correlations)
    Z, V = _double(Z), s[:, None] * fit.correlations
    excess = value + R.conjugate_unchecked(V) - (V * Z).sum(-1)
    rounding = noise.of_gap(abs(V * Z).sum(-1), steepness(R, noise.norms), s, fit.residual)
    at_zero = _double(R.value_unchecked(_zero_code(problem)))[0]
    return gap_report(fit, (1.0 - s) ** 2 * fit.residual, value, excess, rounding, at_zero)


def gap_report(
    fit: FitTerms, distance: Array, penalty: Array, excess: Array, rounding: Array, at_zero: Array
) -> CertificateReport:
    r"""Return the report at the dual points theta: ||nu - theta||^2, R(z), R(z) + R*(v) - <v, z> and R(0).

    The minimum is at most F(0). A code whose F is above F(0) by more than :math:`\frac12\|y\|^2` gets no allowance for
    its own size: its scale is :math:`\frac12\|y\|^2`, and its rounding is 0.
    """
    xp = ArrayNamespace(excess)
    gap = xp.maximum(0.5 * distance + excess, 0.0)
    objective, scale = 0.5 * fit.residual + penalty, 0.5 * xp.maximum(fit.target, fit.explained)
    is_far = _is_far(fit, objective, at_zero)
    return CertificateReport(objective, gap, xp.where(is_far, 0.5 * fit.target, scale), xp.where(is_far, 0.0, rounding))


def fixed_point_residual(problem: Problem, Z: Array, fit: FitTerms | None = None) -> CertificateReport:
    r"""Return F(z) and the length of a proximal step, relative to that of the code; the scale is 1.

    :math:`\|z - \mathrm{prox}_{tR}(z - t\nabla f(z))\| / \max(\|z\|, \sqrt t\|y\|)`. The residual is zero at the fixed
    points of the proximal-gradient step: the minimisers where R is convex, and otherwise points that no single step
    improves, which need not be global minimisers. At t = 1/L no code shorter than :math:`\sqrt t \|y\|` explains y. A
    code whose F is above F(0) by more than :math:`\frac12\|y\|^2` is measured by y alone, and so is its rounding.
    """
    fit = fit_of(problem, Z) if fit is None else fit
    R = problem.regularizer
    t, V = problem.step, array_api_compat.array_namespace(Z).astype(fit.correlations, Z.dtype, copy=False)
    move = _double(Z - R.prox_unchecked(Z + t * V, t))
    noise = noise_of(problem, Z, fit)
    objective = 0.5 * fit.residual + _double(R.value_unchecked(Z))
    xp = ArrayNamespace(objective)
    length, unit = _allowances(problem, fit, noise, objective, xp.sqrt(_squares(_double(Z))))
    least = xp.maximum(length, xp.sqrt(problem.step * fit.target))
    least = xp.where(least > 0, least, 1.0)
    blur = problem.step * unit * float(_squares(noise.norms)) ** 0.5 + noise.eps * length
    return CertificateReport(objective, xp.sqrt(_squares(move)) / least, 0.0 * objective + 1.0, blur / least)


def coordinate_residual(problem: Problem, Z: Array, fit: FitTerms | None = None) -> CertificateReport:
    r"""Return F(z) and the distance of a code from the best values of its coordinates, relative to it; the scale is 1.

    :math:`\|z - \hat z\|_D / \max(\|z\|_D, \|y\|)` with :math:`\hat z_j = \mathrm{prox}_{t_j r_j}(z_j + t_j v_j)`,
    :math:`t_j = 1 / \|d_j\|^2`, the best value of z_j with the others held, and :math:`\|z\|_D^2 = \sum_j z_j^2
    \|d_j\|^2`. The residual is zero where no change of one coordinate lowers F: at the minimisers where R is convex;
    where R is not convex, this is stronger than a fixed point of the proximal-gradient step. The code of an atom of
    zeros has the weight of an average code, and its best value is the minimiser of r_j. Correlations of zeros are
    shrunk by their possible rounding error: where the prox jumps, a tie would otherwise have the residual of the jump.
    A code whose F is above F(0) by more than :math:`\frac12\|y\|^2` is measured by y alone, and so is its rounding.
    """
    fit = fit_of(problem, Z) if fit is None else fit
    R = problem.regularizer
    noise = noise_of(problem, Z, fit)
    xp = ArrayNamespace(Z)
    lengths = xp.asarray(noise.norms)
    steps = steps_of(lengths * lengths)
    V = xp.asarray(fit.correlations)
    within = xp.maximum(abs(V) - noise.unit[:, None] * lengths, 0.0) * xp.sign(V)
    V = xp.where(Z == 0, within, V)
    average = (lengths * lengths).mean() ** 0.5
    weights = xp.where(lengths > 0, lengths, xp.where(average > 0, average, 1.0))
    move = _double((Z - R.prox_unchecked(Z + steps * V, steps)) * weights)
    xp = ArrayNamespace(fit.residual)
    objective = 0.5 * fit.residual + _double(R.value_unchecked(Z))
    length, unit = _allowances(problem, fit, noise, objective, xp.sqrt(_squares(_double(Z) * noise.norms)))
    least = xp.maximum(length, xp.sqrt(fit.target))
    least = xp.where(least > 0, least, 1.0)
    blur = unit * ((Z != 0).sum(-1) + 1) ** 0.5 + noise.eps * length
    return CertificateReport(objective, xp.sqrt(_squares(move)) / least, 0.0 * objective + 1.0, blur / least)


class Noise(NamedTuple):
    """How far rounding in the dtype of the codes moves the correlations: by about unit * ||d_i|| in atom i."""

    eps: float  # the eps of the dtype, times ROUNDINGS
    norms: Array  # ||d_i||, (n_components,)
    load: Array  # sum_j abs(z_j) ||d_j||, (n_samples,)
    unit: Array  # eps (||y|| + load), (n_samples,)

    def of_gap(self, products: Array, steepness: float, s: Array, residual: Array) -> Array:
        """Return the change of the gap by this noise: directly, and by the scaling s of the dual point.

        `products`, the sum of abs(v_i z_i), is taken at the dual point. Where that point is 0, the gap changes with the
        `residual` ||y - z D||^2 alone.
        """
        of_fit = self.unit * (residual**0.5 + self.unit)
        return ArrayNamespace(of_fit).where(s > 0, self.unit * (self.load + steepness * products), of_fit)


def noise_of(problem: Problem, Z: Array, fit: FitTerms) -> Noise:
    """Return the noise of the correlations of z, where each |z_j| ||d_j|| and ||y|| is right to a few roundings."""
    D = problem.dictionary
    xp = ArrayNamespace(fit.residual)
    norms = xp.sqrt(_squares(_double(D)) if problem.gram is None else _double(problem.gram.diagonal()))
    load = abs(_double(Z)) @ norms
    eps = roundings(Z)
    return Noise(eps, norms, load, eps * (xp.sqrt(fit.target) + load))


def roundings(Z: Array) -> float:
    """Return the relative error that a sum of products of codes is taken to have in their dtype."""
    return ROUNDINGS * float(np.finfo(dtype_name(Z)).eps)


def steepness(R: Regularizer, norms: Array) -> float:
    """Return how much the dual scaling falls for correlations that leave the domain of R* by `norms`."""
    largest = float(norms.max())
    if largest == 0:
        return 0.0
    far = (FAR / largest) * norms[None, :]
    least = min(float(dual_scaling(R, far)[0]), float(dual_scaling(R, -far)[0]))
    return largest / FAR / least if 0 < least < 1 else 0.0


def inward_direction(atoms: Array) -> Array | None:
    """Return c with <c, d> > 0 for every atom d, a row each, or None where there is none.

    c is the residual of a non-negative least-squares problem, whose optimality conditions are these inequalities; c
    vanishes exactly where 0 is in the convex hull of the atoms (Gordan's theorem).
    """
    from scipy.optimize import nnls

    units = _units(atoms)
    if not units.any(axis=1).all():  # no direction has a positive product with a zero atom
        return None
    system = np.vstack([units.T, np.ones(len(units))])
    try:
        weights, _ = nnls(system, np.append(np.zeros(units.shape[1]), 1.0))
    except RuntimeError:  # too many iterations
        return None
    direction: Array = weights @ units
    return direction if (units @ direction).min() > 1e-8 else None


def spans_positively(atoms: Array) -> bool:
    """Return whether every point is a sum of atoms, a row each, with weights >= 0.

    The atoms have to span, and their negative sum has to be such a sum.
    """
    from scipy.optimize import nnls

    units = _units(atoms)
    if np.linalg.matrix_rank(units) < units.shape[1]:
        return False
    try:
        _, distance = nnls(units.T, -units.sum(0))
    except RuntimeError:  # too many iterations
        return False
    return bool(distance <= 1e-8)


def _units(atoms: Array) -> Array:
    """Return the atoms at norm 1 in float64; zero atoms stay."""
    atoms = np.asarray(atoms, np.float64)
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    return atoms / np.where(norms > 0, norms, 1.0)


def least_shift(V: Array, slopes: Array, free: Array) -> Array:
    """Return the least tau >= 0 for which no unpenalised atom correlates positively with nu - tau c."""
    xp = ArrayNamespace(V)
    needed = xp.where(free, xp.maximum(V, 0.0) / xp.where(free, slopes, 1.0), 0.0)
    # Eight roundings of slack, so that the correlations are <= 0 in floating point too.
    slack = 1.0 + 8.0 * float(np.finfo(np.float64).eps)
    return slack * array_api_compat.array_namespace(V).max(needed, axis=-1)


def _allowances(problem: Problem, fit: FitTerms, noise: Noise, objective: Array, length: Array) -> tuple[Array, Array]:
    """Return the length of the code and the noise of its correlations; of a far code 0, and that of y alone.

    A code of y = 0 has nothing else to be compared with, and keeps both.
    """
    at_zero = _double(problem.regularizer.value_unchecked(_zero_code(problem)))[0]
    is_far = _is_far(fit, objective, at_zero) & (fit.target > 0)
    xp = ArrayNamespace(length)
    return xp.where(is_far, 0.0, length), xp.where(is_far, noise.eps * xp.sqrt(fit.target), noise.unit)


def _is_far(fit: FitTerms, objective: Array, at_zero: Array) -> Array:
    """Whether F is above F(0) by more than half ||y||^2."""
    return ~(objective <= fit.target + at_zero)  # so is an F that is not a number


def _zero_code(problem: Problem) -> Array:
    return array_api_compat.array_namespace(problem.dictionary).zeros_like(problem.dictionary[:, 0])[None]


def _squares(a: Array) -> Array:
    return (a * a).sum(-1)


def _double(a: Array) -> Array:
    xp = array_api_compat.array_namespace(a)
    return xp.astype(a, xp.float64, copy=False)
