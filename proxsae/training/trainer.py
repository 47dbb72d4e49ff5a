"""One training step after another: batch, forward, losses, backward, step, record."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from proxsae.encoders.pre_activation import Columns
from proxsae.kernels.dispatch import on_cuda
from proxsae.kernels.replay import Replay
from proxsae.training.autoencoder import Forward, row_squared_norms
from proxsae.training.distributed import mesh
from proxsae.training.history import READ_EVERY, History
from proxsae.training.losses import Loss, standard
from proxsae.training.optimizer import move, moved_in_backward
from proxsae.training.state import TrainingState

ENOUGH_FOR_DEAD, EVERY_FOR_DEAD = 512, 4  # AuxK uses one sample of so many, where that leaves enough
DRAW, DRAW_EVERY = 4.0, 8  # decay of W beside the atoms: step sizes a step, in one pass every so many steps


class Batches(Protocol):
    """The source of the batches: a function of the number of rows drawn so far."""

    batch_size: int  # rows of a batch, over all processes of the training

    def after(self, n_drawn: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the inputs and the targets of the next batch, in normalised units, and the weights of its samples."""


class Trainer:
    r"""Minimises the mean over samples of :math:`\frac12 \|y - z D - b\|^2 + R(z)` over encoder, D and b by Adam.

    The atoms keep unit norm: the radial part of their gradient is removed before the step, and they are renormalised
    after it. The part of each row of W that is orthogonal to its atom decays in an amortized encoder where R is
    scale-free, as a cardinality is, or has learned thresholds: this part fits the training data and not new data.

    Parameters
    ----------
    state : TrainingState
        Changed by every step, and complete between two steps.
    learning_rate : float
        Peak step size of Adam. It rises linearly over the first twentieth of ``state.n_steps`` and falls linearly to
        zero over the last quarter; without an end it is constant after 100 steps.
    dead_after : int
        Samples without use after which an atom counts as dead.
    losses : list of functions of a Forward, optional
        The losses to sum; :func:`proxsae.training.losses.standard` by default.

    References
    ----------
    Bricken et al. (2023), Towards monosemanticity (unit atoms).
    """

    warmup, decay = 0.05, 0.25  # shares of the steps

    def __init__(
        self,
        state: TrainingState,
        *,
        learning_rate: float,
        dead_after: int = 100_000,
        losses: list[Loss] | None = None,
    ) -> None:
        self.state = state
        self.model = state.model.train()
        self.learning_rate, self.dead_after = learning_rate, dead_after
        self.losses = standard(state.model.atoms.shape[1], dead_after) if losses is None else losses
        self.history = History(state.n_done)
        self.mesh = mesh()
        self.group = self.mesh.rows
        self.room_for_dead: int | None = None
        self._replay = Replay()

    def advance(self, batches: Batches) -> None:
        """Do a step on the next batch.

        Raises
        ------
        FloatingPointError
            If the loss is NaN or infinite; the message names the step. On a device the loss is checked when it is read.
        """
        self.history.add(self.step(*batches.after(self.state.n_drawn)))
        self.state.n_drawn += batches.batch_size

    def step(self, x: Tensor, y: Tensor | None = None, weight: Tensor | None = None) -> dict[str, Any]:
        """Do one step on a batch of normalised samples and return its record, measured on the device.

        Returns
        -------
        dict
            ``loss``, ``fvu`` (of the batch, about the mean of the data), ``l0``, ``dead`` (fraction of atoms),
            ``learning_rate``.
        """
        control = self.state.control
        if control is not None and not control.is_met:
            weights = None if weight is None else self.group.joined(weight)[:1024]
            control.meet(self.state.model.encoder, self.group.joined(x)[:1024], weights)
        y = x if y is None else y
        rate = self.learning_rate * self._schedule()
        if not on_cuda(x):
            if self.mesh.is_sharded:  # where one process has dead atoms, all take part in AuxK
                self.room_for_dead = self.mesh.atoms.most(self.dead.sum())
            measured = self._compute(x, y, rate, weight)
        else:
            self._make_room()
            on_device = torch.full((), rate, device=x.device)
            is_alone = self.mesh.all.size == 1 and control is None  # nothing but x, y and the rate comes from outside
            given = (x, y, on_device) if weight is None else (x, y, on_device, weight)
            measured = dict(self._replay(self._compute, *given) if is_alone else self._compute(*given))
        if control is not None:
            control.update(self.model.encoder, measured["l0"].item())
        if (prices := measured.pop("prices", None)) is not None:
            before = prices if self.state.prices is None else self.state.prices
            self.state.prices = 0.9 * before + 0.1 * prices
        self.state.n_done += 1
        if self.state.n_done % DRAW_EVERY == 0 and not self.model.is_transcoder:
            self.model.encoder.draw_to(self.model.atoms, min(1.0, DRAW * DRAW_EVERY * rate))
        return {**measured, "learning_rate": rate}

    def _compute(self, x: Tensor, y: Tensor, rate: float | Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Move the parameters, count the use of the atoms, and return the record, without reading from the device."""
        self.state.optimizer.zero_grad(set_to_none=True)  # gradients of a recording that failed half way
        is_noting = not on_cuda(x) and not self.mesh.is_sharded and bool(self.dead.any())
        every = 1 if weight is not None else min(max(1, self.group.size * len(x) // ENOUGH_FOR_DEAD), EVERY_FOR_DEAD)
        noting = Columns(self.dead.nonzero()[:, 0], every) if is_noting else None
        for_dead = {"room_for_dead": self.room_for_dead, "every_for_dead": every}
        forward: Forward = replace(self.model(x, y, weight, noting), **for_dead)
        loss: Tensor = sum(loss(forward) for loss in self.losses)  # type: ignore[assignment]
        step = self.state.optimizer, self.state.model.atoms, rate, self.state.model.blocks
        is_alone = not on_cuda(x) and self.mesh.all.size == 1
        with moved_in_backward(*step) if is_alone else nullcontext():
            loss.backward()  # type: ignore[no-untyped-call]
        n_active, squares = forward.encoding.codes.l0.double(), row_squared_norms(forward.y)
        of_samples = (row_squared_norms(forward.residual.detach()), squares, n_active, torch.ones_like(squares))
        sums = [forward.mean(numbers).double() * len(x) for numbers in of_samples]
        n_rows, means, (error, spread, n_active, total) = self.group.over_all(len(x), [loss.detach()], sums)
        if not is_alone:
            self.group.sum_gradients(self.model.parameters(), len(x) / n_rows)
            move(*step)
        unused_for = self.state.model.unused_for
        unused_for += n_rows
        unused_for.masked_fill_(self.group.any(forward.encoding.codes.active_atoms), 0)
        measured = {
            "loss": means[0],
            "fvu": error / spread.clamp(min=1e-30),
            "l0": n_active / total,
            "dead": self.mesh.atoms.mean(self.dead),
        }
        prices = forward.encoding.prices
        return measured if prices is None else {**measured, "prices": prices}

    def _make_room(self) -> None:
        """Set now and then how many dead atoms steps on the device have room for: counting at every step is slow."""
        if self.room_for_dead is None or self.state.n_done % READ_EVERY == 0:
            n_dead = self.mesh.atoms.most(self.dead.sum())
            room = min(max(64, 1 << (n_dead - 1).bit_length()), len(self.dead)) if n_dead else 0
            if room != self.room_for_dead:
                self.room_for_dead, self._replay = room, Replay()

    @property
    def dead(self) -> Tensor:
        """Which atoms no sample has used for `dead_after` samples."""
        return self.state.model.unused_for >= self.dead_after

    def _schedule(self) -> float:
        step, n_steps = self.state.n_done + 1, self.state.n_steps
        if n_steps is None:
            return min(1.0, step / 100)
        rise = step / max(1.0, self.warmup * n_steps)
        fall = (n_steps - step + 1) / max(1.0, self.decay * n_steps)
        return min(1.0, rise, max(fall, 0.0))
