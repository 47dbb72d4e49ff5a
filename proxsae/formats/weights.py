"""The tensors of an untrusted file: data, never code. Names, shapes and dtypes are checked before a number is read."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.data.memory import physical_memory
from proxsae.formats.files import check_file, one_line

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_PICKLE = 2**24  # bytes of the pickle in a Torch file, which names its tensors
MAX_HEADER = 10_000  # bytes before the numbers of an array in a NumPy archive


class Weights:
    """Named tensors of a file; a refusal names the file and the tensor.

    Parameters
    ----------
    path : path
    shapes : mapping from names to shapes
    read : callable
        From a name to its tensor.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]) -> None:
        self.path, self.shapes, self._read = path, dict(shapes), read

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def wrong(self, name: str, sentence: object) -> ValueError:
        """Return the error to raise."""
        return ValueError(f"{self.path}: the field {one_line(name)!r}: {sentence}")

    def shape(self, name: str, n_dimensions: int = 2) -> tuple[int, ...]:
        """Return the shape of a tensor that must be there, with so many dimensions, none of them empty."""
        if name not in self.shapes:
            raise self.wrong(name, f"it is missing; there are {one_line(', '.join(sorted(self.shapes)) or 'none')}")
        shape = self.shapes[name]
        if len(shape) != n_dimensions or 0 in shape:
            raise self.wrong(name, f"it has shape {shape}, needed are {n_dimensions} dimensions that are not empty")
        return shape

    def tensor(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return a finite tensor of this shape in float32, or float64 where it is stored so.

        With `dtype` the tensor is first rounded to that dtype, as in a library that computes in it.
        """
        if self.shape(name, len(shape)) != shape:
            raise self.wrong(name, f"it has shape {self.shapes[name]}, needed is {shape}")
        needed, present = 16 * prod(shape), physical_memory()
        if needed > present:
            sizes = f"needs {needed / 1e9:.3g} GB, and this machine has {present / 1e9:.3g} GB"
            raise self.wrong(name, f"a model with a matrix of shape {shape} {sizes}")
        stored = self._read(name).resolve_neg()  # Torch can store a tensor as the negative of another
        if stored.dtype not in FLOATS:
            raise self.wrong(name, f"it holds {str(stored.dtype).removeprefix('torch.')}, needed are floating numbers")
        rounded = stored if dtype is None else stored.to(dtype)
        tensor = rounded.to(torch.float64 if rounded.dtype == torch.float64 else torch.float32).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            raise self.wrong(name, "it holds NaN or infinity")
        return tensor

    def integer(self, name: str) -> int:
        """Return a tensor without dimensions that holds an integer."""
        self.shape(name, 0)
        stored = self._read(name)
        if stored.is_floating_point() or stored.is_complex():
            raise self.wrong(name, "needed is an integer")
        return int(stored)

    def first(self, *names: str) -> str:
        """Return the first of the names that the file has; if it has none, the first name, for the message."""
        return next((name for name in names if name in self), names[0])


def safetensors_weights(path: Path) -> Weights:
    """Return the tensors of a safetensors file.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing or damaged.
    """
    from safetensors import safe_open

    check_file(path)

    def read(name: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def shapes() -> dict[str, tuple[int, ...]]:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    return Weights(path, _guarded(path, "safetensors", shapes), lambda name: _guarded(path, "safetensors", read, name))


def npz_weights(path: Path) -> Weights:
    """Return the arrays of a NumPy archive; objects, which would be pickles, are refused.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing or damaged.
    """
    check_file(path)

    def shapes() -> dict[str, tuple[int, ...]]:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            return {entry.filename.removesuffix(".npy"): _npy_shape(archive, entry) for entry in entries}

    def read(name: str) -> Tensor:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            array: Any = np.lib.format.read_array(stream, allow_pickle=False)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))

    return Weights(path, _guarded(path, "NumPy", shapes), lambda name: _guarded(path, "NumPy", read, name))


def torch_weights(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Return the tensors of a file that Torch wrote, and what else its dict holds; nothing in it is executed.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing or damaged, or more than a dict of tensors and plain values.
    """
    check_file(path)
    if not _guarded(path, "Torch", zipfile.is_zipfile, path):
        raise ValueError(f"{path} is not a file of torch.save in the format of Torch 1.6 or later")
    content = _guarded(path, "Torch", partial(_torch_content, path))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, needed is a dict of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not is_plain or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path}: the field {one_line(name)!r}: it is not a plain tensor whose numbers are all stored"
            )
    others = {str(name): value for name, value in content.items() if not isinstance(value, Tensor)}
    return Weights(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__), others


def _torch_content(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed")
            if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
                raise ValueError(f"{entry.filename} has {entry.file_size} bytes, at most {MAX_PICKLE}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):  # Torch goes on to advise to run it
            raise ValueError(f"its pickle asks for {asked[1]}, and only tensors and plain values are read") from None
        raise


def _npy_shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return the shape that the header of an array says, once it agrees with the size of the entry."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        start = stream.tell()
        length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
        if length > MAX_HEADER:
            raise ValueError(f"{entry.filename} has a header of {length} bytes, at most {MAX_HEADER}")
        stream.seek(start)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ValueError(f"{entry.filename} holds {one_line(str(dtype))}, needed are numbers of at most 8 bytes")
        if prod(shape) * dtype.itemsize != entry.file_size - stream.tell():
            raise ValueError(f"{entry.filename} has {entry.file_size} bytes, which is not the size of shape {shape}")
        return tuple(shape)


def _guarded(path: Path, kind: str, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except Exception as error:  # what a library raises on a damaged file is any of a dozen types
        sentence = one_line(" ".join(str(error).split()) or type(error).__name__)
        raise ValueError(f"{path} is not a whole {kind} file: {sentence}") from None
