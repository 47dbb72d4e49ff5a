"""No prox brings data to another device in silence: Torch's meta device has no data that could be brought."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from zoo import JOINT, PER_COORDINATE, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers import L1, Cardinality, Entmax, KSupportNorm, NonNegative, SortedL1, SumOfKLargest

SELECTIONS = [
    Cardinality(2),
    NonNegative() + Cardinality(2),
    PER_COORDINATE * L1() + Cardinality(2),
    Cardinality(2, "batch"),
]
ON_THE_CPU = SortedL1, SumOfKLargest  # fitted there, as nonincreasing_fit says
STOP_BY_VALUE = KSupportNorm, Entmax  # ask the device whether to take another step
WIDTH = 5


class Arrivals(TorchDispatchMode):
    """Counts the arrays as wide as a code that come to the device from memory."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor) and x.device.type == "meta"]
        self.count += given == {"cpu"} and any(x.ndim and x.shape[-1] >= WIDTH for x in made)
        return result


def on_meta(R):
    """Return R with its arrays on the device."""
    return R.map_parameters(
        lambda _, value: torch.empty(value.shape, dtype=torch.float32, device="meta") if np.ndim(value) else value
    )


@pytest.mark.parametrize("R", [*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT, *SELECTIONS], ids=str)
def test_what_is_on_a_device_stays_there(R):
    U, R_there = torch.empty(7, WIDTH, device="meta"), on_meta(R)
    if any(isinstance(term, ON_THE_CPU + STOP_BY_VALUE) for term in R.terms):
        with pytest.raises((NotImplementedError, RuntimeError), match="meta tensor"):
            R_there.prox_unchecked(U, 0.5)
        return
    R_there.prox_unchecked(U, 0.5)  # the groups come to the device once
    with Arrivals() as arrivals:
        Z = R_there.prox_unchecked(U, 0.5)
        values = R_there.value_unchecked(Z)
    assert (Z.device.type, values.device.type) == ("meta", "meta")
    assert arrivals.count == 0


def test_an_arrival_is_seen():
    weights = np.ones(WIDTH)
    with Arrivals() as arrivals:
        (weights * L1()).prox_unchecked(torch.empty(7, WIDTH, device="meta"), 0.5)
    assert arrivals.count
