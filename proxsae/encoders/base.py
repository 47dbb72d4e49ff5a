"""The interface of encoders x -> z. A new kind is one file with one subclass of `Encoder`."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from proxsae.encoders.codes import Codes
from proxsae.encoders.pre_activation import Columns, PreActivation
from proxsae.formulas.arrays import to_numpy
from proxsae.kernels.top_k import row_support
from proxsae.regularizers import L0, Cardinality, Regularizer

ENCODERS: dict[str, type[Encoder]] = {}  # by name; a subclass enters itself


@dataclass(frozen=True)
class Encoding:
    """The codes of a batch in training, and all that a loss needs of them.

    Attributes
    ----------
    codes : Codes
        With gradients.
    penalty : Tensor of shape (n_samples,)
        R(z) of each sample plus any penalty of the encoder itself, with gradients.
    regularizer : Regularizer
        R.
    pre_activation : PreActivation
        The argument u of the last prox.
    prices : float64 Tensor of shape (n_proxes,), optional
        At batch scope: the least gain of a non-zero in each prox, divided by its step.
    largest : callable
        Function of (matrix, k, mirror) that returns the pattern of the k entries of largest rank in each row, see
        :func:`proxsae.kernels.top_k.row_support`; where several processes share the atoms, the part of this process.
    """

    codes: Codes
    penalty: Tensor
    regularizer: Regularizer
    pre_activation: PreActivation
    prices: Tensor | None = None
    largest: Callable[[Tensor, int, float], tuple[Tensor, Tensor]] = row_support


class Encoder(nn.Module, ABC):
    """A torch module x -> z whose activation is the prox of R.

    An object made by its constructor holds options alone, as an unfitted estimator does: ``ProxSAE(encoder=...)`` takes
    it, scikit-learn clones it and searches over its options. :meth:`initial` and :meth:`from_tensors` return fitted
    copies, which have a regularizer and parameters.

    Attributes
    ----------
    name : str
        Name of the class in files and for ``ProxSAE(encoder=...)``.
    is_tied : bool
        Whether encoders of the class compute codes with the D and b of the decoder, so that codes of x reconstruct x.
    regularizer : Regularizer
        R; fitted encoders have it.
    """

    name: ClassVar[str]
    is_tied: ClassVar[bool] = False
    regularizer: Regularizer

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            ENCODERS[cls.name] = cls

    # --- options ---------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Return the options by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **options: Any) -> Self:
        """Set options; they count from the next fit on."""
        for name, value in options.items():
            if name not in self.get_params():
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def unfitted(self) -> Self:
        """Return an encoder with these options alone."""
        return type(self)(**self.get_params())

    @property
    def is_fitted(self) -> bool:
        """Whether there are a regularizer and parameters."""
        return "regularizer" in vars(self)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if self.is_fitted:
                raise
            kind = type(self).__name__
            raise AttributeError(
                f"this {kind} holds options alone: {name!r} is there once a ProxSAE has fitted it"
            ) from None

    def refuses(self, R: Regularizer) -> str | None:
        """Return one sentence if this kind cannot take R, else None."""
        return None if R.has_gradient else f'{R} has no gradient, so that it needs encoder="solved"'

    # --- made ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def initial(self, R: Regularizer, atoms: Tensor, *, learn_thresholds: bool) -> Self:
        """Return an encoder with these options to start the training with, for centred data and b = 0.

        Parameters
        ----------
        R : Regularizer
        atoms : Tensor of shape (n_components, n_features)
            D; of a transcoder the directions of x to start from.
        learn_thresholds : bool
            Where R has a hard threshold, learn one an atom.
        """

    @abstractmethod
    def with_regularizer(self, R: Regularizer, *, learn_thresholds: bool) -> Self:
        """Return the encoder with the same parameters and another R; thresholds, where learned, start from R."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name: what a file holds beside the options and R."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, R: Regularizer, tensors: Mapping[str, Tensor], **options: Any) -> Self:
        """Return the encoder with the parameters that :meth:`tensors` gave.

        Raises
        ------
        ValueError
            If a tensor is missing, unknown or of the wrong shape; the sentence names it.
        """

    @abstractmethod
    def in_units(self, mean: Tensor, x_scale: float, z_scale: float) -> Self:
        """Return the encoder of x = x_scale x' + mean with codes z = z_scale z', given that this one takes x' to z'.

        Its regularizer is z -> z_scale^2 R(z / z_scale), with what has been learned of R written into its weights.
        """

    def tie(self, atoms: nn.Parameter, bias: nn.Parameter) -> None:
        """Share D and b with the autoencoder, where codes are computed with them.

        Raises
        ------
        ValueError
            If the parameters do not fit D and b.
        """

    def draw_to(self, atoms: Tensor, share: float) -> None:
        """Shrink by `share` the part of the encoder that is orthogonal to each atom, where that helps, in training."""

    # --- used ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def codes(self, x: Tensor) -> Codes:
        """Return the codes of x, (n_samples, n_features)."""

    @abstractmethod
    def encode(self, x: Tensor) -> Encoding:
        """Return the codes and all that a loss needs of them, with gradients."""

    def encode_noting(self, x: Tensor, columns: Columns) -> Encoding:  # noqa: ARG002
        """Return :meth:`encode`; an encoder may keep these columns of u, so that a loss need not compute them again."""
        return self.encode(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes as a dense (n_samples, n_components) tensor."""
        return self.codes(x).to_dense()

    @property
    @abstractmethod
    def n_features(self) -> int:
        """How many features x has."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the encoder computes."""
        return self._parameter.dtype

    @property
    def device(self) -> torch.device:
        """The device on which the encoder computes."""
        return self._parameter.device

    @property
    def _parameter(self) -> nn.Parameter:
        if (found := next(self.parameters(), None)) is None:
            raise ValueError(f"{self!r} has no parameters of its own, and no dictionary to compute with yet")
        return found

    # --- the weight of R -------------------------------------------------------------------------------------------

    @property
    def current_regularizer(self) -> Regularizer:
        """R with what has been learned of it."""
        return self.regularizer

    @property
    def learns_thresholds(self) -> bool:
        """Whether thresholds are parameters, beside the weight of R."""
        return False

    def scale_weight(self, factor: float) -> None:
        """Multiply the weight of R."""
        self.regularizer = self.regularizer.scaled(factor)

    def judge_alone(self, R: Regularizer, prices: list[float]) -> None:
        """Replace R of batch scope by the regularizer of single samples with the prices that batches had.

        A code then does not depend on other samples.
        """
        self.regularizer = at_price(R, prices[-1])

    @abstractmethod
    def l0_by_weight(self, x: Tensor) -> Callable[[float], Tensor]:
        """Return the L0 of the code of each row of x as a function of a factor on the weight of R."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the arrays of R with the parameters; what `.to(device)` calls."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = next((p.device for p in self.parameters()), None)
        if device is not None and self.is_fitted:
            self.regularizer = on_device(self.regularizer, device)
        return self


def at_price(R: Regularizer, price: float) -> Regularizer:
    """Return the regularizer whose prox is non-zero where the gain of a coordinate exceeds the step times a price."""
    assert isinstance(R, Cardinality)
    priced: Regularizer = price * L0()
    for term in R.partner.terms:
        priced = priced + term
    return priced


def on_device(R: Regularizer, device: torch.device | str) -> Regularizer:
    """Return R with its arrays of numbers on a device: tensors there, NumPy arrays on the CPU."""
    device = torch.device(device)

    def moved(_: str, a: Any) -> Any:
        if not isinstance(a, Tensor | np.ndarray):
            return a
        return to_numpy(a) if device.type == "cpu" else torch.as_tensor(a, device=device)

    return R.map_parameters(moved)


def encoder_of(encoder: Any) -> Encoder:
    """Return the unfitted encoder that a name, or an object with options, stands for.

    Raises
    ------
    ValueError
        If `encoder` is neither, or is fitted already.
    """
    if isinstance(encoder, str) and encoder in ENCODERS:
        return ENCODERS[encoder]()
    if not isinstance(encoder, Encoder):
        names = ", ".join(map(repr, ENCODERS))
        raise ValueError(f"encoder must be {names} or an object of proxsae.encoders, got {encoder!r}")
    if encoder.is_fitted:
        raise ValueError(
            f"encoder must hold options alone, such as {encoder!r}, but this one is fitted: it is of another model"
        )
    return encoder


def check_tensors(encoder: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the tensors have these names and shapes."""
    for name in [*shapes, *tensors]:
        if name not in tensors:
            raise ValueError(f"the {encoder} encoder needs the tensor {name!r}")
        if name not in shapes:
            raise ValueError(f"the {encoder} encoder has no tensor {name!r}")
        if tuple(tensors[name].shape) != shapes[name]:
            raise ValueError(f"the tensor {name!r} has shape {tuple(tensors[name].shape)}, needed is {shapes[name]}")


def check_number(name: str, value: Any, *, may_be_zero: bool = False) -> None:
    """Raise ValueError unless an option is a positive finite number, or 0 where it may be."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < math.inf or (value == 0 and not may_be_zero):
        raise ValueError(f"{name} must be a finite number {'>=' if may_be_zero else '>'} 0, got {value!r}")


def check_one_scale(encoder: str, x_scale: float, z_scale: float) -> None:
    """Raise ValueError where codes have other units than x, for an encoder that computes with D and b."""
    if x_scale != z_scale:
        raise ValueError(f"an encoder that is {encoder} codes what it decodes: inputs and targets must have one scale")
