"""`solve`: codes of many samples over one dictionary, each with a certificate."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Literal

import array_api_compat
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Regularizer
from proxsae.solvers.algorithm import Direct
from proxsae.solvers.certificates import CertificateKind
from proxsae.solvers.direct import run_direct, weakest
from proxsae.solvers.driver import Outcome
from proxsae.solvers.dual import dual_points
from proxsae.solvers.inputs import Inputs, check_limits, checked_inputs, checked_terms, in_main_memory
from proxsae.solvers.iterate import iterate
from proxsae.solvers.methods import algorithm_of, checked_method
from proxsae.solvers.problem import GRAM_LIMIT

Method = Literal[
    "auto", "active_set", "adaptive", "admm", "cd", "fista", "ista",
    "omp", "ols", "mp", "iht", "htp", "cosamp", "swap", "exact",
]  # fmt: skip


@dataclass(frozen=True)
class Solution:
    r"""Codes and their certificates, one row or number a sample; arrays of the kind and device of X.

    Attributes
    ----------
    codes : array of shape (n_samples, n_components)
        In the dtype that X, D, intercept and init promote to; half precision gives float32. A SciPy ``csr_matrix``,
        as ``transform`` returns, where asked for.
    objective : float64 array of shape (n_samples,)
        :math:`F(z) = \frac12 \|x - b - z D\|^2 + R(z)`; for a list of R_i, each is taken at its own copy of the code.
    certificate : float64 array of shape (n_samples,)
        For a duality gap, an upper bound on F(z) - min F, in the units of F.
    certificate_kind : str
        What the certificate is: a "duality gap", a "fixed-point residual", or a "coordinate-wise residual", which is
        how far the best value of each coordinate with the others held lies from it. For a cardinality the certificate
        is what F could still fall by: by any codes ("globally optimal"), by an exchange of one atom for another
        ("swap-optimal"), or by another value of one code in use ("local minimum", or where the partner of the
        cardinality is not convex, "fixed point"). For a list of regularizers it is a "consensus residual", see
        :class:`proxsae.solvers.admm.Consensus`. This is the kind that holds for all samples.
    certificate_kinds : array of str of shape (n_samples,)
        The strongest kind that holds for each sample; NumPy.
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
    certificate_kinds: Array
    converged: Array
    n_iter: Array
    method: str
    _problem: tuple[Inputs, Regularizer | tuple[Regularizer, ...]] = field(repr=False)

    def dual_point(self) -> Array:
        r"""Return the point :math:`\theta` that proves the duality gap, of shape (n_samples, n_features), in float64.

        The point is feasible, :math:`R^*(\theta D^T) < \infty`, and its dual value :math:`\langle\theta, x - b\rangle -
        \frac12\|\theta\|^2 - R^*(\theta D^T)` is the objective less the gap: a lower bound of min F. At the optimum the
        dual point is the residual.

        Raises
        ------
        ValueError
            If R has no duality gap over this dictionary.
        """
        inputs, R = self._problem
        return dual_points(replace(inputs, init=self.codes), R)


def solve(
    X: Any,
    D: Any,
    R: Regularizer | str | Sequence[Regularizer | str],
    *,
    intercept: Any = None,
    method: Method = "auto",
    tol: float = 1e-6,
    max_iter: int = 1000,
    init: Any = None,
    step: float | None = None,
    sparse_output: bool = False,
    gram_limit: int = GRAM_LIMIT,
    verbose: bool = False,
) -> Solution:
    r"""Minimise :math:`F(z) = \frac12 \|x - b - z D\|^2 + R(z)` for every row x of X.

    Each sample stops by its own certificate and leaves the batch, so that its result does not depend on other samples
    beyond rounding, which may decide between local minima where R is not convex. At batch scope the whole matrix is one
    problem. Ctrl-C returns the present codes: samples that were not begun have an infinite certificate.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        NumPy or Torch, or rows that are read block by block: a SciPy sparse matrix, a memory map, an activation store,
        or any object with ``shape``, ``dtype`` and slices of rows. Lists and integers become float64; other dtypes
        promote as in NumPy, and half precision is computed in float32. Codes of tensors are tensors on their device,
        and no gradient passes through them (unroll :func:`proxsae.solvers.proximal_gradient.ista_update` for that).
        float32 is computed in float64 where X, D or the codes are outside of 1e-15 to 1e15, so that scaling the problem
        scales its codes and certificates.
    D : array of shape (n_components, n_features)
        The dictionary, one atom a row; an array of the kind and device of X.
    R : Regularizer or str, or a list of them
        The regularizer with its weight: ``0.1 * L1()`` or ``"0.1*L1"``. A list is a sum of convex regularizers, for
        which no joint prox has to be known.
    intercept : array of shape (n_features,), optional
        b; zero by default.
    method : str, default "auto"
        - "active_set", compiled: minimises F on an active set of atoms that grows until no other atom lowers F; exact
          where R is convex. For separable R with a formula that is least at 0.
        - "cd", compiled: coordinate descent, for every separable R with a formula, convex or not; group by group for
          the norms of groups, alone or with a separable partner that has a formula.
        - "fista", accelerated proximal gradient steps with restarts: every convex R.
        - "adaptive", proximal gradient steps whose length follows the curvature along the path: every convex R.
        - "admm": a list of convex regularizers, each with a copy of the code, see
          :class:`proxsae.solvers.admm.Consensus`; "auto" takes it for a list.
        - "ista", proximal gradient steps: every R.
        - "omp", "ols", "mp", "iht", "htp", "cosamp", "swap", compiled: a Cardinality of each sample, alone or with a
          separable partner that has a formula, see :mod:`proxsae.solvers.pursuits.pursuit`. "omp" adds the atom that
          correlates most with the residual, "ols" the atom that lowers F most, "mp" changes one code at a time, "iht"
          takes proximal steps, "htp" refits the codes on the supports of such steps, "cosamp" adds 2k atoms and prunes,
          and "swap" starts from "omp" and "ols" and exchanges one atom for another until no exchange lowers F.
        - "exact", compiled: all supports, at most a million, for a Cardinality of each sample, alone or with a convex
          partner that has a formula. More supports are searched by branch and bound, if pyscipopt is installed, for a
          partner of L1, SquaredL2, NonNegative and Box that bounds the codes, see
          :mod:`proxsae.solvers.pursuits.branch_and_bound`; the certificate is then how far F is above the bound of the
          search.

        "fista", "adaptive" and "ista" run on the device of the tensors, and so does "active_set" for a convex R, as
        batches of array operations; the other methods run on the CPU, to which problems on another device are copied.
        "auto" does not depend on device and dtype: it takes "swap" for a cardinality, "active_set" where a separable R
        makes codes sparse and, up to `gram_limit` atoms, "cd" for any other separable R that is not convex and for the
        norms of groups; elsewhere "fista" where R is convex and "ista" where it is not.
    tol : float, default 1e-6
        A sample stops when its duality gap is at most :math:`\mathrm{tol} \cdot \max(\frac12\|x - b\|^2, \frac12\|z
        D\|^2)`, or its fixed-point residual :math:`\|z - \mathrm{prox}_{tR}(z - t\nabla f(z))\| / \max(\|z\|, \sqrt t
        \|x - b\|)` is at most tol, each plus the error that rounding in the dtype of the codes may cause: a correlation
        with the atom d_i is taken to be right to two roundings of :math:`\|d_i\| (\|x - b\| + \sum_j |z_j| \|d_j\|)`.
        In float64 this error matters below 1e-12; in float32, over correlated atoms, it may be 1e-4 of the scale, and
        the codes are as good as the dtype can hold. Codes with an F far above that of the zero code have its tolerance.
        A certificate that is not finite never converges. What F could fall by has the scale :math:`\frac12\|x - b\|^2`.
    max_iter : int, default 1000
        Most steps, or exchanges for "swap"; 0 certifies `init`, or for "swap" its best start. "omp" and "ols" take as
        many steps as atoms; "exact" looks at all supports, or at most at max_iter nodes of its search.
    init : array or SciPy sparse matrix of shape (n_samples, n_components), optional
        The codes to start from; zero by default. "omp", "ols", "mp" and "exact" take none.
    step : float, optional
        t in (0, 1/L], with L the largest eigenvalue of D D^T. 1/L by default, 0.99/L where R is not convex. It is the
        step of "ista", "fista", "htp" and the fixed-point residual, the first step of "adaptive", and the least step of
        "iht".
    sparse_output : bool, default False
        Return CSR codes, for NumPy input; dense codes are then in memory for one block of samples at a time.
    gram_limit : int, default 20_000
        Number of atoms up to which compiled methods keep the Gram matrix, of 8 n_components^2 bytes. For more atoms
        they compute the rows that they need, within that memory. "cd" keeps the whole matrix in any case, so that
        "auto" does not take it beyond the limit.
    verbose : bool, default False
        Show a progress bar of the samples done, on a terminal.

    Returns
    -------
    Solution
        Where the certificate is a duality gap, F is at most so far above its minimum. There is a gap for every sum of
        L1, Huber, SquaredL2, NonNegative, Box, Tilt and translations of these whose weights keep the codes
        bounded, for NonNegative without a penalty where 0 is not in the convex hull of the atoms, or inside it, so that
        min F is 0, and for every R of whole codes that has a conjugate and keeps the codes bounded. Elsewhere
        ``certificate_kind`` names the kind.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not fit one another, R is not a regularizer or does not fit them, or the method does not fit R.
        If F has no minimum because R falls without end along codes that D maps to 0; with a cardinality, codes on such
        supports have an infinite certificate instead. If D has an atom of zeros and the partner of a cardinality is not
        least at 0 there; without a cardinality the code of such an atom is the minimiser of R. If an atom is not zero
        and its largest modulus is outside of 1e-75 to 1e75.

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
    check_limits(tol, max_iter, gram_limit)
    inputs = checked_inputs(X, D, intercept, init)
    n_samples, n_components = inputs.shape
    dictionary = inputs.dictionary
    terms = checked_terms(R, n_components)
    terms_in_main_memory = in_main_memory(terms)
    method_name = checked_method(method, terms_in_main_memory, dictionary, gram_limit)
    given = inputs, terms
    on_device = array_api_compat.is_torch_array(dictionary) and dictionary.device.type != "cpu"
    algorithm = algorithm_of(method_name, terms_in_main_memory, on_device=on_device)
    if algorithm.is_compiled:
        inputs, terms = inputs.as_numpy(), terms_in_main_memory
    if sparse_output and array_api_compat.is_torch_array(D):
        raise TypeError("sparse_output gives a SciPy matrix and needs NumPy input, got Torch tensors")

    with _without_graph(dictionary), _progress(n_samples, verbose) as on_finished:
        stop = Event()
        limits: dict[str, Any] = {
            "step": step,
            "tol": tol,
            "max_iter": max_iter,
            "on_finished": on_finished,
            "stop": stop,
            "gram_limit": gram_limit,
        }
        if isinstance(algorithm, Direct):
            outcome, kinds = run_direct(method_name, algorithm, inputs, terms, **limits)
            kind = weakest(kinds)
            outcome = outcome if sparse_output else outcome._replace(codes=outcome.codes.toarray())
        else:
            assert isinstance(terms, Regularizer)
            outcome, kind = iterate(algorithm, inputs, terms, sparse_output=sparse_output, **limits)
            kinds = np.full(n_samples, kind)
    if array_api_compat.is_torch_array(dictionary) and algorithm.is_compiled:
        import torch

        outcome = Outcome(*(torch.from_numpy(values).to(dictionary.device) for values in outcome))
    if stop.is_set():
        n_done = int(outcome.converged.sum())
        warnings.warn(f"interrupted: {n_done} of {n_samples} samples have converged", ConvergenceWarning, stacklevel=2)
    else:
        _warn_unless_converged(outcome, kind, tol, max_iter)
    return Solution(
        csr_matrix(outcome.codes) if sparse_output else outcome.codes,
        outcome.objective,
        outcome.certificate,
        kind,
        kinds,
        outcome.converged,
        outcome.n_iter,
        method_name,
        given,
    )


def _warn_unless_converged(outcome: Outcome, kind: CertificateKind, tol: float, max_iter: int) -> None:
    n_missing = int((~outcome.converged).sum())
    if n_missing == 0:
        return
    largest = float(outcome.certificate[~outcome.converged].max())
    is_residual = kind in ("duality gap", "coordinate-wise residual", "fixed-point residual", "consensus residual")
    name = kind if is_residual else "fall of F to be had"
    warnings.warn(
        f"{n_missing} of {outcome.converged.shape[0]} samples have not converged to tol={tol:g} "
        f"after {max_iter} steps; the largest {name} is {largest:.3g}",
        ConvergenceWarning,
        stacklevel=3,
    )


def _without_graph(like: Array) -> AbstractContextManager[Any]:
    if not array_api_compat.is_torch_array(like):
        return nullcontext()
    import torch

    return torch.no_grad()


@contextmanager
def _progress(n_samples: int, verbose: bool) -> Iterator[Callable[[int], object]]:
    """Yield the function to call with the number of samples that have been done."""
    if not (verbose and sys.stderr.isatty()):
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=n_samples, unit="sample") as bar:
        yield bar.update
