"""Files for other libraries, written whole or not at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.data.files import replacing

WRITTEN_BY_US = b"proxsae"  # the comment of our archives


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a safetensors file."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(copied_tensors(tensors), temporary)


def write_torch(path: Path, values: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values with torch.save."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(
            {**values, **copied_tensors({name: t for name, t in values.items() if isinstance(t, Tensor)})}, stream
        )


def write_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a NumPy archive, with the comment that tells it from one that was published."""
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, **{name: tensor.numpy() for name, tensor in copied_tensors(tensors).items()})  # type: ignore[arg-type]
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = WRITTEN_BY_US


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object to a JSON file."""
    with replacing(path) as temporary:
        temporary.write_text(f"{json.dumps(values, indent=2, allow_nan=False)}\n", encoding="utf-8")


def copied_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies: tensors that share memory are refused by safetensors, and written whole by Torch."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
