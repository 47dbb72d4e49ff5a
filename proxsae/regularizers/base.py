"""The base class of regularizers: a value, a proximal operator, traits, an algebra, and a name for :func:`parse`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial, reduce
from typing import Any, Literal, Self, dataclass_transform

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, ArrayNamespace, as_float_array, to_numpy
from proxsae.kernels.top_k import pattern_of
from proxsae.regularizers.parameters import as_parameter, spelled_value
from proxsae.regularizers.traits import Traits

# A formula computes all its branches, and a branch that is not selected may divide by zero or overflow.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")

# The classes that :func:`parse` knows, by name and by module: those of the library and of its users.
CLASSES: dict[str, dict[str, type[Regularizer]]] = {}


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
@dataclass(frozen=True, repr=False, eq=False)
class Regularizer(Traits, ABC):
    r"""A function R of a code z, with :math:`\mathrm{prox}_{tR}(u) = \arg\min_z \frac12 \|z - u\|^2 + t R(z)`.

    Regularizers are immutable. They can be added (``0.1 * L1() + NonNegative()``) and multiplied by non-negative
    weights. A sum exists only if a calculus rule gives its prox exactly.

    Every subclass becomes a frozen dataclass, and :func:`parse`, files and the command line know it by its name;
    ``class Mine(Separable, named=False)`` has no such name. Traits are class attributes, or properties where they
    depend on the parameters; :mod:`proxsae.regularizers.traits` says what each trait means.

    Parameters
    ----------
    weight : float, default 1
        The weight that ``weight * R`` sets; a separable R may have one weight a coordinate.
    """

    _: KW_ONLY
    weight: Any = 1.0

    # Let `numpy_array * R` reach R.__rmul__ instead of being broadcast over the entries.
    __array_ufunc__ = None

    def __init_subclass__(cls, *, named: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(frozen=True, repr=False, eq=False)(cls)
        if named and not inspect.isabstract(cls):
            CLASSES.setdefault(cls.__name__, {})[cls.__module__] = cls

    # --- value and prox ------------------------------------------------------------------------------------------

    @abstractmethod
    def value_on(self, xp: ArrayNamespace, Z: Array) -> Array:
        """Return R of each row of a matrix, shape (n,)."""

    @abstractmethod
    def prox_on(self, xp: ArrayNamespace, U: Array, step: Array) -> Array:
        """Return the prox of finite floating input."""

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        """Return the conjugate of R + ridge/2 ||z||^2 at each row of a matrix, shape (n,).

        A ridge of 0 requires `has_conjugate`, another ridge `has_conjugate_with_ridge`.
        """
        raise NotImplementedError

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        """Return g(v) of each row, for a convex g such that R* is finite wherever g(v) <= 1."""
        raise NotImplementedError

    def group_values(self, xp: ArrayNamespace, Z: Array, parts: Any) -> Array:
        """Return the value of each group of a partition over which R is a sum, shape (n, n_groups)."""
        raise NotImplementedError

    def value(self, Z: Any) -> Any:
        """Return R(z) for each row of Z, or for one code.

        Parameters
        ----------
        Z : array of shape (n_samples, n_components) or (n_components,)
            NumPy, Torch, or anything that NumPy converts to an array.

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
        values = self.value_unchecked(Z if Z.ndim == 2 else Z[None, :])
        return values if Z.ndim == 2 else float(values[0])

    @quiet
    def value_unchecked(self, Z: Array) -> Array:
        """Return :meth:`value` of a checked matrix."""
        return self.value_on(ArrayNamespace(Z), Z)

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
            If U is not floating-point or not finite, if the step is not positive and finite, if a parameter of R does
            not fit the width of U, or if U is a single number and R is no sum over coordinates.
        """
        U = as_float_array(U, "U")
        step = as_float_array(step, "step")
        if bool((step <= 0).any()):
            raise ValueError(f"step must be positive, got {step}")
        if U.ndim:
            self.check_width(U.shape[-1])
        elif not self.is_separable:
            raise ValueError(f"{self} looks at a whole code, got a single number")
        return self.prox_unchecked(U, step)

    @quiet
    def prox_unchecked(self, U: Array, step: Any = 1.0) -> Array:
        """Return :meth:`prox` of checked input: the inner loops of solvers and training call this."""
        xp = ArrayNamespace(U)
        Z = self.prox_on(xp, xp.asarray(U), xp.asarray(step)) + 0.0
        return Z if Z.dtype == U.dtype else array_api_compat.array_namespace(U).astype(Z, U.dtype)

    @quiet
    def conjugate_unchecked(self, V: Array) -> Array:
        """Return R*(v) of each row of a checked matrix, where `has_conjugate`."""
        return self.conjugate_on(ArrayNamespace(V), V)

    def support_rule(self, n_components: int, dtype: str, step: float = 1.0) -> Callable[[Array], tuple[Array, Array]]:
        """Return a function of an (n, n_components) matrix of a dtype that tells where its prox may be non-zero.

        Returns
        -------
        callable
            It returns ``(offsets, indices)``, integer arrays of shapes (n + 1,) and (nnz,): the columns of row i,
            ascending, are ``indices[offsets[i]:offsets[i + 1]]``. Outside of them the prox is 0.
        """
        return lambda U: pattern_of(self.prox_unchecked(U, step) != 0)

    # --- parameters ----------------------------------------------------------------------------------------------

    def parts(self) -> list[tuple[str, Regularizer]]:
        """Return the regularizers that this one is made of, with the names of their fields."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, value) for name, value in values if isinstance(value, Regularizer)]

    def made_of(self) -> list[Regularizer]:
        """Return the regularizers that this one is made of."""
        return [R for _, R in self.parts()]

    def own_parameters(self) -> list[str]:
        """Return the names of the numbers in the formulas, without those of the parts."""
        return [f.name for f in fields(self) if f.name == "weight" and f.init and not self.is_indicator]

    def parameters(self) -> list[tuple[str, Any]]:
        """Return the numbers in the formulas, by name; a reader of formulas replaces them by its own kind of number."""
        mine = [(name, getattr(self, name)) for name in self.own_parameters()]
        return [*((f"{part}.{name}", value) for part, R in self.parts() for name, value in R.parameters()), *mine]

    def map_parameters(self, function: Callable[[str, Any], Any]) -> Self:
        """Return a copy with ``function(name, value)`` in place of each parameter, unvalidated."""
        copy = object.__new__(type(self))
        for f in fields(self):
            object.__setattr__(copy, f.name, getattr(self, f.name))
        for name in self.own_parameters():
            object.__setattr__(copy, name, function(name, getattr(self, name)))
        for part, R in self.parts():
            object.__setattr__(copy, part, R.map_parameters(partial(_prefixed, part, function)))
        return copy

    def as_arrays(self, xp: ArrayNamespace) -> Self:
        """Return a copy whose parameters are arrays of the namespace."""
        return self.map_parameters(lambda _, value: xp.asarray(value))

    @property
    def width(self) -> int | None:
        """The only number of components that codes may have, or None."""
        arrays = [value.shape[0] for _, value in self.parameters() if np.ndim(value)]
        return next(iter([*arrays, *(R.width for _, R in self.parts() if R.width is not None)]), None)

    def check_width(self, n_components: int) -> None:
        """Raise ValueError where the parameters do not fit codes of this width."""
        for _, R in self.parts():
            R.check_width(n_components)
        for name in self.own_parameters():
            value = getattr(self, name)
            if np.ndim(value) and value.shape[0] != n_components:
                raise ValueError(
                    f"{type(self).__name__}: {name} has {value.shape[0]} entries and the codes have {n_components}"
                )

    def replace(self, **parameters: Any) -> Self:
        """Return a copy with some parameters changed."""
        return type(self)(**{**{f.name: getattr(self, f.name) for f in fields(self) if f.init}, **parameters})

    def defines(self, name: str) -> bool:
        """Whether the class that defines the value also defines `name`: a subclass may be another function."""
        return name in vars(self.writer)

    @property
    def writer(self) -> type:
        """The class that defines the value."""
        return next((cls for cls in type(self).__mro__ if "value_of" in vars(cls)), type(self))

    # --- the algebra ---------------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[Any, ...]:
        """The summands, as the user wrote them."""
        return (self,)

    def scaled(self, weight: Any) -> Any:
        """Return ``weight * self``; every multiple of an indicator is the indicator itself.

        This holds for the weight 0 too, as the limit of small weights: the domain of ``w * R`` is always that of R.
        """
        weight = as_parameter(weight, "weight")
        if not self.is_indicator:
            return self.replace(weight=self.weight * weight)
        if np.ndim(weight) == 0 and bool(weight >= 0):
            return self
        raise ValueError(f"an indicator takes only scalar weights >= 0, got {weight} * {self}")

    def rescaled(self, scale: float) -> Any:
        r"""Return the regularizer of codes measured in other units, :math:`z \mapsto s^2 R(z / s)`.

        Its prox satisfies :math:`\mathrm{prox}(s u) = s\,\mathrm{prox}_R(u)`, and with data multiplied by s the whole
        objective is multiplied by s squared.
        """
        if self.degree is None or not self.defines("degree"):
            return self.in_units(scale)
        changed = {name: getattr(self, name) * scale for name in self.lengths}
        if not self.is_indicator:
            changed["weight"] = self.weight * scale ** (2 - self.degree)
        return self.replace(**changed) if changed else self

    @abstractmethod
    def in_units(self, scale: float) -> Regularizer:
        """Return :math:`s^2 R(z / s)` for an R whose `degree` is None."""

    def __add__(self, other: Any) -> Regularizer:
        if not isinstance(other, Regularizer):
            return NotImplemented
        return combine(self.terms + other.terms)

    def __radd__(self, other: Any) -> Regularizer:  # sum() begins with 0
        return self if type(other) is int and other == 0 else NotImplemented

    @property
    def rank(self) -> int:
        """The place of a term when terms are added, lowest first; a sum has at most one term of rank 0."""
        return 0

    def merged(self, other: Regularizer) -> Regularizer | None:
        """Return the single term that equals the sum of this term and another, or None."""
        if type(self) is not type(other):
            return None
        if self.is_indicator:
            return self if self == other else None
        alike = self.replace(weight=1.0) == other.replace(weight=1.0)
        return self.replace(weight=self.weight + other.weight) if alike else None

    def joined(self, total: Regularizer) -> Regularizer:
        """Return the sum of the terms of lower rank and this term, or raise ValueError where no rule gives its prox."""
        raise ValueError(no_rule(total, self))

    def __mul__(self, weight: Any) -> Regularizer:
        return NotImplemented if isinstance(weight, Regularizer | str) else self.scaled(weight)

    __rmul__ = __mul__

    # --- spelling ------------------------------------------------------------------------------------------------

    def spelled(self, arrays: dict[str, Array] | None = None) -> str:
        """Return the text that builds this regularizer.

        With `arrays`, array parameters are added to that dict and the text uses their names; ``parse(text, **arrays)``
        reads it.
        """
        unit = f"{self.builder}({', '.join(self.arguments(arrays))})"
        is_plain = self.is_indicator or (np.ndim(self.weight) == 0 and float(self.weight) == 1.0)
        return unit if is_plain else f"{spelled_value(self.weight, arrays)}*{unit}"

    @property
    def builder(self) -> str:
        """The name of the class or function that builds this regularizer from its arguments in a text."""
        return type(self).__name__

    def arguments(self, arrays: dict[str, Array] | None) -> list[str]:
        """Return the texts of the arguments; keyword arguments are left out where they have their default."""
        given = [(f, getattr(self, f.name)) for f in fields(self) if f.init and f.name != "weight"]
        return [
            f"{f.name}={spelled_value(value, arrays)}" if f.kw_only else spelled_value(value, arrays)
            for f, value in given
            if value is not None and not (f.kw_only and value == f.default)
        ]

    def latex(self, of: Literal["value", "prox"] = "value") -> str:
        """Return R, or its prox, as LaTeX mathematics; scalar formulas are printed from the code that runs."""
        if of not in ("value", "prox"):
            raise ValueError(f'latex prints "value" or "prox", got {of!r}')
        return f"R(z) = {self.printed_value()}" if of == "value" else self.printed_prox()

    @abstractmethod
    def printed_value(self) -> str:
        """Return R(z) as LaTeX."""

    def printed_prox(self) -> str:
        """Return the prox as an equation in LaTeX: by default its definition."""
        objective = rf"\tfrac12 \|z - u\|^2 + t \left({self.printed_value()}\right)"
        return rf"\mathrm{{prox}}_{{tR}}(u) = \operatorname*{{arg\,min}}_z {objective}"

    def __repr__(self) -> str:
        return self.spelled()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Regularizer):
            return NotImplemented
        mine: dict[str, Array] = {}
        theirs: dict[str, Array] = {}
        if type(self) is not type(other) or self.spelled(mine) != other.spelled(theirs):
            return False
        return all(np.array_equal(to_numpy(mine[name]), to_numpy(theirs[name])) for name in mine)

    def __hash__(self) -> int:
        return hash(type(self))


def combine(terms: Sequence[Regularizer]) -> Regularizer:
    """Return the sum of the terms: terms of one class are merged, then each joins the terms of lower rank.

    Raises
    ------
    ValueError
        If no rule gives the prox of the sum; the message names the two parts.
    """
    distinct: list[Regularizer] = []
    for term in terms:
        for i, other in enumerate(distinct):
            together = other.merged(term)
            if together is not None:
                distinct[i] = together
                break
        else:
            distinct.append(term)
    first, *others = sorted(distinct, key=lambda term: term.rank)
    return reduce(lambda total, term: term.joined(total), others, first)


def no_rule(a: Regularizer, b: Regularizer) -> str:
    """Return the sentence that refuses a sum."""
    numerically = "; Numeric(...) computes a sum of scalar functions" if a.is_separable and b.is_separable else ""
    return f"no calculus rule gives the exact prox of ({a}) + ({b}){numerically}"


def _prefixed(part: str, function: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    return function(f"{part}.{name}", value)
