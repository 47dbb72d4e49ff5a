"""The solved encoder: the code is the minimum of the objective, and D learns by the envelope theorem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from proxsae.encoders.base import Encoder, Encoding, check_one_scale, check_tensors
from proxsae.encoders.codes import Codes
from proxsae.encoders.pre_activation import PreActivation
from proxsae.regularizers import Regularizer
from proxsae.solvers import solve
from proxsae.solvers.inputs import check_limits
from proxsae.solvers.methods import algorithm_of, check_name


class Solved(Encoder):
    r"""The code of x is what ``solve(x, D, R, intercept=b)`` returns, with the D and b of the decoder.

    It has no parameters. Where z minimises F, the derivative of :math:`\min_z F(z; D, b)` is that of F with z held
    fixed (the envelope theorem), so that no gradient passes through the solver.

    Parameters
    ----------
    method : str, default "auto"
        As in :func:`proxsae.solve`.
    tol : float, default 1e-4
        As in :func:`proxsae.solve`.
    max_iter : int, default 1000
        Most steps of the solver, at least one. :meth:`codes` warns of samples that have not converged, training not.

    References
    ----------
    Mairal, Bach, Ponce and Sapiro (2010), Online learning for matrix factorization and sparse coding, JMLR 11.
    """

    name = "solved"
    is_tied = True
    method: str
    tol: float
    max_iter: int
    atoms: nn.Parameter
    bias: nn.Parameter

    def __init__(self, method: str = "auto", tol: float = 1e-4, max_iter: int = 1000) -> None:
        super().__init__()
        check_name(method)
        check_limits(tol, max_iter)
        if max_iter == 0:
            raise ValueError("max_iter must be at least 1: codes that start at zero would stay there, got 0")
        self.method, self.tol, self.max_iter = method, tol, max_iter

    def refuses(self, R: Regularizer) -> str | None:
        """Return one sentence if the method does not take R."""
        if R.scope == "batch":
            return f"a solved encoder codes each sample by itself, and {R} a batch"
        sentence = None if self.method == "auto" else algorithm_of(self.method, R).refuses(R)
        return sentence and f"{self.method!r} {sentence}"

    # --- made ------------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, R: Regularizer, **options: Any) -> Self:
        """Return the encoder for R, with options; it takes D and b from the autoencoder."""
        encoder = cls(**options)
        encoder.regularizer = R
        return encoder

    def initial(self, R: Regularizer, atoms: Tensor, *, learn_thresholds: bool) -> Self:  # noqa: ARG002
        """Return the encoder; no thresholds are learned, since a hard threshold is a weight of R here."""
        return self.of(R, **self.get_params())

    def with_regularizer(self, R: Regularizer, *, learn_thresholds: bool) -> Self:  # noqa: ARG002
        """Return the encoder with another R."""
        return self.of(R, **self.get_params())

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    @classmethod
    def from_tensors(cls, R: Regularizer, tensors: Mapping[str, Tensor], **options: Any) -> Self:
        """Return the encoder."""
        check_tensors(cls.name, tensors, {})
        return cls.of(R, **options)

    def in_units(self, mean: Tensor, x_scale: float, z_scale: float) -> Self:  # noqa: ARG002
        """Return the encoder with R in the new units; D and b come with the autoencoder.

        Raises
        ------
        ValueError
            If the codes have other units than x.
        """
        check_one_scale(self.name, x_scale, z_scale)
        return self.of(self.regularizer.rescaled(z_scale), **self.get_params())

    def tie(self, atoms: nn.Parameter, bias: nn.Parameter) -> None:
        """Take D and b."""
        self.atoms, self.bias = atoms, bias

    # --- used ------------------------------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """How many features x has."""
        return int(self.atoms.shape[1])

    def codes(self, x: Tensor) -> Codes:
        """Return the codes of the solver, without gradients."""
        return self._codes(x, self.regularizer)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Encoding:
        r"""Return the codes, without gradients; losses of them have the gradients of the envelope theorem.

        The pre-activation is :math:`z_i + \langle x - b - zD, d_i\rangle`, for atoms of unit norm the best value of z_i
        if it were free and the others held.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = self._codes(x, self.regularizer)
        residual = x - self.bias - codes.decode(self.atoms)
        pre_activation = PreActivation(residual, self.atoms.detach(), codes=((1.0, codes),))
        penalty = self.regularizer.value_unchecked(codes.to_dense())
        return Encoding(codes, penalty, self.regularizer, pre_activation)

    @torch.no_grad()
    def _codes(self, x: Tensor, R: Regularizer) -> Codes:
        arrays = [part.detach() for part in (x, self.atoms, self.bias)]
        on_cpu = x.device.type == "cpu"
        X, D, b = (part.numpy() for part in arrays) if on_cpu else arrays
        options: Any = {"method": self.method, "tol": self.tol, "max_iter": self.max_iter}
        codes = solve(X, D, R, intercept=b, sparse_output=on_cpu, **options).codes
        return Codes.of_csr(codes) if on_cpu else Codes.of_dense(codes)

    @torch.no_grad()
    def l0_by_weight(self, x: Tensor) -> Callable[[float], Tensor]:
        """Return the L0 of the code of each row of x as a function of a factor on the weight of R."""

        def l0(factor: float) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return self._codes(x, self.regularizer.scaled(factor)).l0

        return l0
