"""The checks of the input of `solve`: every refusal is one sentence that says what was given and what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from threading import Lock
from typing import Any

import array_api_compat
import numpy as np
from scipy.sparse import issparse

from proxsae.formulas.arrays import HALF_DTYPES, Array, as_float_array, dtype_name, to_numpy
from proxsae.formulas.integers import checked_count
from proxsae.regularizers import Regularizer, parse
from proxsae.solvers.problem import default_step, lipschitz_constant
from proxsae.solvers.threads import blocks_of

CHUNK_ENTRIES = 2**23  # code entries worked on at once: 64 MiB for each array of a float64 state
STEP_SLACK = 1e-6  # 1/L as a caller rounds it in float32
SAFE_RANGE = (1e-15, 1e15)  # where atoms, targets and codes have squares in float32; beyond, float64 computes
SIZES_OF_ATOMS = (1e-75, 1e75)  # whose squares of squares float64 holds


_reading = Lock()


@dataclass(frozen=True)
class Inputs:
    """The arrays of a problem, of one kind and device; X and init are read block by block, in the working dtype."""

    X: Any  # (n_samples, n_features), an array, CSR or rows on disk
    dictionary: Array  # D, (n_components, n_features), in the working dtype
    intercept: Array | None  # b, (n_features,), in the working dtype
    init: Any  # (n_samples, n_components), an array or CSR, or None
    dtype: Any  # of the codes: float32 or float64

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the codes."""
        return self.X.shape[0], self.dictionary.shape[0]

    def blocks(self, most: int = CHUNK_ENTRIES) -> list[slice]:
        """Return slices of the samples, each of about `CHUNK_ENTRIES` codes and at most `most` samples."""
        n_samples, n_components = self.shape
        return blocks_of(n_samples, min(most, -(-CHUNK_ENTRIES // n_components)))

    def targets(self, part: slice) -> Array:
        """Return Y = X - b of some samples."""
        Y = self._dense(self._read(part) if is_stored(self.X) else self.X[part])
        return Y if self.intercept is None else Y - self.intercept

    def codes(self, part: slice) -> Array:
        """Return the initial codes of some samples."""
        if self.init is not None:
            return self._dense(self.init[part])
        D = self.dictionary
        n = len(range(*part.indices(self.X.shape[0])))
        xp = array_api_compat.array_namespace(D)
        return xp.zeros((n, D.shape[0]), dtype=D.dtype, device=array_api_compat.device(D))

    def as_numpy(self) -> Inputs:
        """Return the inputs with NumPy arrays in place of tensors; tensors on the CPU share their memory."""
        if not array_api_compat.is_torch_array(self.dictionary):
            return self
        dtype = np.dtype(dtype_name(self.dictionary)) if self.dictionary.dtype == self.dtype else np.dtype(np.float32)
        arrays = self.X, self.dictionary, self.intercept, self.init
        X, D, b, init = (a if a is None or issparse(a) else to_numpy(a) for a in arrays)
        return Inputs(X, D, b, init, dtype)

    def _read(self, part: slice) -> Array:
        with _reading:  # a store opens its files as they are read
            rows = as_float_array(np.asarray(self.X[part]), "X")
        if not _fits(self.dictionary.dtype, rows, self.dictionary):
            low, high = SAFE_RANGE
            raise ValueError(f"X has float32 rows outside of {low:g} to {high:g}; store them as float64, or pass D so")
        return rows

    def _dense(self, block: Any) -> Array:
        D = self.dictionary
        xp = array_api_compat.array_namespace(D)
        block = block.toarray() if issparse(block) else block
        return _writeable(xp.asarray(block, dtype=D.dtype, device=array_api_compat.device(D)))

    def result(self, codes: Array) -> Array:
        """Return codes in the dtype that was asked for, or raise ValueError where it cannot hold them."""
        if codes.dtype == self.dtype:
            return codes
        xp = array_api_compat.array_namespace(codes)
        largest = float(xp.max(xp.abs(codes))) if 0 not in codes.shape else 0.0
        limits = xp.finfo(self.dtype)
        if largest > float(limits.max) or 0 < largest < float(limits.smallest_normal):
            raise ValueError(f"the codes are of size {largest:.3g}, which float32 cannot hold; pass float64")
        return xp.astype(codes, self.dtype)


def checked_inputs(X: Any, D: Any, intercept: Any, init: Any) -> Inputs:
    """Return the arrays of the problem, without graph, or raise TypeError or ValueError.

    The working dtype is that to which NumPy or Torch promotes them, at least float32; it is float64 where a float32
    problem leaves `SAFE_RANGE`.
    """
    X = _checked(X, "X", like=None)
    if len(X.shape) != 2:
        raise ValueError(f"X must have shape (n_samples, n_features), got {tuple(X.shape)}")
    if issparse(D):
        raise TypeError(f"D must be a dense array, got {type(D).__name__}")
    D = _checked(D, "D", like=X)
    if D.ndim != 2 or D.shape[1] != X.shape[1] or 0 in D.shape:
        raise ValueError(
            f"D must have shape (n_components, n_features) with n_features = {X.shape[1]} as in X and at least one of "
            f"each, got {tuple(D.shape)}"
        )
    if intercept is not None:
        intercept = _checked(intercept, "intercept", like=X)
        if tuple(intercept.shape) != (X.shape[1],):
            raise ValueError(f"intercept must have shape ({X.shape[1]},), got {tuple(intercept.shape)}")
    if init is not None:
        init = _checked(init, "init", like=X)
        if tuple(init.shape) != (X.shape[0], D.shape[0]):
            shape = (X.shape[0], D.shape[0])
            raise ValueError(f"init must have shape (n_samples, n_components) = {shape}, got {tuple(init.shape)}")
    xp = array_api_compat.array_namespace(D)
    if issparse(init) and array_api_compat.is_torch_array(D):
        init = xp.asarray(init.toarray(), device=array_api_compat.device(D))
    dtype = _promoted([a for a in (X, D, intercept, init) if a is not None])
    rows = np.ones(1) if is_stored(X) else X  # each block of rows on disk is checked as it is read
    working = dtype if _fits(dtype, rows, D) else xp.float64
    if working == xp.float64:  # no float32 is that small or large
        _check_sizes(xp, D)
    b = None if intercept is None else xp.astype(intercept, working, copy=False)
    return Inputs(X, _writeable(xp.astype(D, working, copy=False)), b, init, dtype)


def _writeable(a: Array) -> Array:
    """Return the array, or a contiguous, writeable copy for compiled loops."""
    return np.require(a, requirements=["C", "W"]) if isinstance(a, np.ndarray) else a


def is_stored(X: Any) -> bool:
    """Whether the rows of X are on disk: a memory map, or an object with a shape and a dtype that is no array."""
    if isinstance(X, np.memmap):
        return True
    has_rows = hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "__getitem__")
    return has_rows and not (issparse(X) or array_api_compat.is_array_api_obj(X))


def _promoted(arrays: list[Any]) -> Any:
    if array_api_compat.is_torch_array(arrays[0]):
        import torch

        return reduce(torch.promote_types, [a.dtype for a in arrays], torch.float32)
    dtype = np.result_type(np.float32, *(np.float64 if _is_integer(a) else a.dtype for a in arrays))
    return dtype.newbyteorder("=")


def _is_integer(rows: Any) -> bool:
    """Whether rows on disk are integers, which are computed with in float64."""
    return bool(np.dtype(rows.dtype).kind in "biu")


def _largest(X: Any) -> float:
    X = X.data if issparse(X) else X
    return max(float(X.max()), -float(X.min())) if 0 not in X.shape else 0.0


def _fits(dtype: Any, X: Any, D: Array) -> bool:
    if "float64" in str(dtype):
        return True
    low, high = SAFE_RANGE
    x, d = _largest(X), _largest(D)
    return 0 in (x, d) or all(low < size < high for size in (d, x, x / d))


def _check_sizes(xp: Any, D: Array) -> None:
    low, high = SIZES_OF_ATOMS
    sizes = xp.astype(xp.maximum(xp.max(D, axis=1), -xp.min(D, axis=1)), xp.float64, copy=False)
    outside = (sizes > 0) & ((sizes < low) | (sizes > high))
    if bool(xp.any(outside)):
        raise ValueError(
            f"D has an atom of size {float(sizes[outside][0]):.3g}; those that are not zero must be between {low:g} "
            f"and {high:g}: scale D, and R for codes in the new units"
        )


def checked_terms(R: Any, n_components: int) -> Regularizer | tuple[Regularizer, ...]:
    """Return R, or the terms of a list of at least two, parsed where they are text, or raise."""
    if not isinstance(R, list | tuple):
        return checked_regularizer(R, n_components)
    if len(R) < 2:
        raise ValueError(f"a list of regularizers must have two or more, got {len(R)}")
    return tuple(checked_regularizer(term, n_components) for term in R)


def in_main_memory(R: Regularizer | tuple[Regularizer, ...]) -> Regularizer | tuple[Regularizer, ...]:
    """Return R, or the terms of a list, with NumPy arrays in place of tensors: what compiled loops read."""

    def moved(term: Regularizer) -> Regularizer:
        return term.map_parameters(lambda _, a: to_numpy(a) if array_api_compat.is_torch_array(a) else a)

    return tuple(map(moved, R)) if isinstance(R, tuple) else moved(R)


def checked_regularizer(R: Any, n_components: int) -> Regularizer:
    """Return R, parsed where it is text, or raise."""
    if isinstance(R, str):
        R = parse(R)
    if not isinstance(R, Regularizer):
        raise TypeError(f'R must be a regularizer or text such as "0.1*L1 + NonNegative", got {type(R).__name__}')
    R.check_width(n_components)
    return R


def checked_step(step: Any, D: Array, R: Regularizer) -> float:
    """Return the step, by default the largest that is safe, or raise ValueError outside (0, 1/L]."""
    L = lipschitz_constant(D)
    if step is None:
        return default_step(L, R)
    if not isinstance(step, Real) or not 0 < float(step) < math.inf or float(step) * L > 1 + STEP_SLACK:
        bound = f"(0, {1 / L:.9g}]" if L > 0 else "(0, inf)"
        raise ValueError(f"step must be a number in {bound}, where the objective cannot increase, got {step!r}")
    return float(step)


def check_limits(tol: Any, max_iter: Any, gram_limit: Any = 0) -> None:
    """Raise ValueError unless tol >= 0, and max_iter and gram_limit are integers >= 0."""
    if not isinstance(tol, Real) or not 0 <= float(tol) < math.inf:
        raise ValueError(f"tol must be a finite number >= 0, got {tol!r}")
    checked_count("max_iter", max_iter, 0)
    checked_count("gram_limit", gram_limit, 0)


def _checked(x: Any, name: str, like: Any) -> Any:
    if array_api_compat.is_torch_array(x) and str(x.layout) != "torch.strided":
        raise TypeError(f"{name} must be a dense tensor, got {x.layout}: call to_dense() on it")
    if issparse(x):
        x = x.tocsr()
        x = x.astype(np.float64) if np.issubdtype(x.dtype, np.integer) else x
        as_float_array(x.data, name)
    elif name != "X" or not is_stored(x):
        x = as_float_array(x, name)
    elif _is_integer(x):
        return x
    kind = dtype_name(x) if array_api_compat.is_torch_array(x) else x.dtype.name  # without the byte order
    if kind not in ("float32", "float64", *HALF_DTYPES):
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {kind}")
    if like is not None and not issparse(x) and _kind(x) != _kind(like):
        raise TypeError(f"{name} must be of the same kind and device as X: X is {_kind(like)}, {name} is {_kind(x)}")
    return x.detach() if array_api_compat.is_torch_array(x) else x


def _kind(x: Any) -> str:
    return f"Torch on {array_api_compat.device(x)}" if array_api_compat.is_torch_array(x) else "NumPy"
