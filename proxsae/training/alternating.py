"""Alternate between solved codes and steps of the dictionary: what trains in place of gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from proxsae.dictionary import Learned, Online, Statistics, Update
from proxsae.dictionary.rules import update_of
from proxsae.encoders import Encoder, Solved
from proxsae.formulas.arrays import to_numpy
from proxsae.formulas.integers import evenly_spaced
from proxsae.solvers.threads import blocks_of, in_threads, one_blas_thread
from proxsae.training.history import History
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Batches

ROWS_TO_START = 16_384  # from which the first atoms are taken, or four times as many as the atoms
ROWS_OF_ERRORS = 256  # rows whose errors are computed at a time
SAMPLES_BEFORE = 100_000  # samples that a fitted dictionary counts as when it is trained further


def is_frozen(update: Any, encoder: Encoder) -> bool:
    """Whether the dictionary is not to move; raise ValueError where nothing would be left to learn."""
    if not (isinstance(update, str) and update == "frozen"):
        return False
    if isinstance(encoder, Solved):
        raise ValueError(
            'update = "frozen" leaves nothing to learn where codes are solved: proxsae.solve gives them, or '
            "ProxSAE.from_parts(D, b, Solved.of(R))"
        )
    return True


def checked_update(update: Any, encoder: Encoder) -> Update | None:
    """Return the update of the dictionary between solved codes, or None where D moves by gradients.

    Raises
    ------
    ValueError
        If `update` is no update, or the codes are not solved.
    """
    is_solved = isinstance(encoder, Solved)
    if isinstance(update, str) and update == "auto":
        return Online() if is_solved else None
    if isinstance(update, str) and update in ("gradient", "frozen"):
        return None
    wished = update_of(update)
    if not is_solved:
        raise ValueError(
            f'update = "{wished.name}" needs solved codes, encoder="solved": those of "{encoder.name}" are learned'
        )
    return wished


class Alternation:
    """Solves the codes of a batch and moves D and b by an update, over and over.

    Parameters
    ----------
    state : TrainingState
        Its encoder must be solved. Changed by every step, and complete between two steps.
    update : Update
    dead_after : int
        Samples without use after which an atom is replaced.
    n_rows : int or None
        Number of rows, where the rows are drawn again and again: the sums then hold at most one pass, and an atom that
        no row of a pass uses is replaced. None: the rows are a stream.
    """

    def __init__(self, state: TrainingState, update: Update, *, dead_after: int, n_rows: int | None) -> None:
        self.state = state
        self.model = state.model.eval()
        self.update = update
        self.dead_after = dead_after if n_rows is None else min(dead_after, n_rows)
        self.n_rows = n_rows
        self.history = History(state.n_done)

    def advance(self, batches: Batches) -> None:
        """Do a step on the next batch."""
        with one_blas_thread(), _one_torch_thread():
            x, _, weight = batches.after(self.state.n_drawn)
            self.history.add(self.step(x, weight))
        self.state.n_drawn += batches.batch_size

    @torch.no_grad()
    def step(self, x: Tensor, weight: Tensor | None = None) -> dict[str, Any]:
        """Do one step on a batch of normalised samples and return its record.

        The record is that of :meth:`proxsae.training.Trainer.step`, measured on the codes before the dictionary moves;
        its learning rate is 0.
        """
        state, R = self.state, self.model.encoder.regularizer
        if state.control is not None and not state.control.is_met:
            state.control.meet(self.model.encoder, x[:1024], None if weight is None else weight[:1024])
            R = self.model.encoder.regularizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = self.model.encoder.codes(x)
        # In the dtype of the codes: what rounding puts outside of a ball in float32 is far outside in float64.
        sparse = codes.to_csr()
        penalties = np.asarray(R.value_unchecked(sparse.toarray()), dtype=np.float64)
        X, Z = _float64(x), csr_array(sparse, dtype=np.float64)
        weights = np.ones(len(X)) if weight is None else _float64(weight)
        before = self._learned(Z, weights)
        errors = _squared_errors(X, Z, before)
        loss = float(np.average(0.5 * errors + penalties, weights=weights))
        room = np.inf if self.n_rows is None else max(0, self.n_rows - len(X))
        random = np.random.default_rng([state.seed, state.n_done])
        after = before.step(X, Z, R, self.update, random, most_weight=room, dead_after=self.dead_after, weights=weights)
        _take(state, after)
        state.n_done += 1
        l0 = float(np.average(np.diff(Z.indptr), weights=weights))
        if state.control is not None:
            state.control.update(self.model.encoder, l0)
        fvu = float(weights @ errors) / max(float(weights @ np.square(X).sum(axis=1)), 1e-30)
        record = {"loss": loss, "fvu": fvu, "l0": l0}
        record["dead"] = self.n_dead / len(state.model.atoms)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in record.items()} | {
            "learning_rate": 0.0
        }

    @property
    def n_dead(self) -> int:
        """How many atoms, replaced or not, no code has used for `dead_after` samples."""
        return int((self.state.model.unused_for >= self.dead_after).sum())

    def _learned(self, Z: csr_array, weights: Any) -> Learned:
        """Return the dictionary as it is; without sums it stands for samples with codes as large as these."""
        D, b = to_numpy(self.model.atoms), _float64(self.model.bias)  # products with float32 atoms take half the time
        if self.state.statistics is None:
            square = float(np.average((Z**2).sum(axis=1), weights=weights)) / len(D)
            self.state.statistics = Statistics.standing_for(D, b, SAMPLES_BEFORE, square)
        unused_for = to_numpy(self.model.unused_for)
        return Learned(D, b, self.state.statistics, unused_for, self.state.n_done)


@torch.no_grad()
def take_first_atoms(state: TrainingState, update: Update, batches: Any) -> None:
    """Put the atoms that the update takes from the rows in place of the initial ones."""
    n_components = len(state.model.atoms)
    x = batches.read(evenly_spaced(len(batches.rows), max(ROWS_TO_START, 4 * n_components)))
    _take(state, Learned.start(_float64(x), n_components, update, np.random.default_rng(state.seed)))


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Give Torch one thread: it has little to do here, and more threads spin and take the cores from the solver."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)


def _take(state: TrainingState, learned: Learned) -> None:
    state.model.atoms.copy_(torch.from_numpy(learned.atoms))
    state.model.bias.copy_(torch.from_numpy(learned.intercept))
    state.model.unused_for.copy_(torch.from_numpy(learned.unused_for))
    state.statistics = learned.statistics


def _squared_errors(X: Any, Z: csr_array, learned: Learned) -> Any:
    """Return ||x - b - z D||^2 of every sample."""

    def of(rows: slice) -> Any:
        return np.square(X[rows] - learned.intercept - Z[rows] @ learned.atoms).sum(axis=1)

    return np.concatenate(in_threads(of, blocks_of(len(X), ROWS_OF_ERRORS)))


def _float64(x: Tensor) -> Any:
    return to_numpy(x).astype(np.float64)
