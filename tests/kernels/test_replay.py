"""What a replayed step is without a device: what it notes of waits, and what it does where none can be recorded."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from proxsae.encoders import Amortized
from proxsae.kernels import sparse, top_k
from proxsae.kernels.replay import N_PLAIN, Replay, waits_noted
from proxsae.regularizers import L1, Cardinality, NonNegative
from proxsae.training import Scaling, Trainer, TrainingState, optimizer, trainer
from proxsae.training.autoencoder import initial_autoencoder


@pytest.fixture
def mode(monkeypatch):
    """The mode of a device that says, the first time it is set, that it is a prototype."""
    modes = [0]

    def put(mode):
        if len(modes) == 1:
            warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=2)
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", put)
    return modes


def test_noting_waits_says_nothing_of_its_own_and_keeps_what_others_say(mode):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with waits_noted() as waits:
            assert mode[-1] == "warn"
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("of the user", stacklevel=1)
    assert [str(warning.message) for warning in said] == ["of the user"]
    assert waits == ["called a synchronizing CUDA operation"]
    assert mode[-1] == 0
    with pytest.raises(ZeroDivisionError), waits_noted():
        _ = 1 / 0
    assert mode[-1] == 0


def test_a_step_that_cannot_be_recorded_is_called_as_it_is(mode, monkeypatch):
    tried = []

    def failing(self, function, *arguments):
        tried.append(arguments)
        self._graph = object()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(Replay, "_record", failing)
    replay, x = Replay(), torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(N_PLAIN):
            replay(lambda x: {"twice": 2 * x}, x)
    with pytest.warns(UserWarning, match="none could be recorded: operation not permitted when stream is capturing$"):
        assert torch.equal(replay(lambda x: {"twice": 2 * x}, x)["twice"], 2 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert torch.equal(replay(lambda x: {"twice": 2 * x}, x)["twice"], 2 * x)
    assert len(tried) == 1


class Waits(TorchDispatchMode):
    """Notes the operations of which a device would have to say how large their result is, or what it is."""

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name, kwargs = operation.overloadpacket.__name__, kwargs or {}
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or (name in self.ASKING and "output_size" not in kwargs):
            self.noted.append(name)
        return operation(*args, **kwargs)


@pytest.mark.parametrize("is_waiting", [False, True])
@pytest.mark.parametrize("R", [NonNegative() + Cardinality(4), Cardinality(4), 0.1 * L1() + Cardinality(4)], ids=str)
def test_a_step_of_topk_asks_the_device_for_nothing(R, is_waiting, monkeypatch):
    """Its kernels are those of a device, interpreted; batch scope, which waits, shows that the test would tell."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("there Torch itself tells, see tests/cuda")
    for module in (sparse, top_k, trainer, optimizer):
        monkeypatch.setattr(module, "on_cuda", lambda _: True)
    monkeypatch.setattr(top_k, "_in_main_memory", lambda _: None)
    monkeypatch.setattr(sparse.Pattern, "gather", lambda pattern, U: U[pattern.rows, pattern.indices])
    R = R.replace(scope="batch") if is_waiting else R
    model = initial_autoencoder(Amortized(), R, 64, 16, torch.Generator().manual_seed(0), torch.float32, False)
    state = TrainingState.start(model, Scaling(torch.zeros(16), 1.0), R)
    training, (x, rate) = Trainer(state, learning_rate=1e-3, dead_after=64), (torch.randn(32, 16), torch.full((), 1e-3))
    model.unused_for[:9] = 1000
    for room in (0, 16):
        training.room_for_dead = room
        with Waits() as waits:
            training._compute(x, x, rate)
        assert bool(waits.noted) == is_waiting
