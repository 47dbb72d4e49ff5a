"""From rows and wishes to a trained autoencoder in the units of the data: what `fit` and `partial_fit` do."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, fields
from typing import Any

import torch
from sklearn.utils import check_random_state
from torch import Tensor
from tqdm import tqdm

from proxsae.data.rows import BatchOrder, Rows, checked_rows, evenly_spaced, ordinary, provenance_of, torch_device
from proxsae.dictionary import Update
from proxsae.encoders import Encoder
from proxsae.encoders.base import encoder_of
from proxsae.regularizers import Cardinality, Regularizer, parse
from proxsae.training.alternating import Alternation, checked_update, take_first_atoms
from proxsae.training.autoencoder import Autoencoder, initial_autoencoder
from proxsae.training.history import joined
from proxsae.training.inference import N_FOR_WEIGHT, model_of
from proxsae.training.scaling import MAX_ROWS, Scaling
from proxsae.training.signals import signals_held_back
from proxsae.training.sparsity import WeightControl, check_steerable
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Trainer

Asked = tuple[Regularizer, float | None]  # R in the units of the data and the target L0 that a model was fitted for


@dataclass(frozen=True)
class Wishes:
    """The parameters of the estimator as they are at the time of a call, checked against one another."""

    regularizer: Regularizer  # in the units of the data
    encoder: Encoder  # its options
    update: Update | None  # of the dictionary between solved codes; None: gradients
    n_components: int
    target_l0: float | None
    learning_rate: float
    batch_size: int
    dead_after: int
    max_norm_ratio: float | None
    device: torch.device
    seed: int
    verbose: bool

    @property
    def asked(self) -> Asked:
        """What the model is then fitted for."""
        return self.regularizer, self.target_l0

    @classmethod
    def of(cls, parameters: dict[str, Any], n_features: int) -> Wishes:
        """Return what the parameters wish for data with so many features.

        Raises
        ------
        ValueError
            If parameters do not fit one another, in one sentence.
        """
        given = {field.name: parameters[field.name] for field in fields(cls) if field.name in parameters}
        n_components = 8 * n_features if given["n_components"] is None else int(given["n_components"])
        R = given["regularizer"]
        R = parse(R) if isinstance(R, str) else R
        encoder = encoder_of(given["encoder"])
        wishes = cls(
            **{
                **given,
                "regularizer": Cardinality(max(1, min(32, n_components // 8))) if R is None else R,
                "n_components": n_components,
                "encoder": encoder,
                "update": checked_update(given["update"], encoder),
                "learning_rate": float(given["learning_rate"]),
                "device": torch_device(given["device"]),
                "seed": int(check_random_state(parameters["random_state"]).randint(2**31 - 1)),
                "verbose": bool(given["verbose"]),
            }
        )
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
        scaling.check_weights(self.regularizer, dtype, is_steered=self.target_l0 is not None)


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
    sae: Any, X: Any, n_steps: int | None, *, is_new: bool
) -> tuple[TrainingState, Asked, dict[str, Any], dict[str, Any]]:
    """Train an estimator on X, from a new start or from what is fitted: for `n_steps`, or for one pass.

    Returns
    -------
    state, asked, history, provenance
        The history includes what was before; the provenance is what X says of itself.
    """
    rows = checked_rows(sae, X, reset=is_new)
    wishes = Wishes.of(sae.get_params(deep=False), rows.shape[1])
    rows = ordinary(rows, wishes.max_norm_ratio, MAX_ROWS)
    state = start(rows, wishes, n_steps) if is_new else continued(sae, rows, wishes)
    sae._training = None  # should a step fail, the next training starts from what is fitted
    history = run(state, rows, wishes, n_steps)
    return state, wishes.asked, history if is_new else joined(sae.history_, history), provenance_of(X)


def continued(sae: Any, rows: Rows, wishes: Wishes) -> TrainingState:
    """Return the state in which a fitted estimator is trained further: the one it keeps, or a new one."""
    if sae._training is None:
        return go_on_from(model_of(sae), sae._asked, rows, wishes)
    state: TrainingState = sae._training.to(wishes.device)
    take_up(state, wishes)
    return state


def start(rows: Rows, wishes: Wishes, n_steps: int | None) -> TrainingState:
    """Return the state before the first step, with the scaling of the rows and random atoms."""
    _check_memory(wishes.n_components, rows.shape[1], rows.dtype, with_sums=wishes.update is not None)
    scaling = Scaling.of(rows, rows.dtype, wishes.device)
    wishes.check_scale(scaling, rows.dtype)
    model = initial_autoencoder(
        wishes.encoder,
        wishes.regularizer.rescaled(1 / scaling.scale),
        wishes.n_components,
        rows.shape[1],
        torch.Generator().manual_seed(wishes.seed),
        rows.dtype,
        learn_thresholds=wishes.target_l0 is not None,
    ).to(wishes.device)
    given, target = wishes.regularizer, wishes.target_l0
    state = TrainingState.start(model, scaling, given, seed=wishes.seed, n_steps=n_steps, target_l0=target)
    if wishes.update is not None:
        take_first_atoms(state, wishes.update, NormalisedBatches(rows, wishes.batch_size, state))
    return state


def go_on_from(fitted: Autoencoder, asked: Asked, rows: Rows, wishes: Wishes) -> TrainingState:
    """Return the state in which a fitted autoencoder, in the units of the data, is trained further on rows.

    Where what it was asked for has not changed, a steered weight and learned thresholds stay.
    """
    norms = torch.linalg.vector_norm(fitted.atoms.detach(), dim=1)
    in_ball = wishes.update is not None and wishes.update.atoms == "ball"
    if not bool(((norms < 1 + 1e-3) if in_ball else (norms - 1).abs() < 1e-3).all()):
        raise ValueError(
            "partial_fit trains atoms of unit norm, but those of this model have norms from "
            f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"
        )
    _check_same_model(fitted, wishes)
    given, target = wishes.regularizer, wishes.target_l0
    scaling = Scaling.of(rows, fitted.atoms.dtype, fitted.atoms.device)
    model = fitted.in_units(scaling.inverse, scaling.inverse)
    state = TrainingState.start(model, scaling, given, seed=wishes.seed, target_l0=target)
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


def run(state: TrainingState, rows: Rows, wishes: Wishes, n_steps: int | None) -> dict[str, Any]:
    """Train for `n_steps` or one pass, meet the target L0, and return the history of these steps.

    A signal ends the training between two steps. A target that cannot be met at the end is a warning; nothing is lost.
    """
    batches = NormalisedBatches(rows, wishes.batch_size, state)
    trainer: Trainer | Alternation
    if wishes.update is None:
        trainer = Trainer(state, learning_rate=wishes.learning_rate, dead_after=wishes.dead_after)
    else:
        n_rows = None if n_steps is None else len(rows)
        trainer = Alternation(state, wishes.update, dead_after=wishes.dead_after, n_rows=n_rows)
    n_steps = -(-len(rows) // wishes.batch_size) if n_steps is None else n_steps
    bar = tqdm(total=n_steps, desc="fit", unit="step", disable=None if wishes.verbose else True)
    with bar, signals_held_back() as stop:

        def on_step(trainer: Trainer | Alternation) -> bool:
            bar.update()
            if last := trainer.history.last():
                bar.set_postfix(fvu=f"{last['fvu']:.3f}", l0=f"{last['l0']:.1f}", refresh=False)
            return bool(stop)

        trainer.run(batches, n_steps, on_step)
        if isinstance(trainer, Alternation) and trainer.n_dead:
            warnings.warn(
                f"{trainer.n_dead} of {wishes.n_components} atoms were used by none of the last {trainer.dead_after} "
                "samples, though replaced by what was reconstructed worst: there are more than these data need",
                stacklevel=4,
            )
        if stop:
            warnings.warn(f"{stop.signal_name}: the model is that of step {state.n_done}", stacklevel=4)
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
    if (fitted.name, fitted.get_params()) != (wishes.encoder.name, wishes.encoder.get_params()):
        raise ValueError(f"encoder = {wishes.encoder!r} needs a new fit: that of the fitted model is {fitted!r}")


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
