"""Codes for a fixed dictionary: `solve`, and the algorithms and certificates it is made of."""

from __future__ import annotations

import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import array_api_compat

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.certificates import CertificateKind, certificate_of
from proxsae.solvers.driver import Outcome, joined, run
from proxsae.solvers.inputs import check_limits, checked_arrays, checked_method, checked_regularizer, checked_step
from proxsae.solvers.problem import Problem, problem_of
from proxsae.solvers.proximal_gradient import ALGORITHMS

__all__ = ["Problem", "Solution", "problem_of", "solve"]

CHUNK_ENTRIES = 2**24  # code entries worked on at once: 128 MiB for each array of a float64 state


@dataclass(frozen=True)
class Solution:
    r"""Codes and what is known of them, a sample each; arrays of the kind and device of X.

    Attributes
    ----------
    codes : array of shape (n_samples, n_components)
        In the dtype of X.
    objective : float64 array of shape (n_samples,)
        :math:`F(z) = \frac12 \|x - b - z D\|^2 + R(z)`.
    certificate : float64 array of shape (n_samples,)
        For a duality gap, an upper bound on F(z) - min F, in the units of F.
    certificate_kind : {"duality gap", "fixed-point residual"}
        What the certificate is.
    converged : bool array of shape (n_samples,)
        Whether the certificate met the tolerance.
    n_iter : int64 array of shape (n_samples,)
        Steps taken.
    method : str
        The algorithm that ran.
    """

    codes: Array
    objective: Array
    certificate: Array
    certificate_kind: CertificateKind
    converged: Array
    n_iter: Array
    method: str


def solve(
    X: Any,
    D: Any,
    R: Regularizer | str,
    *,
    intercept: Any = None,
    method: Literal["auto", "ista", "fista"] = "auto",
    tol: float = 1e-6,
    max_iter: int = 1000,
    init: Any = None,
    step: float | None = None,
    verbose: bool = False,
) -> Solution:
    r"""Minimise :math:`F(z) = \frac12 \|x - b - z D\|^2 + R(z)` for every row x of X.

    Each sample stops by its own certificate and leaves the batch, so that its result does not depend on the others
    beyond rounding. At batch scope the whole matrix is one problem.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        NumPy or Torch, float32 or float64; lists and integers become float64. Tensors are solved on their device, and
        no gradient passes through the codes (unroll :func:`proxsae.solvers.proximal_gradient.ista_update` for that).
    D : array of shape (n_components, n_features)
        The dictionary, an atom a row; of the kind, dtype and device of X.
    R : Regularizer or str
        The weight lambda lies inside: ``0.1 * L1()`` or ``"0.1*L1"``.
    intercept : array of shape (n_features,), optional
        b; zero by default.
    method : {"auto", "ista", "fista"}, default "auto"
        FISTA where R is convex and ISTA otherwise. FISTA needs a convex R.
    tol : float, default 1e-6
        A sample stops when its duality gap is at most
        :math:`\mathrm{tol} \cdot \max(\frac12\|x - b\|^2, \frac12\|z D\|^2)`, or its fixed-point residual
        :math:`\|z - \mathrm{prox}_{tR}(z - t\nabla f(z))\| / \max(1, \|z\|)` is at most tol. Certificates are looked
        at before the first step and after every tenth.
    max_iter : int, default 1000
        Steps at most; 0 certifies `init`.
    init : array of shape (n_samples, n_components), optional
        Where to start; zero by default.
    step : float, optional
        t in (0, 1/L], with L the largest eigenvalue of D D^T. 1/L by default, 0.99/L where R is not convex.
    verbose : bool, default False
        Show a progress bar of the samples done, on a terminal.

    Returns
    -------
    Solution
        For a duality gap the codes are optimal to within ``certificate``. The gap is there for every sum of L1,
        Huber, SquaredL2, NonNegative, Box, LInfBall, Tilt and translations of these whose weights keep the codes
        bounded, for NonNegative without a penalty where 0 is not in the convex hull of the atoms, and for every R of
        whole codes that has a conjugate and keeps them bounded; elsewhere the certificate is the fixed-point residual.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not fit one another, R is not a regularizer or does not fit them, or the method does not fit R.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If samples have not converged after `max_iter` steps.

    References
    ----------
    Beck and Teboulle (2009), A fast iterative shrinkage-thresholding algorithm, SIAM J. Imaging Sci. 2.

    Examples
    --------
    >>> import numpy as np
    >>> from proxsae.solvers import solve
    >>> s = solve(np.array([[3.0, -0.5]]), np.eye(2), "1.0*L1")
    >>> s.codes
    array([[2., 0.]])
    """
    arrays = checked_arrays(X, D, intercept, init)
    R = checked_regularizer(R, arrays.dictionary.shape[0])
    method_name = checked_method(method, R)
    step = checked_step(step, arrays.dictionary, R)
    check_limits(tol, max_iter)
    kind, certify = certificate_of(R, arrays.dictionary)

    n_samples, n_components = arrays.codes.shape
    chunk = n_samples if R.scope == "batch" else -(-CHUNK_ENTRIES // n_components)
    outcomes = []
    with _without_graph(arrays.codes), _progress_bar(n_samples, verbose) as bar:
        for start in range(0, max(n_samples, 1), max(chunk, 1)):
            part = slice(start, start + chunk)
            problem = problem_of(arrays.targets[part], arrays.dictionary, R, step)
            outcomes.append(
                run(
                    problem,
                    ALGORITHMS[method_name],
                    certify,
                    arrays.codes[part],
                    tol=tol,
                    max_iter=max_iter,
                    on_finished=bar.update,
                )
            )
    outcome = joined(outcomes)
    _warn_unless_converged(outcome, kind, tol, max_iter)
    return Solution(
        outcome.codes, outcome.objective, outcome.certificate, kind, outcome.converged, outcome.n_iter, method_name
    )


def _warn_unless_converged(outcome: Outcome, kind: str, tol: float, max_iter: int) -> None:
    n_missing = int((~outcome.converged).sum())
    if n_missing == 0:
        return
    from sklearn.exceptions import ConvergenceWarning

    largest = float(outcome.certificate[~outcome.converged].max())
    warnings.warn(
        f"{n_missing} of {outcome.converged.shape[0]} samples have not converged to tol={tol:g} "
        f"after {max_iter} steps; the largest {kind} is {largest:.3g}",
        ConvergenceWarning,
        stacklevel=3,
    )


def _without_graph(like: Array) -> AbstractContextManager[Any]:
    if not array_api_compat.is_torch_array(like):
        return nullcontext()
    import torch

    return torch.no_grad()


def _progress_bar(n_samples: int, verbose: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=n_samples, unit="sample", disable=not (verbose and sys.stderr.isatty()))
