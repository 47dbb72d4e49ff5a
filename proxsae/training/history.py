"""The record of a training: a few numbers a step, which stay on the device until they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

MEASURED = ("loss", "fvu", "l0", "dead")
NAMES = (*MEASURED, "learning_rate")
READ_EVERY = 50  # steps on a device between two readings, each of which waits for it


class History:
    """Records of steps, read from the CPU at once and from a device now and then.

    Parameters
    ----------
    n_before : int
        Steps done before the first record.
    """

    def __init__(self, n_before: int = 0) -> None:
        self.n_before = n_before
        self._waiting: list[tuple[Tensor, float]] = []
        self._read: list[list[float]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of a step: scalar tensors for MEASURED, and the learning rate.

        Raises
        ------
        FloatingPointError
            If a loss that is read is NaN or infinite; the message names the step.
        """
        measured = torch.stack([record[name].double() for name in MEASURED])
        self._waiting.append((measured, record["learning_rate"]))
        if measured.device.type == "cpu" or len(self._waiting) == READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read what waits on the device."""
        if not self._waiting:
            return
        rows = torch.stack([measured for measured, _ in self._waiting]).tolist()
        rates = [rate for _, rate in self._waiting]
        self._waiting = []
        for row, rate in zip(rows, rates, strict=True):
            if not np.isfinite(row[0]):
                raise FloatingPointError(f"the loss is {row[0]} at step {self.n_before + len(self._read) + 1}")
            self._read.append([*row, rate])

    def first(self) -> dict[str, float]:
        """Return the first record; empty before it is read."""
        return dict(zip(NAMES, self._read[0], strict=True)) if self._read else {}

    def recent(self, name: str, n: int) -> list[float]:
        """Return one number of each of the last `n` records that are read."""
        return [row[NAMES.index(name)] for row in self._read[-n:]]

    def last(self) -> dict[str, float]:
        """Return the record read last; empty before the first."""
        return dict(zip(NAMES, self._read[-1], strict=True)) if self._read else {}

    def arrays(self) -> dict[str, Any]:
        """Return ``step`` and the records as one array a name."""
        self.read()
        columns = np.array(self._read, dtype=np.float64).reshape(-1, len(NAMES)).T
        return {"step": np.arange(1, len(self._read) + 1), **dict(zip(NAMES, columns, strict=True))}


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return two histories as one: the second goes on counting steps, and a record that one of them lacks is NaN."""
    n_before = int(first["step"][-1]) if len(first.get("step", ())) else 0
    second = {**second, "step": second["step"] + n_before}

    def column(history: dict[str, Any], name: str) -> Any:
        return history[name] if name in history else np.full(len(history["step"]), np.nan)

    if not n_before:
        return second
    return {name: np.concatenate([column(first, name), column(second, name)]) for name in {**second, **first}}
