"""From rows and wishes to a trained autoencoder in the units of the data: what `fit` and `partial_fit` do."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from proxsae.data.rows import BatchOrder, Rows, evenly_spaced, ordinary, torch_device
from proxsae.encoders import Encoder
from proxsae.encoders.base import encoder_of
from proxsae.regularizers import Cardinality, Regularizer, parse
from proxsae.training.autoencoder import Autoencoder, initial_autoencoder, per_sample
from proxsae.training.scaling import MAX_ROWS, Scaling
from proxsae.training.signals import signals_held_back
from proxsae.training.sparsity import WeightControl, check_steerable
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Trainer

N_FOR_WEIGHT = 4096  # rows on which the weight of R is set


Asked = tuple[Regularizer, float | None]  # R in the units of the data and the target L0 that a model was fitted for
Fitted = tuple[Autoencoder, Asked]


@dataclass(frozen=True)
class Wishes:
    """The parameters of the estimator as they are at the time of a call, checked against one another."""

    regularizer: Regularizer  # in the units of the data
    encoder: Encoder  # its options
    n_components: int
    target_l0: float | None
    learning_rate: float
    batch_size: int
    dead_after: int
    max_norm_ratio: float | None
    device: torch.device
    verbose: bool

    @classmethod
    def of(cls, parameters: dict[str, Any], n_features: int) -> Wishes:
        """Return what the parameters wish for data with so many features.

        Raises
        ------
        ValueError
            If parameters do not fit one another, in one sentence.
        """
        given = {field.name: parameters[field.name] for field in fields(cls)}
        n_components = 8 * n_features if given["n_components"] is None else int(given["n_components"])
        R = given["regularizer"]
        R = parse(R) if isinstance(R, str) else R
        R = Cardinality(max(1, min(32, n_components // 8))) if R is None else R
        made = {"regularizer": R, "n_components": n_components, "encoder": encoder_of(given["encoder"])}
        rate, device = float(given["learning_rate"]), torch_device(given["device"])
        wishes = cls(**{**given, **made, "learning_rate": rate, "device": device, "verbose": bool(given["verbose"])})
        wishes.check()
        return wishes

    def check(self) -> None:
        """Raise ValueError where the parameters do not fit one another."""
        R = self.regularizer
        if isinstance(R, Cardinality) and R.k > self.n_components:
            raise ValueError(f"k must not exceed n_components: {R} with {self.n_components} components")
        R.check_width(self.n_components)
        if sentence := self.encoder.refuses(R):
            raise ValueError(sentence)
        if self.target_l0 is None:
            return
        check_steerable(R)
        if not self.target_l0 < self.n_components:
            raise ValueError(
                f"target_l0 must lie between 0 and n_components = {self.n_components}, got {self.target_l0}"
            )

    def check_scale(self, scaling: Scaling, dtype: torch.dtype) -> None:
        """Raise ValueError where the weights of R cannot be written in the units of the training."""
        is_squared = self.target_l0 is not None or self.regularizer.scope == "batch"
        scaling.check_weights(self.regularizer, dtype, is_squared)


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
    rows: Rows, wishes: Wishes, n_steps: int | None, seed: int, state: TrainingState | None, fitted: Fitted | None
) -> tuple[TrainingState, dict[str, Any]]:
    """Train for `n_steps`, or for one pass without an end in sight; return the state and the history of the steps.

    Parameters
    ----------
    rows : Rows
    wishes : Wishes
    n_steps : int or None
    seed : int
    state : TrainingState or None
        To go on with.
    fitted : pair of Autoencoder and Asked, or None
        Without a state: to go on from. Without either the atoms are random.
    """
    rows = ordinary(rows, wishes.max_norm_ratio, MAX_ROWS)
    if state is not None:
        take_up(state.to(wishes.device), wishes)
    elif fitted is not None:
        state = go_on_from(*fitted, rows, wishes, seed)
    else:
        state = start(rows, wishes, seed, n_steps)
    return state, run(state, rows, wishes, -(-len(rows) // wishes.batch_size) if n_steps is None else n_steps)


def start(rows: Rows, wishes: Wishes, seed: int, n_steps: int | None) -> TrainingState:
    """Return the state before the first step, with the scaling of the rows and random atoms."""
    _check_memory(wishes.n_components, rows.shape[1], rows.dtype)
    scaling = Scaling.of(rows, rows.dtype, wishes.device)
    wishes.check_scale(scaling, rows.dtype)
    model = initial_autoencoder(
        wishes.encoder,
        wishes.regularizer.rescaled(1 / scaling.scale),
        wishes.n_components,
        rows.shape[1],
        torch.Generator().manual_seed(seed),
        rows.dtype,
        learn_thresholds=wishes.target_l0 is not None,
    ).to(wishes.device)
    given, target = wishes.regularizer, wishes.target_l0
    return TrainingState.start(model, scaling, given, seed=seed, n_steps=n_steps, target_l0=target)


def go_on_from(fitted: Autoencoder, asked: Asked, rows: Rows, wishes: Wishes, seed: int) -> TrainingState:
    """Return the state in which a fitted autoencoder, in the units of the data, is trained further on rows.

    Where what it was asked for has not changed, a steered weight and learned thresholds stay.
    """
    norms = torch.linalg.vector_norm(fitted.atoms.detach(), dim=1)
    if not bool(((norms - 1).abs() < 1e-3).all()):
        raise ValueError(
            "partial_fit trains atoms of unit norm, but those of this model have norms from "
            f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"
        )
    _check_same_model(fitted, wishes)
    given, target = wishes.regularizer, wishes.target_l0
    scaling = Scaling.of(rows, fitted.atoms.dtype, fitted.atoms.device)
    model = fitted.in_units(scaling.inverse, scaling.inverse)
    state = TrainingState.start(model, scaling, given, seed=seed, target_l0=target)
    if state.control is not None and asked[1] is not None and given == asked[0]:
        state.control.is_met = True
        state.replace_encoder(model.encoder.with_regularizer(model.encoder.regularizer, learn_thresholds=True))
    else:
        _set_regularizer(state, wishes)
    return state


def take_up(state: TrainingState, wishes: Wishes) -> None:
    """Change a training to what is wished now, where that differs, and begin an order of rows of its own."""
    _check_same_model(state.model, wishes)
    target = None if state.control is None else state.control.target
    if wishes.regularizer != state.given or (target is None) != (wishes.target_l0 is None):
        state.given = wishes.regularizer
        state.control = None if wishes.target_l0 is None else WeightControl(wishes.target_l0)
        _set_regularizer(state, wishes)
    elif state.control is not None and wishes.target_l0 is not None:
        state.control.target = wishes.target_l0
    state.new_data()


def run(state: TrainingState, rows: Rows, wishes: Wishes, n_steps: int) -> dict[str, Any]:
    """Train, meet the target L0, and return the history of these steps; a signal ends it between two steps."""
    batches = NormalisedBatches(rows, wishes.batch_size, state)
    trainer = Trainer(state, learning_rate=wishes.learning_rate, dead_after=wishes.dead_after)
    bar = tqdm(total=n_steps, desc="fit", unit="step", disable=None if wishes.verbose else True)
    with bar, signals_held_back() as stop:

        def on_step(trainer: Trainer) -> bool:
            bar.update()
            if last := trainer.history.last():
                bar.set_postfix(fvu=f"{last['fvu']:.3f}", l0=f"{last['l0']:.1f}", refresh=False)
            return bool(stop)

        trainer.run(batches, n_steps, on_step)
        if stop:
            warnings.warn(f"{stop.signal_name}: the model is that of step {state.n_done}", stacklevel=5)
        if state.control is not None:
            try:
                state.control.meet(state.model.encoder, batches.read(evenly_spaced(len(rows), N_FOR_WEIGHT)))
            except ValueError as error:
                warnings.warn(f"the weight of R is that of the last step: {error}", stacklevel=5)
    return trainer.history.arrays()


def calibrate(encoder: Encoder, rows: Rows, target_l0: float, training: TrainingState | None) -> None:
    """Set the weight of R so that codes of the rows have the target L0, and that of the training along with it."""
    x = rows.read(evenly_spaced(len(rows), N_FOR_WEIGHT), encoder.dtype, encoder.device)
    factor = WeightControl(target_l0).meet(encoder, x)
    if training is not None:
        training.model.encoder.scale_weight(factor)


def finished(state: TrainingState) -> Autoencoder:
    """Return the autoencoder in the units of the data, whose codes do not depend on other samples."""
    model = state.model.in_units(state.inputs, state.targets)
    if state.given.scope == "batch":
        smallest_gain = 0.0 if state.smallest_gain is None else float(state.smallest_gain)
        model.encoder.regularizer = per_sample(state.given, smallest_gain * state.targets.scale**2)
    elif state.control is None:
        model.encoder.regularizer = state.given  # the change of units and back would round its weights
    return model


def _set_regularizer(state: TrainingState, wishes: Wishes) -> None:
    wishes.check_scale(state.targets, state.model.atoms.dtype)
    normalised = wishes.regularizer.rescaled(1 / state.targets.scale)
    learns = wishes.target_l0 is not None
    state.replace_encoder(state.model.encoder.with_regularizer(normalised, learn_thresholds=learns))


def _check_same_model(model: Autoencoder, wishes: Wishes) -> None:
    """Raise ValueError where parameters were set that a fitted model cannot take up."""
    if len(model.atoms) != wishes.n_components:
        raise ValueError(
            f"n_components = {wishes.n_components} needs a new fit: the fitted model has {len(model.atoms)}"
        )
    fitted = model.encoder
    if (fitted.kind, fitted.get_params()) != (wishes.encoder.kind, wishes.encoder.get_params()):
        raise ValueError(f"encoder = {wishes.encoder!r} needs a new fit: that of the fitted model is {fitted!r}")


def _check_memory(n_components: int, n_features: int, dtype: torch.dtype) -> None:
    """Raise ValueError where a model, its gradient and the moments of Adam exceed the memory of this machine."""
    needed = 8 * n_components * n_features * dtype.itemsize
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present:
        raise ValueError(
            f"n_components = {n_components} with {n_features} features needs {needed / 1e9:.3g} GB to train, and this "
            f"machine has {present / 1e9:.3g} GB"
        )
