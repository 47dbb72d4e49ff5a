"""Data parallel trainings: every process takes a part of each batch, and all take the same step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = ["Group", "data_parallel"]


class Group:
    """The processes of a training; one alone by default.

    Parameters
    ----------
    rank, size : int
        Of this process, and how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def part(self, n_rows: int) -> slice:
        """Return which rows of a batch this process takes; in the order of the ranks they are the batch."""
        return slice(n_rows * self.rank // self.size, n_rows * (self.rank + 1) // self.size)

    def over_all(
        self, n_rows: int, means: Sequence[Tensor], sums: Sequence[Tensor]
    ) -> tuple[int, list[Tensor], list[Tensor]]:
        """Return the number of rows of the batch, and scalars over all of them.

        Parameters
        ----------
        n_rows : int
            Of this process.
        means, sums : lists of scalar tensors
            Over these rows.
        """
        if self.size == 1:
            return n_rows, list(means), list(sums)
        ones = means[0].new_ones((), dtype=torch.float64)
        both = torch.stack([n_rows * ones, *(n_rows * mean.double() for mean in means), *(s.double() for s in sums)])
        self._summed(both)
        return int(both[0]), list(both[1 : 1 + len(means)] / both[0]), list(both[1 + len(means) :])

    def sum_gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        """Put the gradient of the mean over the whole batch in place of that over the part of this process."""
        if self.size > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    self._summed(parameter.grad.mul_(share))

    def any(self, flags: Tensor) -> Tensor:
        """Return where a flag is true in some process."""
        if self.size == 1:
            return flags
        return self._summed(flags.int()) > 0

    def joined(self, x: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of their ranks."""
        if self.size == 1:
            return x
        parts: list[Any] = [None] * self.size
        with lost_ranks_named():
            distributed.all_gather_object(parts, x.cpu())
        return torch.cat(parts).to(x.device)

    def of_first(self, value: Any) -> Any:
        """Return the value that the first process has."""
        if self.size == 1:
            return value
        values = [value]
        with lost_ranks_named():
            distributed.broadcast_object_list(values)
        return values[0]

    def _summed(self, tensor: Tensor) -> Tensor:
        with lost_ranks_named():
            distributed.all_reduce(tensor)
        return tensor


_present = [Group()]


def group() -> Group:
    """Return the processes that the trainings of this process are shared with."""
    return _present[-1]


@contextmanager
def data_parallel() -> Iterator[Group]:
    """Share the trainings within this context with the other processes that ``torchrun`` has started.

    Each process calls ``fit`` with the same parameters and rows, and reads its part of each batch; the gradients are
    summed over all before the step, which all take. The model is that of one process up to the rounding of sums. The
    first process alone writes checkpoints. Without ``torchrun`` one process trains as ever.

    Raises
    ------
    ConnectionError
        In a process whose others are lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or group().size > 1:
        yield group()
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with lost_ranks_named():
        distributed.init_process_group("nccl" if on_cuda else "gloo")
    _present.append(Group(distributed.get_rank(), size))
    try:
        yield group()
    finally:
        _present.pop()
        distributed.destroy_process_group()


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Turn what the library says of a lost process into a sentence."""
    try:
        yield
    except RuntimeError as error:  # distributed.DistBackendError is one, and gloo raises it bare
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConnectionError(
            f"another process of this training is lost, the last checkpoint is as it was: {reason}"
        ) from None
