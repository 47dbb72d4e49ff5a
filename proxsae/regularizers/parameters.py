"""Parameters of regularizers: numbers, arrays and functions are checked and written as text."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from proxsae.formulas.arrays import Array, as_float_array, to_numpy


def all_hold(holds: Any) -> bool:
    """Whether a condition holds in every entry of an array of any kind, on any device."""
    return bool(holds.all()) if hasattr(holds, "all") else bool(holds)


def as_parameter(value: Any, name: str) -> Any:
    """Return a parameter as a float or a floating (n_components,) array, or raise."""
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}")
    array = as_float_array(value, name)
    if array.ndim > 1:
        raise ValueError(f"{name} must be a number or have shape (n_components,), got shape {tuple(array.shape)}")
    if array_api_compat.is_torch_array(value):  # a learned one has a graph
        return array
    return array.copy() if array.ndim else float(array)  # a copy, so that a checked parameter does not change


def as_positive(value: Any, name: str, owner: str) -> float:
    """Return a parameter that is one positive number, or raise ValueError."""
    try:
        number = np.nan if np.ndim(value) or isinstance(value, bool | str) else float(value)
    except TypeError:
        number = np.nan
    if not 0 < number < np.inf:
        raise ValueError(f"{owner}: {name} must be a finite number > 0, got {value!r}")
    return number


def spelled_value(value: Any, arrays: dict[str, Array] | None) -> str:
    """Return the text of a parameter; arrays and functions are put into `arrays`, where given, under the name used."""
    if hasattr(value, "spelled"):  # a regularizer
        return str(value.spelled(arrays))
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(spelled_value(entry, arrays) for entry in value)}]"
    if isinstance(value, int):
        return str(value)
    is_function = callable(value)
    if not is_function and np.ndim(value) == 0:
        return repr(float(value))
    if arrays is not None:
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return name
    if is_function:
        return str(getattr(value, "__name__", type(value).__name__))
    numbers = to_numpy(value)
    if np.issubdtype(numbers.dtype, np.integer):
        return str(numbers.tolist())
    return f"np.array({np.array2string(numbers, separator=', ', threshold=8, max_line_width=1000)})"


def row_sums(Z: Array) -> Array:
    """Return the sums of the rows, accumulated in float64, in the dtype of Z."""
    xp = array_api_compat.array_namespace(Z)
    return xp.astype(xp.sum(Z, axis=-1, dtype=xp.float64), Z.dtype)
