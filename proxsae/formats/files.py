"""The container of our files: tensors and JSON in safetensors under one checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from proxsae.data.files import replacing

FORMAT = "proxsae-sae"
VERSION = "2"
MAX_METADATA = 2**24  # characters; what we write is a few thousand


def write_file(path: str | os.PathLike[str], tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write arrays and JSON values to `path` through a temporary file, so that an interruption leaves the old file.

    Raises
    ------
    OSError
        If it cannot be written; the sentence names the file.
    ValueError
        If the JSON values are longer than :func:`read_file` takes.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    text = json.dumps(metadata, allow_nan=False)
    if len(text) > MAX_METADATA:
        raise ValueError(f"{path}: names and settings have {len(text)} characters, at most {MAX_METADATA} can be saved")
    header = {"format": FORMAT, "version": VERSION, "checksum": _checksum(text, tensors), "metadata": text}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header, since safetensors writes them in a different order every time."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length  # the same characters in another order
        stream.seek(8)
        stream.write(text.ljust(length))


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the JSON values of a file that :func:`write_file` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of ours, or is damaged; the sentence names the file and the field.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            for field, wanted in (("format", FORMAT), ("version", VERSION)):
                found = header.get(field)
                if found != wanted:
                    raise ValueError(f"{path}: the field {field!r} is {one_line(found)}, needed is {wanted!r}")
            text = header.get("metadata", "")
            if len(text) > MAX_METADATA:
                raise ValueError(f"{path}: the field 'metadata' has {len(text)} characters, at most {MAX_METADATA}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:  # the last two: a dtype that NumPy does not have
        raise ValueError(f"{path} is not a whole safetensors file: {one_line(str(error))}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if header.get("checksum") != _checksum(text, tensors):
        raise ValueError(f"{path}: the field 'checksum' does not match the content; the file is damaged")
    try:
        metadata = json.loads(text, parse_constant=_refused_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the field 'metadata' is not JSON, or nested too deeply") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: the field 'metadata' is not a JSON object")
    return tensors, metadata


def check_file(path: Path) -> None:
    """Raise FileNotFoundError where there is no file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder, needed is a file" if path.is_dir() else f"no file at {path}")


def is_ours(path: Path) -> bool:
    """Whether the header of a file says that :func:`write_file` wrote it, whatever its name."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _checksum(text: str, tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        digest.update(f"\n{name!r} {tensors[name].dtype} {tensors[name].shape}".encode("utf-8", "surrogatepass"))
        digest.update(tensors[name].tobytes() if tensors[name].ndim == 0 else tensors[name].data)
    return digest.hexdigest()


def one_line(value: Any) -> str:
    """Return a text for a sentence: not too long, and in one line."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _refused_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
