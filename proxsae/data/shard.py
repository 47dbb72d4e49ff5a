"""The files of an activation store: safetensors shards, checked and mapped, and their JSON index."""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INDEX = "index.json"
FORMAT = "proxsae-activations"
VERSION = 1
DTYPES = {"float32": "F32", "float16": "F16"}

_NUMPY: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
_INDEX_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "block": int,
    "tokenizer": str,
    "text": str,
    "split": str,
    "seed": (int, type(None)),
    "drop": (str, int, list),
    "dtype": str,
    "n_features": int,
    "context_length": int,
    "batch_size": int,
    "n_tokens": int,
    "dropped_positions": list,
    "median_norm": (int, float),
    "complete": bool,
    "shards": list,
}
_SHARD_FIELDS: dict[str, type | tuple[type, ...]] = {
    "file": str,
    "rows": int,
    "contexts": int,
    "bytes": int,
    "crc32": int,
    "dropped_by_position": int,
    "dropped_special": int,
    "dropped_massive": int,
    "large_kept": int,
}


class StoreError(ValueError):
    """A file of an activation store is missing, truncated, damaged or foreign; the message names file and field."""


def read_index(folder: Path) -> dict[str, Any]:
    """Return the checked index of the store in `folder`."""
    path = folder / INDEX
    if not path.is_file():
        raise StoreError(f"'{folder}' is not an activation store: it holds no {INDEX}.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"'{path}' is not JSON, so it is truncated or foreign: {error}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise StoreError(f"'{path}' is no index of an activation store: its field 'format' is not '{FORMAT}'.")
    if index.get("version") != VERSION:
        raise StoreError(f"'{path}' has version {index.get('version')!r}; this proxsae reads version {VERSION}.")
    _check_fields(path, index, _INDEX_FIELDS)
    if index["dtype"] not in DTYPES:
        raise StoreError(f"'{path}': the field 'dtype' is {index['dtype']!r}; allowed are {', '.join(DTYPES)}.")
    for field in ("n_features", "context_length"):
        if index[field] < 1:
            raise StoreError(f"'{path}': the field '{field}' is {index[field]}; it must be positive.")
    for number, shard in enumerate(index["shards"]):
        if not isinstance(shard, dict):
            raise StoreError(f"'{path}': the field 'shards[{number}]' is not an object.")
        _check_fields(path, shard, _SHARD_FIELDS, f"shards[{number}].")
        if shard["rows"] < 0 or shard["contexts"] < 0 or Path(shard["file"]).name != shard["file"]:
            raise StoreError(f"'{path}': 'shards[{number}]' names no valid file, rows and contexts.")
    return index


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write the index whole or not at all."""
    write_file(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False).encode())


def write_file(path: Path, data: bytes) -> None:
    """Write to a temporary name, force it to the disk, then rename, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def map_shard(path: Path, shard: dict[str, Any], index: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Check a shard's size and header against the index, and return its tensors as views of the mapped file."""
    data, tensors = _header(path, shard)
    rows, contexts = shard["rows"], shard["contexts"]
    expected: dict[str, tuple[str, list[int]]] = {
        "activations": (DTYPES[index["dtype"]], [rows, index["n_features"]]),
        "context": ("I64", [rows]),
        "position": ("I32", [rows]),
        "tokens": ("I32", [contexts, index["context_length"]]),
    }
    mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    views: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in expected.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, dict) or tensor.get("dtype") != dtype or tensor.get("shape") != shape:
            raise StoreError(f"The shard '{path}' has no tensor '{name}' of type {dtype} and shape {shape}.")
        begin, end = _offsets(tensor)
        if not 0 <= begin <= end <= len(mapped) - data or end - begin != math.prod(shape) * _NUMPY[dtype].itemsize:
            raise StoreError(f"The shard '{path}': 'data_offsets' of the tensor '{name}' do not fit the file.")
        views[name] = mapped[data + begin : data + end].view(_NUMPY[dtype]).reshape(shape)
    return views


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file, read a megabyte at a time."""
    crc = 0
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            crc = zlib.crc32(part, crc)
    return crc


def _header(path: Path, shard: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return where the data start and the header of a safetensors file of the size that the index states."""
    if not path.is_file():
        raise StoreError(f"The shard '{path}' that {INDEX} names is missing.")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise StoreError(
            f"The shard '{path}' has {size} bytes, but its field 'bytes' in {INDEX} says {shard['bytes']}."
        )
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= size - 8:
            raise StoreError(f"The shard '{path}' is not a safetensors file: its header length is {length}.")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise StoreError(f"The shard '{path}' is not a safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise StoreError(f"The shard '{path}' is not a safetensors file: its header is not an object.")
    return 8 + length, header


def _offsets(tensor: dict[str, Any]) -> tuple[int, int]:
    offsets = tensor.get("data_offsets")
    if isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(value, int) for value in offsets):
        return offsets[0], offsets[1]
    return -1, -1


def _check_fields(
    path: Path, values: dict[str, Any], fields: dict[str, type | tuple[type, ...]], prefix: str = ""
) -> None:
    for field, kind in fields.items():
        if field not in values or not isinstance(values[field], kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = " or ".join(known.__name__ for known in kinds)
            raise StoreError(f"'{path}': the field '{prefix}{field}' is missing or not of type {names}.")
