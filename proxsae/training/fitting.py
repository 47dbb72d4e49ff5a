"""From rows and settings to trained autoencoders in the units of the data: what `fit` and `partial_fit` do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from proxsae.formulas.integers import evenly_spaced
from proxsae.training.alternating import Alternation
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.batches import BatchSource, StreamBatches, batch_source
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.distributed import mesh
from proxsae.training.history import joined
from proxsae.training.inference import N_FOR_WEIGHT, model_of
from proxsae.training.losses import standard
from proxsae.training.resuming import CheckpointStore, check_finite, check_same_start, note_start, resumed_state
from proxsae.training.settings import Settings
from proxsae.training.sharded import check_shardable, gathered_model
from proxsae.training.signals import Stop, signals_held_back
from proxsae.training.starting import continued, fitted_start, start
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Trainer

EXPLODES = 10.0  # an FVU of so many times that of the first step, or 1 where that is less, is a divergence
LASTS = 10  # if no step of so many is better: a few rows of huge norm make single batches as bad as that
FEWEST = 3  # steps that decide at the end of a training with no more steps
MOST_HALVINGS = 3
UNEXPLAINED = 0.5  # the FVU of codes that are zero is 1, and 0 where there is nothing to explain


def train(
    saes: Sequence[Any],
    X: Any,
    Y: Any,
    sample_weight: Any = None,
    *,
    checkpoints: Sequence[CheckpointStore | None],
    init: Any = None,
    in_one_pass: bool = False,
) -> list[Exception | None]:
    """Train estimators on X and its targets, their steps taken in turn, and leave them fitted.

    Each anew, for its ``n_steps``; or `in_one_pass` from what is fitted, if anything is, and ready to go on.

    Returns
    -------
    list of Exception or None
        What has ended the training of each, where that failed; of one alone it is raised.
    """

    def begin(sae: Any, store: CheckpointStore | None) -> Fit:
        n_steps = None if in_one_pass else sae.n_steps
        is_new = not (in_one_pass and hasattr(sae, "components_"))
        return Fit(sae, source, n_steps, is_new=is_new, checkpoints=store, init=init)

    with closing(batch_source(X, Y, sample_weight)) as source:
        fits = list(map(begin, saes, checkpoints))
        drive(fits)
    for sae, fit in zip(saes, fits, strict=True):
        if fit.error is not None:
            continue
        if in_one_pass:
            sae._training = fit.state
        else:
            fit.state.forget_moments()  # before the model is made anew in the units of the data
        sae._set_fitted(finished_model(fit.state), fit.settings.asked, fit.history(), fit.provenance)
    return [fit.error for fit in fits]


class Fit:
    """A training of an estimator, a step at a time.

    With checkpoints a new training goes on from the newest checkpoint, and writes its own between steps. A training
    that diverges goes back to the last checkpoint, or without checkpoints to its first step, with half the step size.

    Parameters
    ----------
    sae : ProxSAE
    source : BatchSource
    n_steps : int or None
        None: one pass over the rows, with a schedule that has no end.
    is_new : bool
        Begin a new training; False: go on from the fitted model.
    checkpoints : CheckpointStore, optional
        Checkpoints of a new training.
    init : ProxSAE or atoms, optional
        What a new training starts from.
    """

    def __init__(
        self,
        sae: Any,
        source: BatchSource,
        n_steps: int | None,
        *,
        is_new: bool,
        checkpoints: CheckpointStore | None = None,
        init: Any = None,
    ) -> None:
        self.init = fitted_start(init)  # before the estimator, which it may be, takes note of other features
        rows = source.checked(sae, reset=is_new)
        self.settings = Settings.of(sae.get_params(deep=False), rows.shape[1])
        self.settings.check_rows(rows)
        rows = source.ordinary(rows, self.settings.max_norm_ratio)
        fitted = model_of(sae) if not is_new else self.init[0] if isinstance(self.init, tuple) else None
        sizes, device = self.settings.blocks, self.settings.device
        self.blocks = FeatureBlocks.of(rows.targets, sizes, device) if fitted is None else fitted.blocks
        self.rows = rows.in_units(self.blocks.units)
        self.mesh = mesh()
        if self.mesh.all.size > 1:
            self._share(is_new=is_new)
        self.source = source
        self.error: Exception | None = None  # the error that ended this training while others go on
        self.n_steps, self.is_new, self.checkpoints = n_steps, is_new, checkpoints
        self.written = 0  # the step of the last checkpoint
        if is_new:
            self._begin(*self._last_good())
        else:
            self._begin(continued(sae, self.rows, self.settings), sae.history_)
        before = 0 if is_new else sae.provenance_.get("tokens_seen", 0) - self.state.n_drawn
        self.seen_before: int = before  # rows of earlier data, which `n_drawn` does not count
        self.last_step = self._one_pass() if n_steps is None else n_steps
        sae._training = None  # should a step fail, the next training starts from what is fitted

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of the rows, where they have one, and how many rows were drawn, repeats included."""
        told = self.source.provenance
        return told and {**told, "tokens_seen": self.seen_before + self.state.n_drawn}

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.error is not None or self.state.n_done >= self.last_step

    def _share(self, *, is_new: bool) -> None:
        """Agree with the other processes on a seed, and refuse what is not shared."""
        settings = self.settings
        if settings.update is not None or settings.regularizer.scope == "batch":
            what = f"{settings.encoder!r}" if settings.update is not None else f"{settings.regularizer}"
            raise ValueError(f"several processes each take a part of a batch, and {what} needs the whole: use one")
        if min(settings.batch_size, len(self.rows)) < self.mesh.all.size:
            raise ValueError(f"a batch has fewer rows than there are processes, {self.mesh.all.size}")
        if self.mesh.is_sharded:
            check_shardable(settings, is_new=is_new, is_fine_tuned=isinstance(self.init, tuple))
        self.settings = replace(settings, seed=self.mesh.all.of_first(settings.seed))

    def _one_pass(self) -> int:
        """Return the number of the step that ends a pass over the rows."""
        if (n_rows := self.source.n_rows(self.rows)) is None:
            raise ValueError("partial_fit makes one pass over the rows, and this stream has no end: give n_tokens")
        return self.state.n_done + -(-n_rows // self.settings.batch_size)

    def step(self) -> None:
        """Do a step, and write a checkpoint where one is due.

        Raises
        ------
        FloatingPointError
            If the training diverges although the step size has been halved three times.
        """
        began = perf_counter()
        try:
            self.trainer.advance(self.batches)
            if isinstance(self.batches, StreamBatches):
                self.waiting.append(self.batches.waited[-1] / (perf_counter() - began))
            if self.is_done:
                self.trainer.history.read()
                self._settle_prices()
            self._check_explosion()
            if self.is_done or (self._is_due and not self._is_exploding):
                self.write()
        except FloatingPointError as error:
            self._go_back(error)

    def _settle_prices(self) -> None:
        """At batch scope and the end of a fit, set the prices by many rows: the mean over batches lags behind.

        Of a stream these are rows of the first block, unless that is too short to be like the rest. Nor do the rows of
        a pass of partial_fit decide alone.
        """
        is_short = len(self.rows) < min(N_FOR_WEIGHT, self.source.n_rows(self.rows) or N_FOR_WEIGHT)
        if self.state.prices is not None and self.n_steps is not None and not is_short:
            some = self.batches.read(evenly_spaced(len(self.rows), N_FOR_WEIGHT))
            with torch.no_grad():
                self.state.prices = self.state.model.encoder.encode(some).prices

    @property
    def _is_due(self) -> bool:
        every = self.settings.checkpoint_every
        return self.checkpoints is not None and self.state.n_done // every > self.written // every

    @property
    def _is_guarded(self) -> bool:
        """Whether divergence is looked for: not where a training goes on, and not between solved codes."""
        return self.is_new and not isinstance(self.trainer, Alternation)

    @property
    def _is_exploding(self) -> bool:
        """Whether the last step may be one of a divergence, to which no training should go back."""
        self.trainer.history.read()
        return self._is_guarded and self.trainer.history.last()["fvu"] > self._explosion

    def write(self) -> None:
        """Write a checkpoint, unless that of this step is there or none is to be written."""
        if self.checkpoints is not None and self.state.n_done != self.written:
            check_finite(self.state)
            if self.mesh.all.rank == 0 or self.mesh.is_sharded:
                self.checkpoints.write(self.state, self.settings.asked, self.history(), self.provenance)
            self.written = self.state.n_done

    def history(self) -> dict[str, Any]:
        """Return the record of all steps, those of a former training included."""
        columns = self.trainer.history.arrays()
        return joined(self.before, columns | ({"waiting": np.array(self.waiting)} if self.waiting else {}))

    def finish(self, stop: Stop) -> None:
        """Meet the target L0, and warn of an end by a signal, zero codes, dead atoms or a divergence."""
        last = {name: values[-1] for name, values in self.trainer.history.arrays().items() if len(values)}
        if last and self._is_guarded and last["fvu"] > self._explosion:  # in fewer steps than tell it from a bad batch
            warnings.warn(
                f"the last step has an FVU of {last['fvu']:.3g}: the training has diverged, unless rows of that batch "
                "are far larger than others; try a smaller learning_rate",
                stacklevel=5,
            )
        elif last.get("l0") == 0 and last["fvu"] > UNEXPLAINED:
            steered = self.state.control is not None
            better = "a larger target_l0" if steered else "a smaller weight, a larger k, or a target_l0"
            warnings.warn(
                f"every code of the last step is zero under {self.settings.regularizer}: take {better}", stacklevel=5
            )
        elif isinstance(self.trainer, Alternation) and self.trainer.n_dead:
            warnings.warn(
                f"{self.trainer.n_dead} of {self.settings.n_components} atoms were used by none of the last "
                f"{self.trainer.dead_after} samples, though replaced by what was reconstructed worst: there are more "
                "than these data need",
                stacklevel=5,
            )
        if stop and not self.is_done:
            self.write()
            signal = stop.signal_name or "a signal to another process"
            which = "the model is that" if self.checkpoints is None else "the model and the last checkpoint are those"
            warnings.warn(
                f"{signal} ended the training early: {which} of step {self.state.n_done} (a Python script goes on)",
                stacklevel=5,
            )
            self._settle_prices()  # not in the checkpoint: a resumed training goes on from the mean over batches
        if self.state.control is not None:
            some = evenly_spaced(len(self.rows), N_FOR_WEIGHT)
            try:
                self.state.control.meet(self.state.model.encoder, self.batches.read(some), self.batches.weights(some))
            except ValueError as error:
                warnings.warn(f"the weight of R is that of the last step: {error}", stacklevel=5)

    def _last_good(self) -> tuple[TrainingState, dict[str, Any]]:
        """Return the newest checkpoint and its history, or a new start."""
        if self.checkpoints is not None and (newest := self.checkpoints.newest()) is not None:
            return resumed_state(*newest, self.rows, self.settings, self.n_steps, self.init), newest[0].history_
        state = start(self.rows, self.settings, self.n_steps, self.init, self.blocks)
        if self.checkpoints is not None:
            note_start(state, self.rows, self.settings, self.init)
        return state, {}

    def _begin(self, state: TrainingState, before: dict[str, Any]) -> None:
        if self.mesh.all.size > 1:
            check_same_start(state, self.rows)
        settings, self.state, self.before = self.settings, state, before
        self.written = state.n_done
        self.waiting: list[float] = []  # the share of each step in which it waited for rows of a stream
        self.batches = self.source.batches(self.rows, settings, state)
        self.trainer: Trainer | Alternation
        if settings.update is None:
            state.statistics = None  # the sums of solved updates are not those of the atoms that gradients leave
            rate = settings.learning_rate * 0.5**state.n_halvings
            losses = standard(state.model.atoms.shape[1], settings.dead_after, settings.loss)
            state.model.atoms.requires_grad_(not settings.is_frozen)
            self.trainer = Trainer(state, learning_rate=rate, dead_after=settings.dead_after, losses=losses)
        else:
            state.forget_moments()  # the atoms move without Adam
            n_rows = self.source.n_rows(self.rows) if self.is_new else None
            self.trainer = Alternation(state, settings.update, dead_after=settings.dead_after, n_rows=n_rows)

    def _check_explosion(self) -> None:
        """Raise FloatingPointError where the FVU of the last steps is far above that of the first."""
        fvus, enough = self.trainer.history.recent("fvu", LASTS), LASTS
        if self.is_done and not self.before and len(fvus) < LASTS:  # all steps of a short training but the first
            fvus, enough = fvus[1:], FEWEST
        if self._is_guarded and len(fvus) >= enough and min(fvus) > self._explosion:
            raise FloatingPointError(f"the loss explodes at step {self.state.n_done}, to an FVU of {fvus[-1]:.3g}")

    @property
    def _explosion(self) -> float:
        """The FVU above which a training has diverged."""
        first: float = self.before["fvu"][0] if self.before else self.trainer.history.first()["fvu"]
        return EXPLODES * max(1.0, first)

    def _go_back(self, error: FloatingPointError) -> None:
        if isinstance(self.trainer, Alternation):
            raise error
        n_halvings = self.state.n_halvings + 1
        if not self.is_new or n_halvings > MOST_HALVINGS:
            tried = f" with the step size halved {MOST_HALVINGS} times" if self.is_new else ""
            raise FloatingPointError(f"{error}{tried}; try a smaller learning_rate") from None
        state, before = self._last_good()
        state.n_halvings = n_halvings
        self._begin(state, before)
        warnings.warn(
            f"{error}: the training goes back to step {state.n_done} with half the step size, "
            f"{self.settings.learning_rate * 0.5**n_halvings:.3g}",
            stacklevel=6,
        )


def drive(fits: Sequence[Fit]) -> None:
    """Do the steps of trainings in turns, always one of the training that is behind; a signal ends all trainings.

    If one of several trainings fails, it keeps its ``error`` and the others go on; a single training raises its error.
    """
    if len(fits) > 1 and mesh().all.size > 1:
        raise ValueError("several processes share one training at a time, fit; not those of fit_many")
    total = sum(fit.last_step - fit.state.n_done for fit in fits)
    is_shown = fits[0].settings.verbose and mesh().all.rank == 0
    bar = tqdm(total=total, desc="fit", unit="step", disable=None if is_shown else True)
    with bar, signals_held_back() as stop:
        # a fit without a step would be none
        while left := [fit for fit in fits if not (fit.is_done or (stop and fit.state.n_done))]:
            fit = min(left, key=lambda fit: fit.state.n_drawn)
            n_done = fit.state.n_done
            try:
                fit.step()
            except Exception as error:  # a full disk, too: the others have their own files
                if len(fits) == 1:
                    raise
                fit.error = error
            bar.update(fit.state.n_done - n_done)
            if last := fit.trainer.history.last():
                bar.set_postfix(fvu=f"{last['fvu']:.3f}", l0=f"{last['l0']:.1f}", refresh=False)
            stop.agree(mesh().all)
        for fit in fits:
            if fit.error is None:
                fit.finish(stop)
    if stop.signal_name and all(fit.is_done for fit in fits) and any(fit.error is None for fit in fits):
        warnings.warn(
            f"{stop.signal_name} came after the last step: the model is whole (a Python script goes on)", stacklevel=4
        )


def finished_model(state: TrainingState) -> Autoencoder | None:
    """Return the autoencoder in the units of the data, whose codes do not depend on other samples.

    Where several processes share the atoms out, the first returns the autoencoder and the others None.
    """
    if (model := gathered_model(state.model)) is None:
        return None
    model = model.in_units(*(scaling.to(model.atoms.device) for scaling in (state.inputs, state.targets)))
    if state.given.scope == "batch":
        assert state.prices is not None  # a step has been done
        model.encoder.judge_alone(state.given, (state.prices * state.targets.scale**2).tolist())
    elif state.control is None:
        model.encoder.regularizer = state.given  # the change of units and back would round its numbers
    elif not state.model.encoder.learns_thresholds:  # as given but for the weights
        given, R = dict(state.given.parameters()), model.encoder.regularizer
        model.encoder.regularizer = R.map_parameters(
            lambda name, value: value if name.endswith("weight") else given.get(name, value)
        )
    return model
