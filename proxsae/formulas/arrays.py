"""The array reader of a formula: NumPy or Torch, one dtype, one device."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from proxsae.kernels.threads import note_threads

Array = Any  # a NumPy array or a Torch tensor; what goes in decides what comes out
Equation = Callable[[Any], tuple[Any, Any]]  # z -> the left-hand side of "... = 0" and its slope
MOST_TABLES = 64  # for one call of a tabulated prox
LEAST_SCALE = 1e-3  # of the differences that give a slope: nearer to 0 they would be lost in the rounding of values
HALF_DTYPES = ("float16", "bfloat16")


class ArrayNamespace:
    """The functions a formula may call, on arrays of one kind, dtype and device.

    Every number that enters a formula (the step, a weight, a literal) is first converted to an array of the dtype of
    the data, so that NumPy, Torch and the compiled loops do the same rounded operations and agree to the last bit, ties
    included.
    """

    inf = math.inf

    def __init__(self, like: Array) -> None:
        self._xp = numpy_namespace if isinstance(like, np.ndarray) else array_api_compat.array_namespace(like)
        self._device = array_api_compat.device(like)
        # Thresholds in half precision would move by several per cent: compute in float32, cast the result back.
        self._dtype = self._xp.float32 if dtype_name(like) in HALF_DTYPES else like.dtype

    def asarray(self, value: Any) -> Array:
        """Return `value` as an array of this kind, dtype and device (a tensor keeps its graph)."""
        if self._xp is numpy_namespace and isinstance(value, float | int | np.ndarray):
            return np.asarray(value, dtype=self._dtype)
        if self.is_torch and isinstance(value, float | int):
            return self._xp.full((), value, dtype=self._dtype, device=self._device)  # a copy would wait for the device
        if not self.is_torch:
            value = to_numpy(value)
        if array_api_compat.is_array_api_obj(value) and array_api_compat.array_namespace(value) is self._xp:
            return array_api_compat.to_device(self._xp.astype(value, self._dtype, copy=False), self._device)
        return self._xp.asarray(value, dtype=self._dtype, device=self._device)

    @property
    def wide(self) -> ArrayNamespace:
        """The namespace of the same kind of arrays in float64."""
        return ArrayNamespace(self._xp.zeros(1, dtype=self._xp.float64, device=self._device))

    @property
    def is_torch(self) -> bool:
        """Whether the arrays are Torch tensors."""
        return bool(array_api_compat.is_torch_namespace(self._xp))

    def abs(self, a: Array) -> Array:
        """Return the modulus."""
        return self._xp.abs(a)

    def sign(self, a: Array) -> Array:
        """Return -1, 0 or 1."""
        return self._xp.sign(a)

    def sqrt(self, a: Array) -> Array:
        """Return the square root, correctly rounded."""
        if not self.is_torch or a.device.type != "cpu":
            return self._xp.sqrt(a)
        # Torch's vectorised roots can be off in the last place on CPU.
        if self._dtype == self._xp.float32:
            return self._xp.sqrt(a.double()).float()
        root = self._xp.sqrt(a)
        return root + _correction(root.detach(), a.detach())

    def power(self, a: Array, b: Array) -> Array:
        """Return a to the power b, for a >= 0."""
        return self._xp.pow(self._number(a), self._number(b))

    def cbrt(self, a: Array) -> Array:
        """Return the cube root, for a >= 0."""
        return self._xp.pow(a, self._number(1.0 / 3.0))

    def cos_third(self, a: Array) -> Array:
        """Return cos(arccos(a) / 3), the root y of 4 y^3 - 3 y = a in [1/2, 1]."""
        return self._xp.cos(self._xp.acos(a) / self._number(3.0))

    def log1p(self, a: Array) -> Array:
        """Return log(1 + a)."""
        return self._xp.log1p(a)

    def tanh(self, a: Array) -> Array:
        """Return the hyperbolic tangent."""
        return self._xp.tanh(a)

    def magnitudes(self, Z: Array, parts: Any) -> Array:
        """Return for each group of a partition the power of two below its largest modulus, 1 for a zero group.

        Numbers divided by it have squares that neither over- nor underflow, and the division does not round. Exact
        numbers need no scale: their readers return 1.
        """
        largest = parts.largest(self._xp.abs(Z.detach() if self.is_torch else Z))
        largest = self.where(largest > 0, largest, 1.0)
        return largest / (2.0 * self._xp.frexp(largest)[0])

    def in_order(self, squares: Array, scale: Array) -> Array:
        """Return numbers in the order of squares * scale^2, none of which leaves the range: their roots."""
        return scale * self.sqrt(self.maximum(squares, 0.0))

    def rounds_alike(self, a: Array, b: Array) -> Array:
        """Return where two results are equal, so that one may replace the other; False for exact numbers."""
        return a == b

    @staticmethod
    def lemma(a: Array, holds: Callable[[Any], Any]) -> Array:  # noqa: ARG004
        """Return `a`, for which the formula states that `holds`: a lemma for the prover."""
        return a

    def root(self, equation: Equation, start: Array, low: Array, high: Array, steps: int) -> Array:
        """Return the root of an equation by :func:`newton`."""
        return newton(self, equation, start, low, high, steps)

    def called(self, function: Callable[[Any], Any], z: Array) -> Array:
        """Return a NumPy function of an array, entry by entry; a tensor gets its :func:`slopes` as gradient."""
        points = to_numpy(z).astype(np.float64)
        values = function(points)
        if not (self.is_torch and z.requires_grad and self._xp.is_grad_enabled()):
            return self.asarray(values)
        return self.asarray(values) + self.asarray(slopes(function, points, values)) * (z - z.detach())

    def tabulated(self, table: Callable[[float], Any], u: Array, t: Array) -> Array:
        """Return the function of u tabulated for each t, linear between nodes."""
        steps = np.unique(to_numpy(t))
        if len(steps) > MOST_TABLES:
            raise ValueError(f"a table is made for each step; at most {MOST_TABLES} at once, got {len(steps)}")
        result = 0.0 * u
        for step in steps:
            at_step = self._looked_up(table(float(step)), u)
            result = at_step if len(steps) == 1 else self._xp.where(t == self.asarray(step), at_step, result)
        return result

    def _looked_up(self, table: Any, u: Array) -> Array:
        xp, device = self._xp, self._device
        nodes, starts, slopes = (
            xp.asarray(part, dtype=xp.float64, device=device) for part in (table.u, table.starts, table.slopes)
        )
        wide = xp.astype(u, xp.float64)
        detached = wide.detach() if self.is_torch else wide
        if bool(xp.any(xp.abs(detached) > nodes[-1])):
            raise ValueError(f"Numeric: an input exceeds limit={float(nodes[-1]):g}; pass a larger limit")
        cell = (xp.searchsorted(nodes, detached, side="right") - 1).clip(0, len(slopes) - 1)
        return self.asarray(starts[cell] + (wide - nodes[cell]) * slopes[cell])

    def maximum(self, a: Array, b: Array) -> Array:
        """Return the larger of the two."""
        return self._xp.maximum(self._number(a), self._number(b))

    def minimum(self, a: Array, b: Array) -> Array:
        """Return the smaller of the two."""
        return self._xp.minimum(self._number(a), self._number(b))

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        """Return `a` where the condition holds and `b` elsewhere."""
        return self._xp.where(condition, self._number(a), self._number(b))

    def _number(self, a: Any) -> Array:
        return self.asarray(a) if isinstance(a, int | float) else a


def _correction(root: Array, a: Array) -> Array:
    """Return (a - root^2) / (2 root), with the square exact: root is split in halves of 26 bits (Dekker)."""
    high = root * 134217729.0
    high = high - (high - root)
    low = root - high
    residual = ((a - high * high) - 2.0 * high * low) - low * low
    return (residual / (2.0 * root)).where(root > 0, 0.0 * a)


def newton(xp: Any, equation: Equation, start: Any, low: Any, high: Any, steps: int) -> Any:
    """Return the root of an equation after a fixed number of Newton steps, each clipped to [low, high].

    The equation must have a positive slope at every point that a step can reach. Autograd sees the last step alone,
    whose derivative is the implicit derivative of the root.
    """
    z = start
    for _ in range(steps):
        value, slope = equation(z)
        z = xp.minimum(xp.maximum(z - value / slope, low), high)
    return z


def slopes(function: Callable[[Any], Any], z: Any, value: Any) -> Any:
    """Return the slope of a function, given its value, at each entry of a float64 array.

    It is the flatter of the differences to both sides. Where these have different signs, as in a minimum, it is 0:
    abs(z) has slope 0 at 0. Elsewhere a jump or an end of the domain on one side leaves the slope of the other.
    """
    step = np.cbrt(np.finfo(np.float64).eps) * np.maximum(np.abs(z), LEAST_SCALE)
    left, right = z - step, z + step
    with np.errstate(all="ignore"):  # inf - inf outside of the domain
        before, after = (value - function(left)) / (z - left), (function(right) - value) / (right - z)
        flatter = np.where(np.abs(before) < np.abs(after), before, after)
        return np.where(np.sign(before) == np.sign(after), flatter, 0.0)


class ExactArray(np.ndarray):
    """An array of exact numbers, which no cast to a floating dtype changes."""

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the array itself where its entries are exact."""
        return self if self.dtype == object else super().astype(dtype, *args, **kwargs)

    def sum(self, axis: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the exact sum."""
        return super().sum(axis, None if self.dtype == object else dtype, *args, **kwargs)


def dtype_name(x: Array) -> str:
    """Return the dtype of an array as text without its library: 'float32'."""
    return name_of_dtype(x.dtype)


@cache
def name_of_dtype(dtype: Any) -> str:
    """Return a dtype of either library as text, as NumPy and Torch both call it."""
    return str(dtype).removeprefix("torch.")


def as_float_array(x: Any, name: str) -> Array:
    """Return `x` as a floating array, or raise.

    Integers and lists become float64 NumPy arrays; floating arrays of NumPy and Torch pass as they are.

    Raises
    ------
    TypeError
        If the entries are not real numbers.
    ValueError
        If an entry is NaN or infinite.
    """
    if array_api_compat.is_torch_array(x):
        note_threads()
    else:
        try:
            x = np.asarray(x)
        except ValueError:
            raise ValueError(f"{name} must be an array, got nested lists of different lengths") from None
        if np.issubdtype(x.dtype, np.integer):
            x = x.astype(np.float64)
    xp = array_api_compat.array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"{name} must hold real floating-point numbers, got dtype {dtype_name(x)}")
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return x


def to_numpy(x: Array) -> Any:
    """Return a NumPy array of the entries of an array of either kind; bfloat16, which NumPy lacks, as float32."""
    if not array_api_compat.is_torch_array(x):
        return np.asarray(x)
    return (x.float() if dtype_name(x) == "bfloat16" else x).detach().cpu().numpy()
