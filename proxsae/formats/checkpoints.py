"""The checkpoints of a fit in one folder: files of the model in our own format, each with the state of its training.

A checkpoint of a dictionary in shards is a folder, see :mod:`proxsae.formats.shards`; a fit can go on from either kind.
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from sklearn.base import clone

from proxsae.data.files import check_writable
from proxsae.formats.native import write
from proxsae.formats.shards import read_shards, write_shards
from proxsae.training.distributed import mesh
from proxsae.training.fitting import finished_model
from proxsae.training.settings import Asked
from proxsae.training.sharded import shard_of
from proxsae.training.state import TrainingState

KEPT = 2
_NAME = re.compile(r"step-(\d{8,})(\.safetensors)?")


def checkpoints_of(sae: Any, *, resume: bool) -> Checkpoints | None:
    """Return the checkpoints of an estimator to be fitted; None where it names no folder for them."""
    if sae.checkpoint_dir is not None:
        return Checkpoints(sae, resume=resume)
    if resume:
        raise ValueError("resume goes on from a checkpoint: give checkpoint_dir, the folder of them")
    return None


def is_checkpoint(path: Path, folder: Path) -> bool:
    """Whether a file has the name of a checkpoint in a folder."""
    return path.resolve().parent == folder.resolve() and _NAME.fullmatch(path.name) is not None


class Checkpoints:
    """The last two checkpoints of a fit, and the best one, with the least mean loss over the steps before it.

    Parameters
    ----------
    sae : ProxSAE
        The estimator to fit, with a ``checkpoint_dir``.
    resume : bool
        Go on from the newest checkpoint there.

    Raises
    ------
    ValueError
        If there are checkpoints and they are not to be resumed, or the newest is damaged or foreign.
    OSError
        If nothing can be written there.
    """

    def __init__(self, sae: Any, *, resume: bool) -> None:
        self.sae, self.folder = sae, Path(sae.checkpoint_dir).expanduser()
        present = self._paths()
        if present and not resume:
            raise ValueError(f"{present[-1]} is there already: resume that fit, or give another folder, or delete it")
        check_writable(self._path(0))
        for partial in self.folder.glob(".step-*.partial"):  # of a process that was killed while it wrote
            _remove(partial)
        if resume and not present:
            warnings.warn(f"{self.folder} holds no checkpoint: the fit begins at its first step", stacklevel=4)

    def write(self, state: TrainingState, asked: Asked, history: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Write a checkpoint, then remove all but the last ones and the best; if the write fails, all stay."""
        present = clone(self.sae)
        if hasattr(self.sae, "feature_names_in_"):
            present.feature_names_in_ = self.sae.feature_names_in_
        present._set_fitted(None if mesh().is_sharded else finished_model(state), asked, history, provenance)
        present._training = state
        if mesh().is_sharded:
            write_shards(self._path(state.n_done), present)
        else:
            write(self._path(state.n_done), present, with_training=True)
        if mesh().all.rank:
            return
        present_paths = self._paths()
        best = min(present_paths, key=lambda path: (self._recent_loss(path, history), path))
        for old in present_paths[:-KEPT]:
            if old != best:
                _remove(old)

    def _recent_loss(self, path: Path, history: dict[str, Any]) -> float:
        """Return the mean loss of the steps between a checkpoint and the one before it."""
        n_done = _step(path)
        is_recent = (history["step"] > n_done - self.sae.checkpoint_every) & (history["step"] <= n_done)
        losses = history["loss"][is_recent]
        return float(losses.mean()) if len(losses) else math.inf  # of another fit in the same folder

    def newest(self) -> tuple[Any, Path] | None:
        """Return the newest model that is there, with the state of its training, and its path."""
        if not (present := self._paths()):
            return None
        try:
            sae = read_shards(present[-1], type(self.sae)) if present[-1].is_dir() else type(self.sae).load(present[-1])
            if (training := sae._training) is not None and training.n_done != _step(present[-1]):
                raise ValueError(f"{present[-1]} holds step {training.n_done}, and not that of its name")
            if mesh().is_sharded and training is not None and not present[-1].is_dir():
                sae._training = shard_of(training)
            return sae, present[-1]
        except (ValueError, FileNotFoundError) as error:  # the latter of a folder that has lost a file
            older = f"go on from {present[-2].name}" if present[1:] else "begin again, since there is no older one"
            raise ValueError(f"{error}; delete {present[-1]} to {older}") from None

    def _path(self, n_done: int) -> Path:
        return self.folder / f"step-{n_done:08d}{'' if mesh().is_sharded else '.safetensors'}"

    def _paths(self) -> list[Path]:
        """Return the checkpoints that are there, the newest last."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in found if _NAME.fullmatch(path.name)), key=lambda path: (_step(path), path))


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
