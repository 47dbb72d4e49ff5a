"""Several processes on gloo give what one gives, up to rounding; a lost one leaves the last checkpoint."""

import os
import signal

import numpy as np
import pytest
from jobs import run_job

from proxsae import ProxSAE, fit_many
from proxsae.cli import main
from proxsae.regularizers import L0, L1, Cardinality, NonNegative
from proxsae.training.distributed import Group, Mesh, data_parallel, lost_ranks_named, mesh
from proxsae.training.fitting import Fit

X = np.random.default_rng(0).normal(size=(300, 12)) + 1.0
FITS = {
    "count": (Cardinality(1), {"dead_after": 64}),
    "odd batch": (0.3 * L1() + NonNegative(), {"batch_size": 51, "n_steps": 7}),
    "steered": (L1(), {"target_l0": 3}),
    "thresholds": (L0() + NonNegative(), {"target_l0": 3, "max_norm_ratio": 1.3}),
}
DIFFERENT = {  # what each of two processes begins with, and what is said of it
    "rows": (lambda rank: fit_of("count").fit(X + rank), "X = 300 x 12 float64 with checksum"),
    "folders": (
        lambda rank: fit_of("count").set_params(checkpoint_dir=f"disk-of-{rank}").fit(X, resume=True),
        "step = 12 and 0:",
    ),
    "atoms": (lambda rank: fit_of("count").fit(X, init=np.roll(np.eye(24, 12), rank, axis=1) + 0.1), "different atoms"),
}

SCRIPT = """
import os, signal, sys
import numpy as np
import proxsae.training.trainer as trainer
from proxsae.cli import main
from proxsae.data.rows import Rows
from proxsae.training.distributed import data_parallel
from test_distributed import DIFFERENT, FITS, fit_of, X

read, step, seen = Rows.read, trainer.Trainer.step, []

def counted(self, rows, *options):
    seen.append(len(read(self, rows, *options)))
    return read(self, rows, *options)

def killed(self, x, *rest):
    if self.state.n_done == 6 and self.group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, x, *rest)

Rows.read = counted
with data_parallel() as group:
    for kind in FITS:
        sae = fit_of(kind).fit(X)
        np.savez(f"{kind}-{group.rank}.npz", D=sae.components_, b=sae.intercept_, seen=seen, **sae.history_,
                 **{name: tensor.numpy() for name, tensor in sae.encoder_.tensors().items()})
    for name, (begin, _) in DIFFERENT.items():
        try:
            begin(group.rank)
        except ValueError as error:
            open(f"{name}-{group.rank}.txt", "w").write(str(error))
    trainer.Trainer.step = killed
    sys.exit(main(sys.argv[1:]))
"""


def fit_of(kind):
    R, options = FITS[kind]
    return ProxSAE(R, 24, **{"n_steps": 12, "batch_size": 64, "random_state": 0, "device": "cpu"} | options)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.soak)])
def job(request, tmp_path_factory):
    """A job of several processes: fits, whose arrays they write, and a command, in which one of them is killed."""
    folder = tmp_path_factory.mktemp("job")
    np.save(folder / "x.npy", X)
    fit_of("count").set_params(checkpoint_dir=folder / "disk-of-0").fit(X)
    done = run_job(request.param, folder, SCRIPT, *command_of(folder))
    return folder, done, request.param


def command_of(folder):
    options = {"-R": "Cardinality(3)", "--components": 24, "--steps": 12, "--batch-size": 64, "--checkpoint-every": 4}
    options |= {"--checkpoint": folder / "c", "--out": folder / "sae.safetensors"}
    return ["fit", str(folder / "x.npy"), *(str(part) for pair in options.items() for part in pair)]


@pytest.mark.parametrize("kind", FITS)
def test_several_processes_give_what_one_gives(kind, job):
    folder, done, n_processes = job
    assert (folder / f"{kind}-0.npz").exists(), done.stderr
    alone = fit_of(kind).fit(X)
    expected = {"D": alone.components_, "b": alone.intercept_, **alone.history_}
    expected |= {name: tensor.numpy() for name, tensor in alone.encoder_.tensors().items()}
    found = [np.load(folder / f"{kind}-{rank}.npz") for rank in range(n_processes)]
    for name, array in expected.items():
        np.testing.assert_allclose(found[0][name], array, rtol=1e-7, atol=1e-9, err_msg=name)
        for other in found[1:]:  # all took the same steps
            np.testing.assert_array_equal(other[name], found[0][name], err_msg=name)
    if kind == "count":  # each read its part of every batch
        assert [(file["seen"] == 64 // n_processes).sum() for file in found] == [12] * n_processes
        assert max(alone.history_["dead"]) > 0  # so that the loss of dead atoms is compared


@pytest.mark.parametrize("name", DIFFERENT)
def test_processes_that_begin_differently_all_say_so(name, job):
    folder, done, n_processes = job
    for rank in range(n_processes):
        assert (folder / f"{name}-{rank}.txt").exists(), done.stderr
        said = (folder / f"{name}-{rank}.txt").read_text()
        assert said.startswith(f"processes 0 and 1 begin this training with {DIFFERENT[name][1]}")
        assert said.endswith("and checkpoints on a disk that all of them see")


def test_a_lost_process_ends_the_job_and_leaves_the_last_checkpoint(job):
    folder, done, _ = job
    assert done.returncode != 0
    assert "proxsae fit: another process of this training is lost, the last checkpoint is as it was" in done.stderr
    assert [path.name for path in (folder / "c").iterdir()] == ["step-00000004.safetensors"]
    assert not (folder / "sae.safetensors").exists()
    assert main([*command_of(folder), "--resume"]) == 0  # on another number of processes
    alone = ProxSAE(Cardinality(3), 24, n_steps=12, batch_size=64, random_state=0).fit(X)
    np.testing.assert_allclose(ProxSAE.load(folder / "sae.safetensors").components_, alone.components_, atol=1e-9)


BESIDE_CUDA = """
import numpy as np
import torch
from torch import distributed
from proxsae.training.distributed import data_parallel
from test_distributed import X, fit_of

begin, is_available = distributed.init_process_group, torch.cuda.is_available

def begin_on_gloo(backend, **of):  # what NCCL would serve, and no other device
    torch.cuda.is_available = is_available
    begin({"nccl": "cuda:gloo"}.get(backend, backend.replace("nccl", "gloo")), **of)

distributed.init_process_group = begin_on_gloo
for shards in (1, 2, 1):  # one context after another
    torch.cuda.is_available = lambda: True
    with data_parallel(shards) as group:
        sae = fit_of("count").fit(X)
        if group.rank == 0:
            np.save(f"{shards}.npy", sae.components_)
"""


def test_where_there_is_cuda_tensors_in_main_memory_are_summed_too(tmp_path):
    """Whether to stop is asked in main memory, and a training may be one of the CPU."""
    done = run_job(2, tmp_path, BESIDE_CUDA)
    assert done.returncode == 0, done.stderr
    alone = fit_of("count").fit(X).components_
    for shards in (1, 2):
        np.testing.assert_allclose(np.load(tmp_path / f"{shards}.npy"), alone, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4711", ConnectionError),
        ("NCCL error, ncclRemoteError: a network error or a remote process exiting prematurely", ConnectionError),
        ("Timed out after 301 seconds waiting for clients. 1/2 clients joined.", ConnectionError),
        ("No backend type associated with device type cpu", RuntimeError),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", RuntimeError),
    ],
)
def test_a_fault_of_this_process_is_not_a_lost_one(text, kind):
    sentence = "another process of this training is lost" if kind is ConnectionError else "^(No backend|CUDA out)"
    with pytest.raises(kind, match=sentence), lost_ranks_named():
        raise RuntimeError(text)


def test_parts_are_the_batch():
    for size, n_rows in ((1, 5), (3, 10), (4, 4), (7, 64)):
        parts = [list(range(n_rows)[Group(rank, size).part(n_rows)]) for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(n_rows))
        assert np.ptp([len(part) for part in parts]) <= 1


@pytest.fixture
def one_of_two(monkeypatch):
    """The first of two processes, without the other one."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, **of: None)
    monkeypatch.setattr(Group, "of_first", lambda self, value: value)
    monkeypatch.setattr(Group, "collected", lambda self, value: [value] * self.size)
    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), rows=Group(0, 2))])


def test_a_signal_after_the_others_were_told_of_none_ends_the_next_step(one_of_two, monkeypatch):
    asked = []

    def all_reduce(tensor, **of):
        if tensor.numel() == 1:  # whether to stop
            asked.append(int(tensor))
            if len(asked) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    with pytest.warns(UserWarning, match="SIGTERM ended the training early: the model is that of step 4"):
        fit_of("count").fit(X)
    assert asked == [0, 0, 0, 1]


def test_a_signal_here_after_one_elsewhere_is_no_second_one(one_of_two, monkeypatch):
    """torchrun sends one to each process in turn."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, **of: tensor.add_(tensor.numel() == 1))
    finish = Fit.finish

    def signalled(self, stop):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(self, stop)

    monkeypatch.setattr(Fit, "finish", signalled)
    with pytest.warns(UserWarning, match="SIGTERM ended the training early: the model is that of step 1"):
        fit_of("count").fit(X)


def test_no_process_of_the_command_ends_before_the_model_is_saved(one_of_two, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    out, saved = tmp_path / "sae.safetensors", []
    monkeypatch.setattr(Group, "of_first", lambda self, value: saved.append(out.exists()) or value)
    assert main(command_of(tmp_path)) == 0
    assert (saved[0], saved[-1]) == (False, True)


def test_a_step_sums_as_many_numbers_as_the_page_on_scaling_says(one_of_two, monkeypatch):
    sent = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, **of: sent.append(tensor.numel()))
    fit_of("count").set_params(n_steps=1).fit(X)
    p, d = 24, 12
    assert sum(sent) == (2 * p * d + p + d) + p + 6 + 1  # gradients, flags, the record, and whether to stop


def test_without_torchrun_one_process_trains():
    with data_parallel() as alone:
        assert (alone.rank, alone.size) == (0, 1)
    assert mesh().all.size == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regularizer": Cardinality(3, "batch")}, r"take a part of a batch, and Cardinality\(3, \"batch\"\) needs"),
        ({"encoder": "solved"}, r"take a part of a batch, and Solved\(.*\) needs the whole: use one"),
        ({"batch_size": 1}, "a batch has fewer rows than there are processes, 2"),
    ],
)
def test_what_is_not_shared_is_refused(options, sentence, monkeypatch):
    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), rows=Group(0, 2))])
    with pytest.raises(ValueError, match=sentence):
        ProxSAE(**{"regularizer": Cardinality(1), "n_components": 24, "n_steps": 1, **options}).fit(X)


def test_streams_and_many_are_of_one_process(monkeypatch):
    from proxsae.data.stream import ShuffledRows

    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), rows=Group(0, 2))])
    with pytest.raises(ValueError, match="a stream is read in its order by one process"):
        ProxSAE().fit(ShuffledRows(X))
    monkeypatch.setattr(Group, "of_first", lambda self, value: value)
    monkeypatch.setattr(Group, "collected", lambda self, value: [value] * self.size)
    with pytest.raises(ValueError, match="several processes share one training at a time"):
        fit_many([fit_of("count"), fit_of("count")], X)
