"""A dictionary in shards is that of one process: selection, steps, checkpoints, and what is left of a lost process."""

import resource
import shutil

import numpy as np
import pytest
import torch
from jobs import run_job

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.formats.checkpoints import Checkpoints
from proxsae.formats.shards import write_shards
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import row_support
from proxsae.regularizers import L0, L1, AsymmetricL0, Cardinality, NonNegative, SortedL1
from proxsae.training import Matryoshka
from proxsae.training.distributed import Group, Mesh, data_parallel
from proxsae.training.sharded import ShardActivation, largest_of_all, random_atoms

X = np.random.default_rng(0).normal(size=(300, 12)) + 1.0
P = 24
WEIGHTS = np.linspace(0.2, 0.5, P)
FITS = {
    "topk": (NonNegative() + Cardinality(2), {"dead_after": 64}),
    "weighted": (WEIGHTS * L1() + Cardinality(4), {"batch_size": 51, "n_steps": 7}),
    "steered": (WEIGHTS * L1() + NonNegative(), {"target_l0": 3}),
    "abstopk": (Cardinality(1), {"dead_after": 64, "init": np.repeat(np.eye(12), 2, axis=0)}),  # every rank twice
    "relu": (WEIGHTS * L1() + NonNegative(), {}),
    "jump": (L0() + NonNegative(), {"target_l0": 3, "max_norm_ratio": 1.3}),
    "two signs": (AsymmetricL0(0.1, 0.2), {"target_l0": 3}),
    "transcoder": (Cardinality(3), {"y": X[:, :5] ** 2, "skip_connection": True}),
    "samples": (Cardinality(3), {"sample_weight": np.arange(300.0) % 3}),
}
SLOW = ("abstopk", "relu", "jump", "two signs", "transcoder", "samples")

SCRIPT = """
import os, signal, sys
import numpy as np
import proxsae.training.trainer as trainer
from proxsae.cli import main
from proxsae.data.rows import Rows
from test_sharded import FITS, fit, resumed

read, step, seen = Rows.read, trainer.Trainer.step, []
shards, kinds, arguments = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]

def counted(self, rows, *options):
    seen.append(len(read(self, rows, *options)))
    return read(self, rows, *options)

def killed(self, x, *rest):
    if self.state.n_done == 6 and self.mesh.all.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, x, *rest)

from proxsae.training.distributed import data_parallel
with data_parallel(shards) as group:
    Rows.read = counted
    for kind in kinds:
        sae = fit(kind)
        arrays = {"D": sae.components_, "W": sae.encoder_.weight.numpy(), "b_e": sae.encoder_.bias.numpy(),
                  "b": sae.intercept_} if group.rank == 0 else {}
        np.savez(f"{kind}-{group.rank}.npz", seen=seen, **arrays, **sae.history_)
        if group.rank == 0:
            sae.save(f"{kind}.safetensors")
    if os.path.exists("of-one"):
        sae = resumed("of-one")
        if group.rank == 0:
            sae.save("of-one.safetensors")
    trainer.Trainer.step = killed
    sys.exit(main(arguments))
"""


def fit(kind, **others):
    R, options = FITS[kind]
    options = {"n_steps": 12, "batch_size": 64, "random_state": 0, "device": "cpu"} | options | others
    given = {name: options.pop(name) for name in ("y", "init", "sample_weight", "resume") if name in options}
    return ProxSAE(R, P, **options).fit(X, **given)


def resumed(folder):
    return fit("topk", checkpoint_dir=folder, checkpoint_every=4, resume=True)


def command_of(folder, shards):
    options = {"-R": "NonNegative + Cardinality(2)", "--components": P, "--steps": 12, "--batch-size": 64}
    options |= {"--checkpoint": folder / "c", "--checkpoint-every": 4, "--shards": shards}
    options |= {"--out": folder / "sae.safetensors"}
    return ["fit", str(folder / "x.npy"), *(str(part) for pair in options.items() for part in pair)]


@pytest.fixture(
    scope="module",
    params=[(2, 2), *(pytest.param(job, marks=pytest.mark.soak) for job in ((4, 4), (4, 2)))],
    ids=lambda job: f"{job[0]} processes, {job[1]} shards",
)
def job(request, tmp_path_factory):
    """A job: fits, one resumed from a checkpoint of one process, and a command in which a process is killed."""
    n_processes, shards = request.param
    folder = tmp_path_factory.mktemp("job")
    np.save(folder / "x.npy", X)
    fit("topk", checkpoint_dir=folder / "of-one", checkpoint_every=4)
    (folder / "of-one/step-00000012.safetensors").unlink()
    is_quick = n_processes == 2 and not request.config.getoption("-m", "").count("soak")
    kinds = [kind for kind in FITS if not (is_quick and kind in SLOW)]
    done = run_job(n_processes, folder, SCRIPT, shards, ",".join(kinds), *command_of(folder, shards))
    return folder, done, n_processes


def assert_same_model(found, expected):
    assert str(found.regularizer_) == str(expected.regularizer_)
    for name in ("components_", "intercept_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.soak] if k in SLOW else []) for k in FITS])
def test_shards_give_what_one_process_gives(kind, job):
    folder, done, n_processes = job
    assert (folder / f"{kind}-0.npz").exists(), done.stderr
    alone = fit(kind)
    expected = {"D": alone.components_, "b": alone.intercept_, **alone.history_}
    expected |= {"W": alone.encoder_.weight.numpy(), "b_e": alone.encoder_.bias.numpy()}
    found = [np.load(folder / f"{kind}-{rank}.npz") for rank in range(n_processes)]
    for name, array in expected.items():
        np.testing.assert_allclose(found[0][name], array, rtol=1e-7, atol=1e-9, err_msg=name)
    for name in alone.history_:
        for other in found[1:]:  # all took the same steps
            np.testing.assert_array_equal(other[name], found[0][name], err_msg=name)
    assert_same_model(ProxSAE.load(folder / f"{kind}.safetensors"), alone)
    if kind == "topk":  # no two read a row of a batch
        assert [(file["seen"] == 64 // n_processes).sum() for file in found] == [12] * n_processes
        assert max(alone.history_["dead"]) > 0  # so that the loss of dead atoms is compared


def test_shards_go_on_from_a_checkpoint_of_one_process(job):
    folder, done, _ = job
    assert (folder / "of-one.safetensors").exists(), done.stderr
    assert_same_model(ProxSAE.load(folder / "of-one.safetensors"), fit("topk"))


def test_a_lost_process_ends_the_job_and_one_process_goes_on_from_the_shards(job):
    folder, done, _ = job
    assert done.returncode != 0
    assert "proxsae fit: another process of this training is lost, the last checkpoint is as it was" in done.stderr
    assert [path.name for path in (folder / "c").iterdir()] == ["step-00000004"]
    assert not (folder / "sae.safetensors").exists()
    assert main([*command_of(folder, 1), "--resume"]) == 0
    assert_same_model(ProxSAE.load(folder / "sae.safetensors"), fit("topk", dead_after=100_000))


@pytest.mark.soak
def test_a_checkpoint_of_any_number_of_processes_loads_on_any_other(tmp_path):
    script = """
import sys
from proxsae.training.distributed import data_parallel
from proxsae.training.fitting import Fit
from test_sharded import resumed

step, stop = Fit.step, int(sys.argv[2])

def stopping(self):
    step(self)
    if self.state.n_done == stop and stop < 12:
        sys.exit(0)

Fit.step = stopping
with data_parallel(int(sys.argv[1])) as group:
    sae = resumed("c")
    if group.rank == 0:
        sae.save("sae.safetensors")
"""
    for n_processes, shards, stop in ((4, 4, 4), (4, 2, 8), (2, 2, 12)):
        done = run_job(n_processes, tmp_path, script, shards, stop)
        assert done.returncode == 0, done.stderr
    assert_same_model(ProxSAE.load(tmp_path / "sae.safetensors"), fit("topk"))


# --- in one process ---------------------------------------------------------------------------------------------------


def of_every_shard(select, U, n_shards, monkeypatch):
    """Return the columns that each shard selects of its part of U, where all hear what the others have."""
    width = U.shape[1] // n_shards
    sent = []

    def each_rank():
        for rank in range(n_shards):
            group = Group(rank, n_shards)
            monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(group, atoms=group)])
            yield select(U[:, rank * width : (rank + 1) * width])

    monkeypatch.setattr(Group, "each", lambda self, x: sent.append(x) or [x] * self.size)
    list(each_rank())
    monkeypatch.setattr(Group, "each", lambda self, x: sent[: self.size])
    masks = [torch.zeros(len(U), width, dtype=torch.bool) for _ in range(n_shards)]
    for mask, pattern in zip(masks, each_rank(), strict=True):
        assert (pattern.keys.diff() > 0).all()
        mask[pattern.rows, pattern.indices] = True
    return torch.cat(masks, dim=1)


@pytest.mark.parametrize("n_shards", [2, 3, 6])
@pytest.mark.parametrize("k", [1, 3, 5, 20])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_the_selection_over_shards_is_that_of_the_whole_and_ties_too(n_shards, k, mirror, monkeypatch):
    U = torch.from_numpy(np.random.default_rng(k).integers(-3, 4, (50, 18)).astype(float))

    def select(u):
        return Pattern(*largest_of_all(u, k, mirror), n_columns=u.shape[1])

    whole = Pattern(*row_support(U, k, mirror), n_columns=18)
    expected = torch.zeros(50, 18, dtype=torch.bool)
    expected[whole.rows, whole.indices] = True
    assert torch.equal(of_every_shard(select, U, n_shards, monkeypatch), expected)


def test_the_activation_of_shards_selects_by_gain(monkeypatch):
    U = torch.from_numpy(np.random.default_rng(0).integers(-3, 4, (50, P)).astype(float))
    R = (np.arange(P) % 3 * L1()) + Cardinality(4)
    parts = iter([R.replace(partner=R.partner.at(slice(s, s + 6))) for s in range(0, P, 6)] * 2)
    found = of_every_shard(lambda u: ShardActivation(next(parts)).support(u), U, 4, monkeypatch)
    assert torch.equal(found, R.prox(U) != 0)


@pytest.mark.parametrize("shape", [(3, 5), (24, 12), (40, 7), (17, 16)])
def test_the_atoms_of_shards_are_the_rows_of_one_draw(shape, monkeypatch):
    monkeypatch.setattr("proxsae.training.sharded.DRAWN", 32)
    whole = torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for size in (1, 2, 3):
        parts = [Group(rank, size).part(shape[0]) for rank in range(size)]
        drawn = [random_atoms(*shape, torch.Generator().manual_seed(3), part) for part in parts]
        assert torch.equal(torch.cat(drawn), whole)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regularizer": SortedL1(np.linspace(1, 0, P))}, r"SortedL1.* does: take a sum over atoms"),
        ({"regularizer": Cardinality(3, "batch")}, r"take a part of a batch, and Cardinality\(3, \"batch\"\) needs"),
        ({"encoder": "unrolled"}, r"Unrolled\(.*\) does: take encoder=\"amortized\""),
        ({"loss": Matryoshka((12, P))}, r"the loss Matryoshka\(.*\) does"),
        ({"n_components": 25}, "25 atoms cannot be shared out evenly among 2 shards"),
    ],
)
def test_what_shards_cannot_train_is_refused(options, sentence, monkeypatch):
    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), atoms=Group(0, 2))])
    sae = ProxSAE(**{"regularizer": Cardinality(1), "n_components": P, "n_steps": 1, **options})
    with pytest.raises(ValueError, match=sentence):
        sae.fit(X)


def test_shards_neither_go_on_from_nor_begin_with_what_is_fitted(monkeypatch):
    fitted = fit("topk", n_steps=1)
    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), atoms=Group(0, 2))])
    with pytest.raises(ValueError, match="partial_fit does: call fit"):
        fitted.partial_fit(X)
    with pytest.raises(ValueError, match="an init that is fitted does: give its components_"):
        fit("topk", init=fitted)


def test_shards_need_as_many_processes():
    with (
        pytest.raises(
            ValueError, match=r"shards=2 needs 2 processes or a multiple, got 1: start .* --nproc-per-node 2"
        ),
        data_parallel(2),
    ):
        pass


def test_a_step_sends_as_many_numbers_as_the_page_says(monkeypatch):
    summed, gathered = [], []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, *_, **of: summed.append(tensor.numel()))
    monkeypatch.setattr("torch.distributed.all_gather", lambda parts, x, **of: gathered.append(x.numel()))
    monkeypatch.setattr(Group, "joined", lambda self, x: torch.cat(self.each(x) and [x, x]))
    monkeypatch.setattr(Group, "of_first", lambda self, value: value)
    monkeypatch.setattr(Group, "collected", lambda self, value: [value] * self.size)
    monkeypatch.setattr(Group, "gathered", lambda self, part, axis: None)
    monkeypatch.setattr("proxsae.training.distributed._present", [Mesh(Group(0, 2), atoms=Group(0, 2))])
    fit("abstopk", n_steps=1, dead_after=100_000)
    n, d, k = 64, 12, 1
    assert sorted(gathered) == sorted([n * k, n // 2 * d])  # ranks, and the rows of the batch
    assert sum(summed) == n * (d + 2) + 4  # reconstruction, R(z), L0; dead atoms (3), whether to stop


def test_a_full_disk_leaves_no_part_of_a_checkpoint(tmp_path):
    sae = ProxSAE(Cardinality(2), P, random_state=0).partial_fit(X)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"step-00000001' cannot be written: .*File too large"):
            write_shards(tmp_path / "c" / "step-00000001", sae)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "c").iterdir()) == []


def test_a_foreign_file_in_a_checkpoint_is_none_of_its_tensors(tmp_path):
    sae = ProxSAE(Cardinality(2), P, random_state=0, checkpoint_dir=tmp_path).partial_fit(X)
    write_shards(tmp_path / "step-00000001", sae)
    (tmp_path / "step-00000001" / "tensors" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "step-00000001" / "tensors" / "folder").mkdir()
    assert Checkpoints(sae, resume=True).newest()[0]._training.n_done == 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "half a file", "no file"])
def test_a_damaged_checkpoint_is_one_sentence(damage, tmp_path):
    sae = ProxSAE(Cardinality(2), P, random_state=0).partial_fit(X)
    path = tmp_path / "c" / "step-00000001"
    write_shards(path, sae)
    sae.set_params(checkpoint_dir=tmp_path / "c")
    kept, _ = Checkpoints(sae, resume=True).newest()
    for name, value in kept._training.state_dict().items():
        assert np.all(np.asarray(value == sae._training.state_dict()[name])), name
    (file,) = (path / "tensors").iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content[: -100 if damage == "truncated" else None])
    if damage == "missing":
        shutil.rmtree(path / "tensors")
    found = r"step-00000001: .*the checkpoint is damaged"
    if damage == "half a file":
        (path / "fit.safetensors").write_bytes(b"half")
        found = r"fit\.safetensors is not a whole safetensors file: .*"
    if damage == "no file":
        (path / "fit.safetensors").unlink()
        found = r"no file at .*fit\.safetensors"
    with pytest.raises(ValueError, match=rf"{found}; delete .*/step-00000001 to begin again"):
        Checkpoints(sae, resume=True).newest()
