"""The files of an activation store: safetensors shards, checked and mapped, and their JSON index."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proxsae.data.files import crc32_of, replacing

INDEX = "index.json"
FORMAT = "proxsae-activations"
VERSION = 2
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_NUMPY: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # its bits, since NumPy has no such numbers
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
_INDEX_FIELDS: dict[str, tuple[type, ...]] = {
    "checksum": (int,),
    "model": (str,),
    "weights": (str,),
    "site": (str,),
    "tokenizer": (str,),
    "text": (str,),
    "split": (str,),
    "seed": (int, type(None)),
    "drop": (str, int, list),
    "excluded_tokens": (list,),
    "dtype": (str,),
    "n_features": (int,),
    "context_length": (int,),
    "batch_size": (int,),
    "n_tokens": (int,),
    "dropped_positions": (list,),
    "median_norm": (int, float),
    "complete": (bool,),
    "shards": (list,),
}
# what a harvest leaves out, and the large rows that it keeps
HARVEST_COUNTS = ("dropped_by_position", "dropped_special", "dropped_massive", "large_kept")
_COUNTS = ("rows", "contexts", "bytes", *HARVEST_COUNTS)
_SHARD_FIELDS: dict[str, tuple[type, ...]] = {"file": (str,), "crc32": (int,), **dict.fromkeys(_COUNTS, (int,))}


class StoreError(ValueError):
    """A file of an activation store is missing, truncated, damaged or foreign; the message names file and field."""


def narrowed(rows: NDArray[np.floating], dtype: str) -> NDArray[Any]:
    """Return rows as a shard holds them, rounded to the nearest number of a dtype."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return rows.astype(dtype, copy=False)
    rounded = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(_NUMPY["BF16"])


def widened(stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return the rows that a shard holds; bfloat16, the upper half of a float32, is returned as float32."""
    return (stored.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else stored


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def read_index(folder: Path) -> dict[str, Any]:
    """Return the checked index of the store in `folder`, without its checksum."""
    path = folder / INDEX
    if not folder.exists():
        raise StoreError(f"There is no such file or folder: '{folder}'.")
    if not path.is_file():
        raise StoreError(f"'{folder}' is not an activation store: it holds no {INDEX}.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"'{path}' is not JSON, so it is truncated or foreign: {error}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise StoreError(f"'{path}' is no index of an activation store: its field 'format' is not '{FORMAT}'.")
    if index.get("version") != VERSION:
        raise StoreError(f"'{path}' has version {index.get('version')!r}; this proxsae reads version {VERSION}.")
    _check_fields(path, index, _INDEX_FIELDS)
    if index.pop("checksum") != _checksum(index):
        raise StoreError(f"'{path}' is damaged or was edited: its field 'checksum' does not match.")
    if index["dtype"] not in DTYPES:
        raise StoreError(f"'{path}': the field 'dtype' is {index['dtype']!r}; allowed are {', '.join(DTYPES)}.")
    for field in ("n_features", "context_length"):
        if not 1 <= index[field] < 2**31:
            raise StoreError(f"'{path}': the field '{field}' is {index[field]}; it must be positive and below 2^31.")
    for field in ("dropped_positions", "excluded_tokens"):
        if not all(_is(number, (int,)) and 0 <= number < 2**31 for number in index[field]):
            raise StoreError(f"'{path}': the field '{field}' holds something else than numbers from 0 to 2^31.")
    if not 0 <= index["median_norm"] < math.inf:
        raise StoreError(f"'{path}': the field 'median_norm' is {index['median_norm']}; it must be finite and >= 0.")
    _check_sites(path, index)
    for number, shard in enumerate(index["shards"]):
        if not isinstance(shard, dict):
            raise StoreError(f"'{path}': the field 'shards[{number}]' is not an object.")
        _check_fields(path, shard, _SHARD_FIELDS, f"shards[{number}].")
        if shard["file"] != shard_name(number):
            raise StoreError(f"'{path}': the field 'shards[{number}].file' is not '{shard_name(number)}'.")
        for field in _COUNTS:
            if not 0 <= shard[field] < 2**63:
                raise StoreError(f"'{path}': the field 'shards[{number}].{field}' is {shard[field]}.")
    return index


def _check_sites(path: Path, index: dict[str, Any]) -> None:
    """Check the fields of several sites, and add them to the index of a store of one site, which may lack them."""
    widths = index.setdefault("widths", [index["n_features"]])
    medians = index.setdefault("median_norms", [index["median_norm"]])
    sites = index["site"].split(" ")
    if len(set(sites)) < len(sites):
        raise StoreError(f"'{path}': the field 'site' names a site twice: {index['site']!r}.")
    whole = isinstance(widths, list) and all(_is(width, (int,)) and width > 0 for width in widths)
    if not whole or len(widths) != len(sites) or sum(widths) != index["n_features"]:
        raise StoreError(f"'{path}': the field 'widths' does not share 'n_features' among the sites.")
    numbers = isinstance(medians, list) and all(_is(norm, (int, float)) and 0 <= norm < math.inf for norm in medians)
    if not numbers or len(medians) not in (0, len(widths)):
        raise StoreError(f"'{path}': the field 'median_norms' is not a finite number >= 0 for each site.")


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write the index with its checksum, whole or not at all."""
    write_file(folder / INDEX, json.dumps({**index, "checksum": _checksum(index)}, indent=1).encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


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


def check_content(path: Path, shard: dict[str, Any]) -> None:
    """Raise StoreError unless the CRC-32 of a shard is that of the index."""
    if crc32_of(path) != shard["crc32"]:
        raise StoreError(f"The shard '{path}' is damaged: its field 'crc32' in {INDEX} does not match.")


def _checksum(index: dict[str, Any]) -> int:
    """Return the CRC-32 of an index as JSON, whose fields may stand in any order."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


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
        except (ValueError, RecursionError) as error:
            raise StoreError(f"The shard '{path}' is not a safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise StoreError(f"The shard '{path}' is not a safetensors file: its header is not an object.")
    return 8 + length, header


def _offsets(tensor: dict[str, Any]) -> tuple[int, int]:
    offsets = tensor.get("data_offsets")
    if isinstance(offsets, list) and len(offsets) == 2 and all(_is(value, (int,)) for value in offsets):
        return offsets[0], offsets[1]
    return -1, -1


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a JSON value has one of these types, where true and false are no numbers."""
    return type(value) in kinds


def _check_fields(path: Path, values: dict[str, Any], fields: dict[str, tuple[type, ...]], prefix: str = "") -> None:
    for field, kinds in fields.items():
        if field not in values or not _is(values[field], kinds):
            names = " or ".join(known.__name__ for known in kinds)
            raise StoreError(f"'{path}': the field '{prefix}{field}' is missing or not of type {names}.")
