"""Trainings by several processes: each takes a part of each batch, or of the atoms, and all take the same step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from proxsae.formulas.integers import checked_count

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Group", "Mesh", "data_parallel"]

# Messages of gloo, NCCL and the store about a process that is gone; their other errors are faults of this process.
LOST = re.compile(
    "gloo/transport|connection (was )?(closed|reset|refused)|broken pipe|timed out|timeout|remote (process|peer)"
    "|failed to (recv|send|connect)|communicator was aborted",
    re.IGNORECASE,
)


class Group:
    """Processes that compute together; one alone by default.

    Parameters
    ----------
    rank, size : int
        The rank of this process, and the number of processes.
    handle : ProcessGroup, optional
        All processes by default.
    """

    def __init__(self, rank: int = 0, size: int = 1, handle: Any = None) -> None:
        self.rank, self.size, self.handle = rank, size, handle

    def part(self, n: int) -> slice:
        """Return the slice of n rows or atoms that this process takes; the slices of all ranks, in order, are all n."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def over_all(
        self, n_rows: int, means: Sequence[Tensor], sums: Sequence[Tensor]
    ) -> tuple[int, list[Tensor], list[Tensor]]:
        """Return the number of rows of the batch, and scalars over all of them.

        Parameters
        ----------
        n_rows : int
        means, sums : lists of scalar tensors
            Means and sums over the rows of this process.
        """
        if self.size == 1:
            return n_rows, list(means), list(sums)
        ones = means[0].new_ones((), dtype=torch.float64)
        both = torch.stack([n_rows * ones, *(n_rows * mean.double() for mean in means), *(s.double() for s in sums)])
        self.summed(both)
        return int(both[0]), list(both[1 : 1 + len(means)] / both[0]), list(both[1 + len(means) :])

    def sum_gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        """Put the gradient of the mean over the whole batch in place of that over the part of this process."""
        if self.size > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    self.summed(parameter.grad.mul_(share))

    def any(self, flags: Tensor) -> Tensor:
        """Return where a flag is true in some process."""
        if self.size == 1:
            return flags
        return self.summed(flags.int()) > 0

    def mean(self, flags: Tensor) -> Tensor:
        """Return the share of the flags of all processes that are true."""
        if self.size == 1:
            return flags.float().mean()
        both = self.summed(torch.stack([flags.sum(), flags.new_tensor(len(flags), dtype=torch.int64)]))
        return both[0] / both[1]

    def most(self, number: Tensor) -> int:
        """Return the largest of one whole number a process."""
        if self.size > 1:
            with lost_ranks_named():
                distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self.handle)
        return int(number)

    def joined(self, x: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of their ranks."""
        if self.size == 1:
            return x
        lengths = torch.zeros(self.size, dtype=torch.int64, device=x.device)
        lengths[self.rank] = len(x)
        numbers = self.summed(lengths).tolist()
        padded = x.new_zeros(max(numbers), *x.shape[1:])
        padded[: len(x)] = x
        return torch.cat([part[:n] for part, n in zip(self.each(padded), numbers, strict=True)])

    def each(self, x: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, which have one shape, in the order of the ranks."""
        if self.size == 1:
            return [x]
        parts = [torch.empty_like(x) for _ in range(self.size)]
        with lost_ranks_named():
            distributed.all_gather(parts, x.contiguous(), group=self.handle)
        return parts

    def gathered(self, part: Tensor, axis: int) -> Tensor | None:
        """Return to the first process, in main memory, a tensor whose equal parts along an axis the processes have."""
        if self.size == 1:
            return part
        with lost_ranks_named():
            if self.rank:
                distributed.send(part.contiguous(), group=self.handle, group_dst=0)
                return None
            shape = list(part.shape)
            shape[axis] *= self.size
            whole, received = torch.empty(shape, dtype=part.dtype), torch.empty_like(part.contiguous())
            for rank in range(self.size):
                if rank:
                    distributed.recv(received, group=self.handle, group_src=rank)
                n = part.shape[axis]
                whole.narrow(axis, rank * n, n).copy_(received if rank else part)
        return whole

    def collected(self, value: Any) -> list[Any]:
        """Return the value that each process has, in the order of the ranks."""
        values = [value] * self.size
        if self.size > 1:
            with lost_ranks_named():
                distributed.all_gather_object(values, value, group=self.handle)
        return values

    def of_first(self, value: Any) -> Any:
        """Return the value that the first process has."""
        if self.size == 1:
            return value
        values = [value]
        with lost_ranks_named():
            distributed.broadcast_object_list(values, group=self.handle, group_src=0)
        return values[0]

    def summed(self, tensor: Tensor) -> Tensor:
        """Put the sum over the processes in place of a tensor, and return it."""
        if self.size > 1:
            with lost_ranks_named():
                distributed.all_reduce(tensor, group=self.handle)
        return tensor


@dataclass(frozen=True)
class Mesh:
    """The processes of a training in two dimensions.

    Attributes
    ----------
    all : Group
    rows : Group
        The processes with the same atoms as this one; each takes other rows of a batch.
    atoms : Group
        The processes that take the same rows as this one; each has other atoms.
    devices : DeviceMesh or None
        The mesh as PyTorch knows it, with the dimensions "rows" and "atoms".
    """

    all: Group = field(default_factory=Group)
    rows: Group = field(default_factory=Group)
    atoms: Group = field(default_factory=Group)
    devices: DeviceMesh | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether each process has but a part of the atoms."""
        return self.atoms.size > 1


_present = [Mesh()]
_contexts = count()


def mesh() -> Mesh:
    """Return the mesh of the processes that share the trainings of this process."""
    return _present[-1]


@contextmanager
def data_parallel(shards: int = 1) -> Iterator[Group]:
    """Share the trainings within this context with the other processes that ``torchrun`` has started.

    Each process calls ``fit`` with the same parameters and rows, and reads its part of each batch. The model is that of
    one process up to the rounding of sums. Without ``torchrun`` one process trains as ever.

    With one shard each process has the whole autoencoder. Gradients are summed over the processes before each step, and
    the first process alone writes checkpoints. With more shards a team of so many processes shares the atoms out: the
    team selects non-zeros together, exactly, and sums its parts of the reconstruction; each team takes other rows. The
    first process then gathers the fitted model; in the other processes the estimator has its ``history_`` alone. All
    processes write the checkpoints.

    Parameters
    ----------
    shards : int
        To how many processes the atoms are shared out.

    Raises
    ------
    ValueError
        If the processes do not make up whole teams.
    ConnectionError
        In a process whose others are lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % checked_count("shards", shards):
        raise ValueError(
            f"shards={shards} needs {shards} processes or a multiple, got {size}: start them with torchrun "
            f"--nproc-per-node {shards}"
        )
    if size == 1 or mesh().all.size > 1:
        yield mesh().all
        return
    has_cuda, local_rank = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if has_cuda and local_rank < torch.cuda.device_count():  # trainings on the CPU may have more processes
        torch.cuda.set_device(local_rank)
    with lost_ranks_named():
        # flags and Python objects lie in main memory, whatever the device of the model
        _begin("cpu:gloo,cuda:nccl" if has_cuda else "gloo")
        _present.append(_mesh_of(size, shards))
    try:
        yield mesh().all
    finally:
        _present.pop()
        distributed.destroy_process_group()


def _begin(backends: str) -> None:
    """Join the process group, with a backend for each kind of device."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    # under a new name: else a process may read the address of another from an earlier context
    store = PrefixStore(f"data_parallel {next(_contexts)}", store)
    distributed.init_process_group(backends, store=store, rank=rank, world_size=size)


def _mesh_of(size: int, shards: int) -> Mesh:
    everyone = Group(distributed.get_rank(), size)
    if shards == 1:
        return Mesh(everyone, rows=everyone)
    from torch.distributed.device_mesh import init_device_mesh

    # on the CPU, where checkpoints are written from and read to; its groups serve CUDA as well
    devices = init_device_mesh("cpu", (size // shards, shards), mesh_dim_names=("rows", "atoms"))
    rows, atoms = (
        Group(devices.get_local_rank(name), devices.size(i), devices.get_group(name))
        for i, name in enumerate(("rows", "atoms"))
    )
    return Mesh(everyone, rows, atoms, devices)


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Turn the error of the library about a lost process into one sentence; other errors stay as they are."""
    try:
        yield
    except RuntimeError as error:  # distributed.DistBackendError is one, and gloo raises it bare
        if not tells_of_a_lost_rank(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConnectionError(
            f"another process of this training is lost, the last checkpoint is as it was: {reason}"
        ) from None


def tells_of_a_lost_rank(error: BaseException) -> bool:
    """Whether an error is what the library raises where another process is gone."""
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None
