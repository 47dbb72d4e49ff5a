"""From rows and settings to a trained autoencoder in the units of the data: what `fit` and `partial_fit` do."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from proxsae.data.rows import BatchOrder, Rows, checked_rows, evenly_spaced, ordinary, provenance_of
from proxsae.training.alternating import Alternation, take_first_atoms
from proxsae.training.autoencoder import Autoencoder, initial_autoencoder
from proxsae.training.history import joined
from proxsae.training.inference import N_FOR_WEIGHT, model_of
from proxsae.training.resuming import Checkpoints, check_finite, mark, resumed
from proxsae.training.scaling import MAX_ROWS, Scaling
from proxsae.training.settings import Asked, Settings
from proxsae.training.signals import signals_held_back
from proxsae.training.sparsity import WeightControl
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Trainer


class NormalisedBatches:
    """Batches of rows in the units of a training, the targets equal to the inputs.

    Parameters
    ----------
    rows : Rows
    batch_size : int
    state : TrainingState
        Of which the scaling, the dtype, the device and the order are taken.
    """

    def __init__(self, rows: Rows, batch_size: int, state: TrainingState) -> None:
        self.rows, self.scaling = rows, state.inputs
        self.dtype, self.device = state.model.atoms.dtype, state.model.atoms.device
        self.order = BatchOrder(len(rows), batch_size, state.order_seed)

    def after(self, n_drawn: int) -> tuple[Tensor, Tensor]:
        """Return the batch that follows so many rows."""
        x = self.read(self.order.after(n_drawn))
        return x, x

    def read(self, numbers: Any) -> Tensor:
        """Return rows by number."""
        return self.scaling.normalised(self.rows.read(numbers, self.dtype, self.device))


def train(
    sae: Any, X: Any, n_steps: int | None, *, is_new: bool, checkpoints: Checkpoints | None = None
) -> tuple[TrainingState, Asked, dict[str, Any], dict[str, Any]]:
    """Train an estimator on X, from a new start or from what is fitted: for `n_steps`, or for one pass.

    With checkpoints a new start goes on from the newest of them, and the training is written there between steps.

    Returns
    -------
    state, asked, history, provenance
        The history includes what was before; the provenance is what X says of itself.
    """
    rows = checked_rows(sae, X, reset=is_new)
    settings = Settings.of(sae.get_params(deep=False), rows.shape[1])
    rows = ordinary(rows, settings.max_norm_ratio, MAX_ROWS)
    before, provenance = {} if is_new else sae.history_, provenance_of(X)
    if checkpoints is not None and checkpoints.newest is not None:
        state, before = resumed(checkpoints, rows, settings, n_steps), checkpoints.newest.history_
        n_steps = None if n_steps is None else n_steps - state.n_done
    else:
        state = start(rows, settings, n_steps) if is_new else continued(sae, rows, settings)
        if checkpoints is not None:
            mark(state, rows, settings)
    sae._training = None  # should a step fail, the next training starts from what is fitted

    def write(history: dict[str, Any]) -> None:
        if checkpoints is not None:
            check_finite(state)
            checkpoints.write(state, settings.asked, joined(before, history), provenance)

    history = run(state, rows, settings, n_steps, None if checkpoints is None else write)
    return state, settings.asked, joined(before, history), provenance


def continued(sae: Any, rows: Rows, settings: Settings) -> TrainingState:
    """Return the state in which a fitted estimator is trained further: the one it keeps, or a new one."""
    if sae._training is None:
        return go_on_from(model_of(sae), sae._asked, rows, settings)
    state: TrainingState = sae._training.to(settings.device)
    take_up(state, settings)
    return state


def start(rows: Rows, settings: Settings, n_steps: int | None) -> TrainingState:
    """Return the state before the first step, with the scaling of the rows and random atoms."""
    _check_memory(settings.n_components, rows.shape[1], rows.dtype, with_sums=settings.update is not None)
    scaling = Scaling.of(rows, rows.dtype, settings.device)
    settings.check_scale(scaling, rows.dtype)
    model = initial_autoencoder(
        settings.encoder,
        settings.regularizer.rescaled(1 / scaling.scale),
        settings.n_components,
        rows.shape[1],
        torch.Generator().manual_seed(settings.seed),
        rows.dtype,
        learn_thresholds=settings.target_l0 is not None,
    ).to(settings.device)
    given, target = settings.regularizer, settings.target_l0
    state = TrainingState.start(model, scaling, given, seed=settings.seed, n_steps=n_steps, target_l0=target)
    if settings.update is not None:
        take_first_atoms(state, settings.update, NormalisedBatches(rows, settings.batch_size, state))
    return state


def go_on_from(fitted: Autoencoder, asked: Asked, rows: Rows, settings: Settings) -> TrainingState:
    """Return the state in which a fitted autoencoder, in the units of the data, is trained further on rows.

    Where what it was asked for has not changed, a steered weight and learned thresholds stay.
    """
    norms = torch.linalg.vector_norm(fitted.atoms.detach(), dim=1)
    in_ball = settings.update is not None and settings.update.atoms == "ball"
    if not bool(((norms < 1 + 1e-3) if in_ball else (norms - 1).abs() < 1e-3).all()):
        raise ValueError(
            "partial_fit trains atoms of unit norm, but those of this model have norms from "
            f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"
        )
    _check_same_model(fitted, settings)
    given, target = settings.regularizer, settings.target_l0
    scaling = Scaling.of(rows, fitted.atoms.dtype, fitted.atoms.device)
    model = fitted.in_units(scaling.inverse, scaling.inverse)
    state = TrainingState.start(model, scaling, given, seed=settings.seed, target_l0=target)
    if state.control is not None and asked[1] is not None and given == asked[0]:
        state.control.is_met = True
        state.replace_encoder(model.encoder.with_regularizer(model.encoder.regularizer, learn_thresholds=True))
    else:
        _set_regularizer(state, settings)
    return state


def take_up(state: TrainingState, settings: Settings) -> None:
    """Change a training to the settings of now, where that differs, and begin an order of rows of its own."""
    _check_same_model(state.model, settings)
    target = None if state.control is None else state.control.target
    if settings.regularizer != state.given or (target is None) != (settings.target_l0 is None):
        state.given = settings.regularizer
        state.control = None if settings.target_l0 is None else WeightControl(settings.target_l0)
        _set_regularizer(state, settings)
    elif state.control is not None and settings.target_l0 is not None:
        state.control.target = settings.target_l0
    state.new_data()


def run(
    state: TrainingState,
    rows: Rows,
    settings: Settings,
    n_steps: int | None,
    write: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train for `n_steps` or one pass, meet the target L0, and return the history of these steps.

    A signal ends the training between two steps. A target that cannot be met at the end is a warning; nothing is lost.
    `write` is given the history so far every ``settings.checkpoint_every`` steps and after the last.
    """
    batches = NormalisedBatches(rows, settings.batch_size, state)
    trainer: Trainer | Alternation
    if settings.update is None:
        trainer = Trainer(state, learning_rate=settings.learning_rate, dead_after=settings.dead_after)
    else:
        n_rows = None if n_steps is None else len(rows)
        trainer = Alternation(state, settings.update, dead_after=settings.dead_after, n_rows=n_rows)
    n_steps = -(-len(rows) // settings.batch_size) if n_steps is None else n_steps
    bar = tqdm(total=n_steps, desc="fit", unit="step", disable=None if settings.verbose else True)
    with bar, signals_held_back() as stop:

        def on_step(trainer: Trainer | Alternation) -> bool:
            bar.update()
            if last := trainer.history.last():
                bar.set_postfix(fvu=f"{last['fvu']:.3f}", l0=f"{last['l0']:.1f}", refresh=False)
            is_last = bool(stop) or state.n_done == state.n_steps
            if write is not None and (is_last or state.n_done % settings.checkpoint_every == 0):
                write(trainer.history.arrays())
            return bool(stop)

        trainer.run(batches, n_steps, on_step)
        if isinstance(trainer, Alternation) and trainer.n_dead:
            warnings.warn(
                f"{trainer.n_dead} of {settings.n_components} atoms were used by none of the last {trainer.dead_after} "
                "samples, though replaced by what was reconstructed worst: there are more than these data need",
                stacklevel=4,
            )
        if stop:
            which = "the model is that" if write is None else "the model and the last checkpoint are those"
            warnings.warn(f"{stop.signal_name}: {which} of step {state.n_done}", stacklevel=4)
        if state.control is not None:
            try:
                state.control.meet(state.model.encoder, batches.read(evenly_spaced(len(rows), N_FOR_WEIGHT)))
            except ValueError as error:
                warnings.warn(f"the weight of R is that of the last step: {error}", stacklevel=4)
    return trainer.history.arrays()


def finished(state: TrainingState) -> Autoencoder:
    """Return the autoencoder in the units of the data, whose codes do not depend on other samples."""
    model = state.model.in_units(state.inputs, state.targets)
    if state.given.scope == "batch":
        assert state.prices is not None  # a step has been done
        model.encoder.judge_alone(state.given, (state.prices * state.targets.scale**2).tolist())
    elif state.control is None:
        model.encoder.regularizer = state.given  # the change of units and back would round its weights
    return model


def _set_regularizer(state: TrainingState, settings: Settings) -> None:
    settings.check_scale(state.targets, state.model.atoms.dtype)
    normalised = settings.regularizer.rescaled(1 / state.targets.scale)
    learns = settings.target_l0 is not None
    state.replace_encoder(state.model.encoder.with_regularizer(normalised, learn_thresholds=learns))


def _check_same_model(model: Autoencoder, settings: Settings) -> None:
    """Raise ValueError where parameters were set that a fitted model cannot take up."""
    if len(model.atoms) != settings.n_components:
        raise ValueError(
            f"n_components = {settings.n_components} needs a new fit: the fitted model has {len(model.atoms)}"
        )
    fitted = model.encoder
    if (fitted.name, fitted.get_params()) != (settings.encoder.name, settings.encoder.get_params()):
        raise ValueError(f"encoder = {settings.encoder!r} needs a new fit: that of the fitted model is {fitted!r}")


def _check_memory(n_components: int, n_features: int, dtype: torch.dtype, *, with_sums: bool) -> None:
    """Raise ValueError where a model, its gradient and the moments of Adam exceed the memory of this machine.

    Or, between solved codes, three float64 matrices of the order of the atoms: the sums, new ones, and those of a step.
    """
    needed = 24 * n_components**2 if with_sums else 8 * n_components * n_features * dtype.itemsize
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present:
        raise ValueError(
            f"n_components = {n_components} with {n_features} features needs {needed / 1e9:.3g} GB to train, and this "
            f"machine has {present / 1e9:.3g} GB"
        )
