"""One-file checkpoints: tensors and JSON metadata in safetensors, with a checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from proxsae.data.files import replacing

FORMAT = "proxsae-sae"
VERSION = 1


def write_checkpoint(path: str | os.PathLike[str], tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write arrays and metadata to `path` through a temporary file, so that an interruption leaves the old file."""
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "checksum": _checksum(tensors),
        "metadata": json.dumps(metadata),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the metadata of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a checkpoint of ours, or is damaged; the sentence names the file and the field.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f'{path}: the field "format" is {header.get("format")!r}, a checkpoint has {FORMAT!r}')
            if header.get("version") != str(VERSION):
                raise ValueError(f'{path}: the field "version" is {header.get("version")!r}, readable is {VERSION}')
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    if header.get("checksum") != _checksum(tensors):
        raise ValueError(f'{path}: the field "checksum" does not match the tensors; the file is damaged')
    try:
        metadata = json.loads(header["metadata"])
    except (KeyError, json.JSONDecodeError):
        raise ValueError(f'{path}: the field "metadata" is missing or not JSON') from None
    return tensors, metadata


def _checksum(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].data)
    return digest.hexdigest()
