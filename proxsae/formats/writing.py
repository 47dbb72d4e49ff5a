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


def write_configured(configuration: Path, values: dict[str, Any], weights: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, as Torch does for ``.pt`` and else to safetensors, and the JSON object that describes them.

    The files that are there are replaced once both new ones are written.
    """
    from safetensors.torch import save_file

    with replacing(configuration) as described, replacing(weights) as temporary:
        described.write_text(f"{json.dumps(values, indent=2, allow_nan=False)}\n", encoding="utf-8")
        if weights.suffix == ".pt":
            _save_torch(tensors, temporary)
        else:
            save_file(copied_tensors(tensors), temporary)


def write_torch(path: Path, values: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values with torch.save."""
    with replacing(path) as temporary:
        _save_torch(values, temporary)


def write_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a NumPy archive, with the comment that tells it from one that was published."""
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, **{name: tensor.numpy() for name, tensor in copied_tensors(tensors).items()})  # type: ignore[arg-type]
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = WRITTEN_BY_US


def _save_torch(values: dict[str, Any], path: Path) -> None:
    tensors = copied_tensors({name: value for name, value in values.items() if isinstance(value, Tensor)})
    with path.open("wb") as stream:
        torch.save({**values, **tensors}, stream)


def copied_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies: tensors that share memory are refused by safetensors, and written whole by Torch."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
