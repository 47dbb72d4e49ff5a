"""The state in which a training begins: new, or from a fitted model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from proxsae.data.memory import physical_memory
from proxsae.data.rows import Rows
from proxsae.dictionary import Statistics
from proxsae.formulas.arrays import to_numpy
from proxsae.parameters import WithRegularizer
from proxsae.training.alternating import take_first_atoms
from proxsae.training.autoencoder import Autoencoder, initial_autoencoder
from proxsae.training.batches import NormalisedBatches
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.distributed import mesh
from proxsae.training.inference import model_of
from proxsae.training.linear_map import linear_map
from proxsae.training.scaling import Scaling
from proxsae.training.settings import Asked, Settings
from proxsae.training.sharded import random_atoms, sharded
from proxsae.training.sparsity import WeightControl
from proxsae.training.state import TrainingState

# Samples that a given atom counts as: with none, small batches spoil good atoms; with ten, poor ones stay poor.
SAMPLES_PER_ATOM = 3


def fitted_start(init: Any) -> Any:
    """Return the start of a training: of a fitted ProxSAE its autoencoder and R as asked for; atoms as they are."""
    return (copy.deepcopy(model_of(init)), init._asked) if isinstance(init, WithRegularizer) else init


def start(
    rows: Rows, settings: Settings, n_steps: int | None, init: Any = None, blocks: FeatureBlocks | None = None
) -> TrainingState:
    """Return the state before the first step, with the scaling of the rows, from random atoms or from `init`."""
    if isinstance(init, tuple):
        fitted, asked = init
        state = go_on_from(fitted, asked, rows, settings, whose="init")
        state.n_steps = n_steps
        return state
    n_targets = rows.targets.shape[1]
    n_features = max(rows.shape[1], n_targets)
    n_held = settings.n_components // mesh().atoms.size
    _check_memory(n_held, n_features, rows.dtype, with_sums=settings.update is not None)
    inputs, targets = scalings(rows, rows.dtype, settings.device, settings.has_intercept)
    is_steered = settings.target_l0 is not None
    targets.check_weights(rows.targets.name, settings.regularizer, rows.dtype, is_steered)
    generator = torch.Generator().manual_seed(settings.seed)
    atoms = None if init is None else rows.targets.scaled(checked_atoms(init, settings.n_components, n_targets))
    if mesh().is_sharded:
        part = mesh().atoms.part(settings.n_components)
        whole = settings.n_components, n_targets
        atoms = random_atoms(*whole, generator, part) if atoms is None else atoms[part]
    model = initial_autoencoder(
        sharded(settings.encoder),
        settings.regularizer.rescaled(1 / targets.scale),
        settings.n_components,
        n_targets,
        generator,
        rows.dtype,
        learn_thresholds=is_steered,
        linear_map=linear_map(rows, inputs, targets).cpu() if rows.has_targets else None,
        has_skip=settings.skip_connection,
        atoms=atoms,
        blocks=blocks,
    ).to(settings.device)
    given, target = settings.regularizer, settings.target_l0
    state = TrainingState.start(
        model, inputs, given, targets=targets, seed=settings.seed, n_steps=n_steps, target_l0=target
    )
    if settings.update is None:
        return state
    if init is None:
        take_first_atoms(state, settings.update, NormalisedBatches(rows, settings.batch_size, state))
    else:
        # Samples of mean square norm n_features, as those of the training are, with codes of the same square.
        p, d = model.atoms.shape
        D, b = (to_numpy(part.double()) for part in (model.atoms, model.bias))
        state.statistics = Statistics.standing_for(D, b, SAMPLES_PER_ATOM * p, d / p)
    return state


def continued(sae: Any, rows: Rows, settings: Settings) -> TrainingState:
    """Return the state in which a fitted estimator is trained further: the one it keeps, or a new one."""
    if sae._training is None:
        return go_on_from(model_of(sae), sae._asked, rows, settings)
    state: TrainingState = sae._training.to(settings.device)
    _check_same_rows(state.model, rows, "the fitted model")
    take_up(state, settings, rows)
    return state


def checked_atoms(init: Any, n_components: int, n_features: int) -> torch.Tensor:
    """Return given atoms at unit norm, in float64.

    Raises
    ------
    ValueError
        If the atoms are no finite matrix of this shape, or an atom is zero.
    """
    if np.ndim(init) != 2:
        raise ValueError(f"init must be a matrix of atoms or a fitted ProxSAE, got {init!r}")
    array = check_array(to_numpy(init), dtype=np.float64, input_name="init")
    if array.shape != (n_components, n_features):
        raise ValueError(f"init must have shape {(n_components, n_features)}, got {array.shape}")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"init has an atom of zeros, in row {int(np.flatnonzero(norms == 0)[0])}")
    return torch.from_numpy(array / norms)


def scalings(rows: Rows, dtype: torch.dtype, device: torch.device, has_intercept: bool) -> tuple[Scaling, Scaling]:
    """Return the scaling of the rows and that of their targets; it subtracts their mean if b is learned."""
    inputs = Scaling.of(rows, dtype, device, is_centred=has_intercept)
    return inputs, Scaling.of(rows.targets, dtype, device, is_centred=has_intercept) if rows.has_targets else inputs


def go_on_from(
    fitted: Autoencoder, asked: Asked, rows: Rows, settings: Settings, whose: str = "the fitted model"
) -> TrainingState:
    """Return the state in which a fitted autoencoder, in the units of the data, is trained further on rows.

    Where R as asked for and the target L0 have not changed, a steered weight and learned thresholds stay. Refusals name
    the autoencoder by `whose`.
    """
    norms = fitted.blocks.norm(fitted.atoms.detach())
    in_ball = settings.update is not None and settings.update.atoms == "ball"
    if not bool(((norms < 1 + 1e-3) if in_ball else (norms - 1).abs() < 1e-3).all()):
        raise ValueError(
            "a training keeps atoms at unit norm, but those of this model have norms from "
            f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"
        )
    _check_same_model(fitted, settings, whose)
    _check_same_rows(fitted, rows, whose)
    given, target = settings.regularizer, settings.target_l0
    inputs, targets = scalings(rows, fitted.atoms.dtype, fitted.atoms.device, settings.has_intercept)
    model = fitted.in_units(inputs.inverse, targets.inverse)
    state = TrainingState.start(model, inputs, given, targets=targets, seed=settings.seed, target_l0=target)
    _check_intercept(state, settings, whose)
    if state.control is not None and asked[1] is not None and given == asked[0]:
        state.control.is_met = True
        state.replace_encoder(model.encoder.with_regularizer(model.encoder.regularizer, learn_thresholds=True))
    else:
        _set_regularizer(state, settings, rows)
    return state


def take_up(state: TrainingState, settings: Settings, rows: Rows) -> None:
    """Change a training to new settings, where these differ, and begin a new order of rows."""
    _check_same_model(state.model, settings, "the fitted model")
    _check_intercept(state, settings, "the fitted model")
    target = None if state.control is None else state.control.target
    if settings.regularizer != state.given or (target is None) != (settings.target_l0 is None):
        _set_regularizer(state, settings, rows)  # before anything else changes: it may refuse
        state.given, state.prices = settings.regularizer, None
        state.control = None if settings.target_l0 is None else WeightControl(settings.target_l0)
    elif state.control is not None and settings.target_l0 is not None:
        state.control.target = settings.target_l0
    state.n_halvings = 0
    state.new_data()


def _set_regularizer(state: TrainingState, settings: Settings, rows: Rows) -> None:
    is_steered = settings.target_l0 is not None
    state.targets.check_weights(rows.targets.name, settings.regularizer, state.model.atoms.dtype, is_steered)
    normalised = settings.regularizer.rescaled(1 / state.targets.scale)
    state.replace_encoder(state.model.encoder.with_regularizer(normalised, learn_thresholds=is_steered))


def _check_same_model(model: Autoencoder, settings: Settings, whose: str) -> None:
    """Raise ValueError where parameters were set that a fitted model cannot take up."""
    needed = "another init" if whose == "init" else "a new fit"
    if len(model.atoms) != settings.n_components:
        raise ValueError(f"n_components = {settings.n_components} needs {needed}: {whose} has {len(model.atoms)}")
    if model.blocks.sizes != (settings.blocks or (model.atoms.shape[1],)):
        raise ValueError(f"blocks = {settings.blocks} needs {needed}: those of {whose} have sizes {model.blocks.sizes}")
    if (has_skip := model.skip is not None) != settings.skip_connection:
        raise ValueError(f"skip_connection = {not has_skip} needs {needed}: that of {whose} is {has_skip}")
    fitted = model.encoder
    if (fitted.name, fitted.get_params()) != (settings.encoder.name, settings.encoder.get_params()):
        raise ValueError(f"encoder = {settings.encoder!r} needs {needed}: that of {whose} is {fitted!r}")


def _check_intercept(state: TrainingState, settings: Settings, whose: str) -> None:
    """Raise ValueError where b is to be 0, and that of a fitted model is not."""
    if not settings.has_intercept and bool((state.model.bias != 0).any() or (state.targets.mean != 0).any()):
        raise ValueError(
            f"intercept = False needs a model without one, but {whose} has one: give init=components_ to a new fit"
        )


def _check_same_rows(model: Autoencoder, rows: Rows, whose: str) -> None:
    """Raise ValueError where an autoencoder is given targets or a transcoder none, or either rows of another width."""
    if model.is_transcoder != rows.has_targets:
        was, needed = ("with", "give Y") if model.is_transcoder else ("without", "give none")
        raise ValueError(f"{whose} was trained {was} targets Y: {needed}")
    for one, n_features in ((rows, model.encoder.n_features), (rows.targets, model.atoms.shape[1])):
        if one.shape[1] != n_features:
            raise ValueError(f"{one.name} has {one.shape[1]} features, but {whose} is expecting {n_features}")


def _check_memory(n_components: int, n_features: int, dtype: torch.dtype, *, with_sums: bool) -> None:
    """Raise ValueError where a model, its gradient and the moments of Adam exceed the memory of this machine.

    With solved codes the limit is also for three float64 matrices of order n_components: the sums, new sums, and the
    sums of a step.
    """
    needed = 24 * n_components**2 if with_sums else 8 * n_components * n_features * dtype.itemsize
    if needed > (present := physical_memory()):
        raise ValueError(
            f"n_components = {n_components} with {n_features} features needs {needed / 1e9:.3g} GB to train, and this "
            f"machine has {present / 1e9:.3g} GB"
        )
