"""Rows of a matrix from lists, arrays, memory maps, tensors and activation stores: the one reader of all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from proxsae.formulas.arrays import name_of_dtype, to_numpy
from proxsae.formulas.integers import evenly_spaced
from proxsae.kernels.threads import note_threads

TORCH_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
BLOCK = 8192  # rows read at once where all are looked at


class Rows:
    """Checked rows of a matrix, read as tensors of any dtype and device.

    Arrays in memory are checked once, as a whole; a memory map or a store is checked when it is read.

    Parameters
    ----------
    source : array, memory map, torch tensor or store with shape, dtype and rows by index
        The source of the rows, of shape (n_samples, n_features).
    is_finite : bool
        Whether the source is known to hold no NaN and no infinity.
    kept : index array, optional
        The indices of the rows to use, ascending; all rows by default.
    targets : Rows, optional
        The targets of the codes of these rows; the rows themselves by default.
    name : str, default "X"
        The name of the rows in messages.

    Attributes
    ----------
    dtype : torch.dtype
        The dtype in which to compute with the rows: float64 for float64 and integers, else float32.
    weights : float64 array of shape (n_samples,) or None
        The weights of the rows, > 0, with mean 1; None: equal weights.
    units : Tensor of shape (n_features,) or None
        The units by which features are divided when rows are read.
    stream : Stream or None
        The stream of which these are the first rows.
    """

    weights: Any = None
    units: Tensor | None = None
    stream: Any = None

    def __init__(
        self, source: Any, *, is_finite: bool = False, kept: Any = None, targets: Rows | None = None, name: str = "X"
    ) -> None:
        self.source, self.is_finite, self.kept, self.name, self._targets = source, is_finite, kept, name, targets
        self.dtype = torch.float64 if _is_wide(source.dtype) else torch.float32

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        n_rows = self.source.shape[0] if self.kept is None else len(self.kept)
        return int(n_rows), int(self.source.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def targets(self) -> Rows:
        """The targets of the codes of the rows; the rows themselves by default."""
        return self if self._targets is None else self._targets

    @property
    def has_targets(self) -> bool:
        """Whether the targets are other rows than these."""
        return self._targets is not None

    @property
    def is_in_memory(self) -> bool:
        """Whether they are a tensor or an array, and neither a memory map nor a store."""
        return isinstance(self.source, Tensor) or type(self.source) is np.ndarray

    def taken(self, chosen: Any) -> Rows:
        """Return the rows of ascending indices, with their targets and weights."""
        kept = chosen if self.kept is None else self.kept[chosen]
        targets = None if self._targets is None else self._targets.taken(chosen)
        rows = self._with(kept=kept, _targets=targets, weights=None)
        return rows if self.weights is None else rows.weighted(self.weights[chosen])

    def weighted(self, weights: Any) -> Rows:
        """Return the rows, each with a weight > 0, and their targets."""
        targets = None if self._targets is None else self._targets.weighted(weights)
        return self._with(_targets=targets, weights=weights / weights.mean())

    def in_units(self, units: Tensor | None) -> Rows:
        """Return the rows with targets, or without them the rows, in these units."""
        return self._with(units=units) if self._targets is None else self._with(_targets=self._targets.in_units(units))

    def weights_of(self, rows: Any, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Return the weights of the rows of a slice or of indices; None where all are alike."""
        return None if self.weights is None else torch.from_numpy(self.weights[rows]).to(device, dtype)

    def _with(self, **changes: Any) -> Rows:
        rows = copy(self)
        rows.__dict__ |= changes
        return rows

    def read(self, rows: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the rows of a slice or of ascending indices as a tensor, a copy, in their units.

        Raises
        ------
        ValueError
            If a value is NaN, infinite or beyond the dtype, naming the first such row.
        """
        rows = rows if self.kept is None else self.kept[rows]
        if isinstance(self.source, Tensor):
            chosen = torch.from_numpy(rows).to(self.source.device) if isinstance(rows, np.ndarray) else rows
            x = self.source[chosen].detach().to(dtype=dtype, copy=isinstance(rows, slice))
        else:
            with np.errstate(over="ignore"):  # such rows are refused below
                x = torch.from_numpy(self.source[rows].astype(name_of_dtype(dtype), copy=isinstance(rows, slice)))
        if not self.is_finite or self._is_narrowed(dtype):
            self._check_rows(x, rows)
        return self.scaled(x.to(device))

    def scaled(self, x: Tensor) -> Tensor:
        """Return rows in their units."""
        return x if self.units is None else x / self.units.to(x)

    def moved(self, dtype: torch.dtype, device: torch.device) -> Rows:
        """Return rows that lie in memory on a CUDA device, where they take a quarter of what is free there at most."""
        size = self.source.shape[0] * self.source.shape[1] * dtype.itemsize
        if device.type != "cuda" or not self.is_in_memory or 4 * size > torch.cuda.mem_get_info(device)[0]:
            return self
        targets = None if self._targets is None else self._targets.moved(dtype, device)
        source = torch.as_tensor(self.source).to(device, dtype)
        if self._is_narrowed(dtype):  # once, and not in each step
            self._check_rows(source, slice(0, None))
        return self._with(source=source, _targets=targets)

    def _is_narrowed(self, dtype: torch.dtype) -> bool:
        """Whether finite numbers of the source may exceed the range of a dtype."""
        return dtype == torch.float32 and str(self.source.dtype).endswith("float64")

    def _check_rows(self, x: Tensor, rows: Any) -> None:
        """Refuse NaN and infinity in rows of the source, as the tensor x."""
        if not bool((finite := x.isfinite()).all()):
            first = int(to_numpy(finite.all(-1)).argmin())
            self._refuse(int(rows[first]) if isinstance(rows, np.ndarray) else rows.start + first)

    def sample(self, most: int) -> list[Any]:
        """Return blocks of the numbers of at most `most` evenly spaced rows."""
        chosen = evenly_spaced(len(self), most)
        return np.array_split(chosen, max(1, len(chosen) // BLOCK))

    def blocks(self, size: int = BLOCK) -> list[slice]:
        """Return the slices of `size` rows that cover all."""
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    def check_finite(self) -> Rows:
        """Look at all rows in memory, of a tensor or an array; those of maps and stores when they are read."""
        if self.is_in_memory:
            for rows in self.blocks():
                finite = self._finite(rows)
                if not bool(finite.all()):
                    self._refuse(rows.start + int(to_numpy(finite).argmin()))
            self.is_finite = True
        return self

    def _finite(self, rows: slice) -> Any:
        """Return which rows of the source hold finite numbers alone."""
        is_finite: Any = torch.isfinite if isinstance(self.source, Tensor) else np.isfinite
        return is_finite(self.source[rows]).all(-1)

    def _refuse(self, row: int) -> None:
        if bool(self._finite(slice(row, row + 1)).all()):
            raise ValueError(f"row {row} of {self.name} exceeds the range of float32, in which the model computes")
        raise ValueError(
            f"Input {self.name} contains NaN or infinity: row {row} of {self.source.shape[0]} is the first such row "
            "read"
        )


def checked_rows(estimator: Any, X: Any, *, reset: bool) -> Rows:
    """Return X as rows, or raise as scikit-learn does.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator whose ``n_features_in_`` (and names of features) are set, or compared.
    X : list, array, data frame, memory map, torch tensor or activation store
        Real numbers; integers are computed with in float64, half precision in float32.
    reset : bool
        Whether to set the features of the estimator, not to compare them.

    Raises
    ------
    ValueError, TypeError
        If X has not two dimensions, no rows, other features than fitted, or anything but real finite numbers.
    """
    note_threads()
    if not is_row_source(X):
        _check_matrix(X, "X")
        options: dict[str, Any] = {"dtype": _dtype_in_memory(X), "order": "C", "ensure_all_finite": False}
        return Rows(validate_data(estimator, X, reset=reset, **options)).check_finite()
    _check_source(X, "X")
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
        vars(estimator).pop("feature_names_in_", None)  # of a data frame before
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features"
        )
    return Rows(X).check_finite()


def rows_of(X: Any, name: str) -> Rows:
    """Return whatever X may be as rows, where no estimator says how many features there are.

    Raises
    ------
    ValueError, TypeError
        If X has not two dimensions, no rows, or anything but real finite numbers.
    """
    if is_row_source(X):
        _check_source(X, name)
        return Rows(X, name=name).check_finite()
    _check_matrix(X, name)
    array = check_array(X, dtype=_dtype_in_memory(X), order="C", input_name=name, ensure_all_finite=False)
    return Rows(array, name=name).check_finite()


def with_targets(rows: Rows, Y: Any) -> Rows:
    """Return the rows with Y as their targets; without Y, or with labels in one dimension, the rows as they are.

    Parameters
    ----------
    rows : Rows
    Y : None, labels of shape (n_samples,), or whatever X may be, of shape (n_samples, n_targets)

    Raises
    ------
    ValueError, TypeError
        If Y has more dimensions, another number of rows, anything but real finite numbers, or is a store of other
        tokens than those of a store X, unless both are parts of one place.
    """
    if has_labels_alone(Y):
        return rows
    targets = rows_of(Y, "Y")
    if len(targets) != len(rows):
        raise ValueError(f"Y has {len(targets)} rows, and X has {len(rows)}")
    if hasattr(Y, "check_same_tokens") and isinstance(rows.source, type(Y)):
        Y.check_same_tokens(rows.source)
    return rows._with(_targets=targets)


def with_weights(rows: Rows, sample_weight: Any) -> Rows:
    """Return the rows whose weight is not zero, with their weights where these differ.

    Raises
    ------
    ValueError
        If there is not one finite weight >= 0 for each row, or no weight is positive.
    """
    if sample_weight is None:
        return rows
    weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    if not len(positive := np.flatnonzero(weights)):
        raise ValueError("sample_weight is zero for all rows")
    rows = rows if len(positive) == len(rows) else rows.taken(positive)
    weights = weights[positive] / weights.max()
    return rows.weighted(weights) if np.ptp(weights) else rows


def has_labels_alone(Y: Any) -> bool:
    """Whether Y holds no targets: it is None, or labels in one dimension, which scikit-learn's transformers ignore."""
    return Y is None or len(getattr(Y, "shape", ()) or np.asarray(Y).shape) == 1


def mapped(path: str | os.PathLike[str]) -> Any:
    """Return the array of a ``.npy`` file as a memory map; nothing in it is executed.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, or not a whole array of numbers; the sentence names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header is read as Python text, and fails in a dozen ways
        sentence = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"'{path}' is not a whole .npy array of numbers: {sentence}") from None


def provenance_of(X: Any) -> dict[str, Any]:
    """Return the JSON fields of a store about its rows: model, place, context length, drop rule ..."""
    info = getattr(X, "info", None)
    if not isinstance(info, dict):
        return {}
    try:
        return dict(json.loads(json.dumps(info, allow_nan=False)))
    except (TypeError, ValueError):
        return {}


def checked_codes(Z: Any, n_components: int) -> Any:
    """Return codes as a float CSR matrix or array of shape (n_samples, n_components), or raise."""
    Z = to_numpy(Z.to_dense()) if isinstance(Z, Tensor) else Z
    shape = tuple(getattr(Z, "shape", ())) or np.shape(Z)
    if len(shape) != 2 or shape[1] != n_components:
        raise ValueError(f"Z must have shape (n_samples, {n_components}), got {'None' if Z is None else shape}")
    return check_array(Z, accept_sparse="csr", dtype=[np.float64, np.float32], input_name="Z")


def torch_device(name: str | torch.device) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device must be "auto" or a torch device that is there, got {name!r}: {reason}') from None


def is_row_source(X: Any) -> bool:
    """Whether X is read row by row: a memory map, a torch tensor, or a store with shape, dtype and rows by index."""
    if isinstance(X, np.memmap | Tensor):
        return True
    in_memory = isinstance(X, np.ndarray) or hasattr(X, "iloc") or hasattr(X, "toarray")
    return not in_memory and hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "__getitem__")


def _check_matrix(X: Any, name: str) -> None:
    """Raise TypeError for an object that is no matrix, which scikit-learn would call a scalar or take for numbers."""
    if isinstance(X, str | bytes) or not (hasattr(X, "shape") or hasattr(X, "__array__") or isinstance(X, Sequence)):
        raise TypeError(f"{name} must be a matrix of shape (n_samples, n_features), got {type(X).__name__}")
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):
        raise TypeError(f"{name} must hold real numbers, got {X.dtype}")


def _dtype_in_memory(X: Any) -> Any:
    """Return the dtype, or the dtypes allowed, to which scikit-learn converts rows in memory."""
    dtypes = X.dtypes if hasattr(X, "columns") and hasattr(X, "dtypes") else [getattr(X, "dtype", None)]
    names = {getattr(dtype, "name", str(dtype)).lower() for dtype in dtypes}  # polars and pandas have a Float32 too
    narrow = names <= {"float16", "float32"}  # in any byte order
    return np.float32 if narrow else [np.float64, np.float32]


def _check_source(X: Any, name: str) -> None:
    """Raise ValueError or TypeError for a source read row by row that is no matrix of real numbers."""
    if isinstance(X, Tensor) and (X.layout != torch.strided or X.device.type == "meta"):
        what = "meta" if X.device.type == "meta" else str(X.layout).removeprefix("torch.")
        raise TypeError(f"{name} must be a dense tensor with entries, got a {what} tensor")
    if len(X.shape) != 2:
        raise ValueError(f"{name} must have shape (n_samples, n_features), got {tuple(X.shape)}")
    if not _is_real(X.dtype):
        raise TypeError(f"{name} must hold real numbers, got {X.dtype}")
    if X.shape[0] < 1 or X.shape[1] < 1:
        raise ValueError(f"{name} must have at least one sample and one feature, got shape {tuple(X.shape)}")


def _is_real(dtype: Any) -> bool:
    if isinstance(dtype, torch.dtype):
        return dtype in TORCH_DTYPES
    return np.dtype(dtype).kind in "biuf"


def _is_wide(dtype: Any) -> bool:
    """Whether numbers of a dtype are computed with in float64."""
    if isinstance(dtype, torch.dtype):
        return dtype == torch.float64 or not dtype.is_floating_point
    return np.dtype(dtype).kind in "biu" or np.dtype(dtype).itemsize > 4
