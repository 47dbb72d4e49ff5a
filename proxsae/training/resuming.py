"""From a checkpoint back into the middle of a fit: only into the same fit, on the same rows, in all processes."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

import torch

from proxsae.data.rows import Rows
from proxsae.formulas.arrays import name_of_dtype
from proxsae.formulas.integers import evenly_spaced
from proxsae.regularizers.naming import checked_spelling
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.distributed import mesh
from proxsae.training.settings import Asked, Settings
from proxsae.training.starting import checked_atoms
from proxsae.training.state import TrainingState, is_finite

COMPARED_ROWS = 1024  # rows of the data that enter their checksum


class CheckpointStore(Protocol):
    """Where a fit is kept between two steps; :mod:`proxsae.formats.checkpoints` keeps it in files."""

    def newest(self) -> tuple[Any, Any] | None:
        """Return the fitted estimator to go on from, with the state of its training, and the name of the checkpoint."""

    def write(self, state: TrainingState, asked: Asked, history: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Keep a training between two steps."""


def note_start(state: TrainingState, rows: Rows, settings: Settings, init: Any) -> None:
    """Note in a new state what it began with, for :func:`resumed_state`; raise where R cannot be written."""
    checked_spelling(settings.regularizer)
    state.data, state.init = fingerprint(rows), fingerprint_of_init(init, rows, settings)


def resumed_state(
    fitted: Any, path: Any, rows: Rows, settings: Settings, n_steps: int | None, init: Any
) -> TrainingState:
    """Return the state of a checkpoint, to go on with.

    An init or a random_state of None accepts that of the checkpoint.

    Raises
    ------
    ValueError
        If the checkpoint is that of a fit with other parameters, on other rows or from another init; the message names
        the first difference.
    """
    state: TrainingState | None = fitted._training
    if state is None:
        raise ValueError(f"{path} is no checkpoint but a fitted model: the state of its training is not there")
    their_rows, our_rows = _parts(state.data or "None"), _parts(fingerprint(rows))
    pairs: list[tuple[str, Any, Any]] = [("n_steps", state.n_steps, n_steps)]
    pairs += [(name, their_rows.get(name), our_rows.get(name)) for name in their_rows | our_rows]
    if init is not None and state.init is not None:
        pairs.append(("init", state.init, fingerprint_of_init(init, rows, settings)))
    if settings.random_state is not None:
        pairs.append(("seed of random_state", state.seed, settings.seed))
    different = Settings.of(fitted.get_params(deep=False), fitted.n_features_in_).differences(settings)
    different += [(name, theirs, ours) for name, theirs, ours in pairs if theirs != ours]
    if different:
        name, theirs, ours = different[0]
        further = ": to train its model further, give it as init to a new fit" if name == "n_steps" else ""
        raise ValueError(
            f"{path} is the checkpoint of another fit: its {name} = {theirs}, that of this one is {ours}{further}"
        )
    return state.to(settings.device)


def check_same_start(state: TrainingState, rows: Rows) -> None:
    """Raise ValueError in all processes of a training where they do not begin with one state, on the same rows."""
    found: dict[str, Any] = _parts(fingerprint(rows.in_units(None)))  # units that processes may round differently
    found |= {"step": state.n_done, "rows drawn": state.n_drawn, "seed": state.seed, "init": state.init}
    atoms = state.model.atoms.detach()
    sketch = (atoms * torch.cos(torch.arange(atoms.shape[1], device=atoms.device))).sum(1).cpu()  # a number an atom
    everyone = mesh().all.collected((found, sketch))
    first, ours = everyone[0]
    for rank, (other, theirs) in enumerate(everyone):
        pairs = [(name, first.get(name), other.get(name)) for name in first | other]
        different = [f"{name} = {a} and {b}" for name, a, b in pairs if a != b]
        # atoms may be rounded differently, and those of shards are different
        if not different and not mesh().is_sharded and float((theirs - ours).abs().max()) > 1e-3:
            different.append("different atoms")
        if different:
            raise ValueError(
                f"processes 0 and {rank} begin this training with {different[0]}: all need the same rows and init, and "
                "checkpoints on a disk that all of them see"
            )


def check_finite(state: TrainingState) -> None:
    """Raise FloatingPointError where a step has left NaN or infinity, which the next loss would show."""
    if bool(mesh().all.any(torch.tensor(not is_finite(state.state_dict()), device=state.model.atoms.device))):
        raise FloatingPointError(f"the model holds NaN or infinity after step {state.n_done}")


def fingerprint(rows: Rows) -> str:
    """Return what tells rows from others: shape, dtype and a checksum of some of X and Y, and what else there is."""
    parts = {} if rows.stream is None else {"stream": rows.stream.definition}
    parts["X"] = _matrix(rows)
    if rows.has_targets:
        parts["Y"] = _matrix(rows.targets)
    if rows.weights is not None:
        parts["sample_weight"] = f"weights with checksum {zlib.crc32(rows.weights.tobytes()):08x}"
    return "; ".join(f"{name} = {value}" for name, value in parts.items())


def _parts(data: str) -> dict[str, str]:
    """Return the parts of a fingerprint by name; earlier versions have written X without its name."""
    return dict(part.partition(" = ")[::2] for part in (data if " = " in data else f"X = {data}").split("; "))


def _matrix(rows: Rows) -> str:
    """Return the shape of rows, their dtype, and a checksum of some of them, evenly spaced."""
    some = rows.read(evenly_spaced(len(rows), COMPARED_ROWS), rows.dtype, torch.device("cpu"))
    return f"{rows.shape[0]} x {rows.shape[1]} {name_of_dtype(rows.dtype)} with checksum {_checksum(some)}"


def fingerprint_of_init(init: Any, rows: Rows, settings: Settings) -> str:
    """Return a checksum of the atoms that a fit begins with, or of the arrays of the fitted model."""
    if init is None:
        return "None"
    if not isinstance(init, tuple):
        return f"atoms with checksum {_checksum(checked_atoms(init, settings.n_components, rows.targets.shape[1]))}"
    model: Autoencoder = init[0]
    of_encoder = [tensor for _, tensor in sorted(model.encoder.tensors().items())]
    parts = [part.detach() for part in (model.atoms, model.bias, model.skip) if part is not None]
    return f"a model with checksum {_checksum(*parts, *of_encoder)}"


def _checksum(*tensors: torch.Tensor) -> str:
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.cpu().contiguous().numpy().tobytes(), crc)
    return f"{crc:08x}"
