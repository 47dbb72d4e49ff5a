"""What every regularizer R has: a value, a proximal operator, traits, and an algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, as_float_array, to_numpy
from proxsae.kernels.top_k import pattern_of

Scope = Literal["coordinate", "group", "sample", "batch"]


class Regularizer(ABC):
    r"""A function R of a code z, with :math:`\mathrm{prox}_{tR}(u) = \arg\min_z \frac12 \|z - u\|^2 + t R(z)`.

    Regularizers are immutable. They add (``0.1 * L1() + NonNegative()``) and take non-negative weights, scalar or one a
    coordinate. A sum exists only if a calculus rule gives its prox exactly.

    Attributes
    ----------
    is_convex : bool
        R is convex (so its prox is single-valued and firmly non-expansive).
    is_separable : bool
        R(z) is a sum of functions of one coordinate each.
    is_nonnegative : bool
        R(z) is infinite unless every z_i >= 0.
    is_scale_free : bool
        R is the indicator of a cone: neither step nor weight matters.
    scope : {"coordinate", "group", "sample", "batch"}
        How much of a code matrix one decision of the prox looks at.
    has_conjugate : bool
        The convex conjugate of R is written down, apart from the prox.
    """

    # Let `numpy_array * R` reach R.__rmul__ instead of being broadcast over the entries.
    __array_ufunc__ = None

    @property
    @abstractmethod
    def is_convex(self) -> bool:
        """Whether R is convex."""

    @property
    @abstractmethod
    def is_separable(self) -> bool:
        """Whether R is a sum over coordinates."""

    @property
    @abstractmethod
    def is_nonnegative(self) -> bool:
        """Whether R requires z >= 0."""

    @property
    @abstractmethod
    def is_scale_free(self) -> bool:
        """Whether R is the indicator of a cone."""

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """How much of a code matrix one decision of the prox looks at."""

    @property
    def has_conjugate(self) -> bool:
        """Whether the convex conjugate of R is written down, see :func:`proxsae.regularizers.conjugate.conjugate`."""
        return False

    @property
    @abstractmethod
    def terms(self) -> tuple[Regularizer, ...]:
        """The summands, as typed."""

    @abstractmethod
    def scaled(self, weight: Any) -> Regularizer:
        """Return ``weight * self``."""

    @abstractmethod
    def rescaled(self, scale: float) -> Regularizer:
        r"""Return the regularizer of codes measured in other units, :math:`z \mapsto s^2 R(z / s)`.

        Its prox satisfies :math:`\mathrm{prox}(s u) = s\,\mathrm{prox}_R(u)`, and with data multiplied by s the whole
        objective is multiplied by s squared.
        """

    @abstractmethod
    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return R of each row of a matrix, shape (n,)."""

    @abstractmethod
    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        """Return the prox of finite floating input."""

    def conjugate_on(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return R* of each row of a matrix, shape (n,), where ``has_conjugate``."""
        raise NotImplementedError

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return g(v) of each row, g convex, with R* finite wherever g(v) <= 1."""
        raise NotImplementedError

    @abstractmethod
    def check_width(self, n_components: int) -> None:
        """Raise ValueError where the parameters do not fit codes of this width."""

    def value(self, Z: Any) -> Any:
        """Return R(z) for each row of Z, or for one code.

        Parameters
        ----------
        Z : array of shape (n_samples, n_components) or (n_components,)
            NumPy, Torch, or what NumPy takes as an array.

        Returns
        -------
        array of shape (n_samples,), or float
            ``inf`` outside the domain of R; at batch scope the constraint, and so the ``inf``, is on the whole matrix.

        Raises
        ------
        TypeError, ValueError
            If Z is not floating-point, not finite, or not one or two-dimensional.
        """
        Z = as_float_array(Z, "Z")
        if Z.ndim not in (1, 2):
            raise ValueError(f"Z must be (n_samples, n_components) or (n_components,), got shape {tuple(Z.shape)}")
        self.check_width(Z.shape[-1])
        values = self.value_on(ArrayNamespace(Z), Z if Z.ndim == 2 else Z[None, :])
        return values if Z.ndim == 2 else float(values[0])

    def prox(self, U: Any, step: Any = 1.0) -> Any:
        r"""Return :math:`\mathrm{prox}_{tR}(u) = \arg\min_z \frac12\|z - u\|^2 + t R(z)` for each row u of U.

        Where the minimiser is not unique, the smaller support wins at a threshold and the lowest index among equals.
        Every zero that comes back is +0.0.

        Parameters
        ----------
        U : array of shape (n_samples, n_components) or (n_components,)
            NumPy or Torch (dtype, device and graph are kept; half precision is computed in float32). Lists and integers
            become float64. U is never changed.
        step : float or array broadcasting to U
            The step size t > 0.

        Raises
        ------
        TypeError, ValueError
            If U is not floating-point or not finite, if the step is not positive and finite, or if a parameter of R
            does not fit the width of U.
        """
        U = as_float_array(U, "U")
        step = as_float_array(step, "step")
        if bool((step <= 0).any()):
            raise ValueError(f"step must be positive, got {step}")
        if U.ndim:
            self.check_width(U.shape[-1])
        return self.prox_unchecked(U, step)

    def prox_unchecked(self, U: Array, step: Any = 1.0) -> Array:
        """Return :meth:`prox` of input known to be right: the inner loops of solvers and training call this."""
        xp = ArrayNamespace(U)
        Z = self.prox_on(xp, xp.asarray(U), xp.asarray(step)) + 0.0
        return Z if Z.dtype == U.dtype else array_api_compat.array_namespace(U).astype(Z, U.dtype)

    def support(self, U: Array, step: float = 1.0) -> tuple[Array, Array]:
        """Return where the prox of an (n, p) matrix may be non-zero, without keeping a dense result.

        Returns
        -------
        offsets : integer array of shape (n + 1,)
        indices : integer array of shape (nnz,)
            The columns of row i, ascending, are ``indices[offsets[i]:offsets[i + 1]]``. Outside of them the prox is 0.
        """
        return pattern_of(self.prox_unchecked(U, step) != 0)

    def latex(self, of: Literal["value", "prox"] = "value") -> str:
        """Return R, or its prox, as LaTeX mathematics; the prox is printed from the formula that runs."""
        from proxsae.formulas.latex import latex

        return latex(self, of)

    def __add__(self, other: Any) -> Regularizer:
        if not isinstance(other, Regularizer):
            return NotImplemented
        from proxsae.regularizers.sums import combine

        return combine(self.terms + other.terms)

    def __mul__(self, weight: Any) -> Regularizer:
        return NotImplemented if isinstance(weight, Regularizer | str) else self.scaled(weight)

    __rmul__ = __mul__

    @abstractmethod
    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the text that builds this regularizer.

        With `arrays`, array parameters are put there and the text uses their names; ``parse(text, **arrays)`` reads it.
        """

    def __repr__(self) -> str:
        return self.spelled()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Regularizer):
            return NotImplemented
        mine: dict[str, Array] = {}
        theirs: dict[str, Array] = {}
        if self.spelled(mine) != other.spelled(theirs):
            return False
        return all(np.array_equal(to_numpy(mine[name]), to_numpy(theirs[name])) for name in mine)

    def __hash__(self) -> int:
        return hash(type(self))


def as_parameter(value: Any, name: str) -> Any:
    """Return a parameter as a float or a floating (n_components,) array, or raise."""
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}")
    array = as_float_array(value, name)
    if array.ndim > 1:
        raise ValueError(f"{name} must be a number or have shape (n_components,), got shape {tuple(array.shape)}")
    return array if array.ndim or array_api_compat.is_torch_array(value) else float(array)


def spelled_number(value: Any, arrays: dict[str, Array] | None) -> str:
    """Return the text of a parameter; an array is put into `arrays`, where given, under the name returned."""
    if np.ndim(value) == 0:
        return repr(float(value))
    if arrays is None:
        return f"np.array({np.array2string(to_numpy(value), separator=', ', threshold=8)})"
    name = f"array_{len(arrays)}"
    arrays[name] = value
    return name


def row_sums(Z: Array) -> Array:
    """Return the sums of the rows, accumulated in float64, in the dtype of Z."""
    xp = array_api_compat.array_namespace(Z)
    return xp.astype(xp.sum(Z, axis=-1, dtype=xp.float64), Z.dtype)
