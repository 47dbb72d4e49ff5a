"""A checkpoint of a dictionary in shards: a folder that all processes write together, and any number of them reads."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxsae.data.files import crc32_of
from proxsae.formats.files import one_line, read_file
from proxsae.formats.native import Fields, fit_fields, fit_of, is_array, write_fields
from proxsae.training.distributed import lost_ranks_named, mesh, tells_of_a_lost_rank
from proxsae.training.sharded import axis_of, state_of
from proxsae.training.state import TrainingState


def write_shards(path: Path, sae: Any) -> None:
    """Write a checkpoint from which a training can go on, whole or not at all; every process calls this.

    Each process writes its own tensors, as safetensors by :mod:`torch.distributed.checkpoint`; the first process writes
    all other fields and the checksums.

    Parameters
    ----------
    path : Path
        The folder to make, on a disk that all processes share.
    sae : ProxSAE
        The estimator with the state and the record of its training.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    everyone, entries = mesh().all, sae._training.state_dict()
    folder = path.with_name(f".{path.name}.partial")
    if everyone.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "tensors").mkdir(parents=True)
    everyone.of_first(None)  # all wait for that
    try:
        _write_into(folder, path, sae, entries)
    except BaseException:
        if everyone.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # which may fill the disk
        raise
    if everyone.rank == 0:
        shutil.rmtree(path, ignore_errors=True)
        folder.rename(path)
    everyone.of_first(None)


def _write_into(folder: Path, path: Path, sae: Any, entries: dict[str, Any]) -> None:
    """Write the files of the checkpoint at `path` into a folder."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    tensors = {name: value for name, value in entries.items() if is_array(value) and not _is_of_regularizer(name)}
    with _failures_named(OSError, f"'{path}' cannot be written"), lost_ranks_named():
        shards = {name: _among_processes(name, value) for name, value in tensors.items()}
        save(shards, storage_writer=HuggingFaceStorageWriter(str(folder / "tensors"), save_distributed=True))
    checksums = _checksums(folder / "tensors")
    if mesh().all.rank == 0:
        beside = {name: value for name, value in entries.items() if name not in tensors}
        write_fields(folder / "fit.safetensors", {**fit_fields(sae, beside), "checksums": checksums})


def read_shards(path: Path, cls: Any) -> Any:
    """Return an estimator without a model, with the state of its training: whole, or the shard of this process.

    Raises
    ------
    ValueError
        If the checkpoint is damaged; the sentence names it.
    """
    arrays, metadata = read_file(path / "fit.safetensors")
    fields = Fields(path, arrays, metadata)
    if _checksums(path / "tensors") != fields.of("checksums", dict):
        raise ValueError(f"{path}: the field 'checksums' does not match the files; the checkpoint is damaged")
    training: TrainingState = fields.built("training", lambda: _training(path, fields))
    sae = fit_of(fields, cls, None)
    sae._training, sae.n_features_in_ = training, len(training.inputs.mean)
    return sae


def _training(path: Path, fields: Fields) -> TrainingState:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(path / "tensors"))
    with _failures_named(ValueError, f"{path} is damaged"), lost_ranks_named(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        tensors = {}
        for name, stored in reader.read_metadata().state_dict_metadata.items():
            shape, axis = list(stored.size), axis_of(name)  # type: ignore[union-attr]
            if axis is not None:
                shape[axis] //= mesh().atoms.size
            empty = torch.zeros(shape, dtype=stored.properties.dtype)  # type: ignore[union-attr]
            tensors[name] = _among_processes(name, empty)
        load(tensors, storage_reader=reader, no_dist=mesh().all.size == 1)
    here = {name: value.to_local() if hasattr(value, "to_local") else value for name, value in tensors.items()}
    beside = {name: torch.from_numpy(array) for name, array in fields.group("training").items()}
    return state_of({**fields.of("training", dict), **beside, **here})


def _is_of_regularizer(name: str) -> bool:
    return name.startswith(("given.", "regularizer."))


def _among_processes(name: str, value: Tensor) -> Tensor:
    """Return an entry of a state as the distributed tensor of PyTorch, where each process has a part of it."""
    devices, axis = mesh().devices, axis_of(name)
    if devices is None or axis is None:
        return value.clone()  # inputs and targets may have one mean, and safetensors no tensor twice
    from torch.distributed.tensor import DTensor, Replicate, Shard

    return DTensor.from_local(value.contiguous(), devices, [Replicate(), Shard(axis % value.ndim)], run_check=False)


def _checksums(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of the files of tensors in a folder, once all are on the disk; processes share them out."""
    everyone, found = mesh().all, {}
    for file in sorted(folder.glob("*.safetensors"))[everyone.rank :: everyone.size]:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        found[file.name] = crc32_of(file)
    return {name: crc for part in everyone.collected(found) for name, crc in part.items()}


@contextmanager
def _failures_named(kind: type[Exception], sentence: str) -> Iterator[None]:
    """Raise the errors of PyTorch for a failure in some process as one sentence."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        causes = [failure[0] if isinstance(failure, tuple) else failure for failure in error.failures.values()]
        if mesh().all.size > 1 and tells_of_a_lost_rank(causes[0]):
            with lost_ranks_named():
                raise causes[0] from None
        raise kind(f"{sentence}: {one_line(str(causes[0]))}") from None
