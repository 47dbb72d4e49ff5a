"""The weight of R follows from target_l0, whatever the units of the data."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.regularizers import L0, L1, NonNegative
from proxsae.training.sparsity import WeightControl


@pytest.mark.parametrize("scale", [1e-60, 1e-16, 1e17, 1e60])
@pytest.mark.parametrize("R", [L0() + NonNegative(), L1()], ids=str)
def test_a_target_is_met_at_any_scale_of_the_data(R, scale):
    X = scale * np.random.default_rng(0).normal(size=(200, 8))
    sae = ProxSAE(R, 16, target_l0=3, n_steps=5, batch_size=100, random_state=0).fit(X)
    assert sae.transform(X).nnz / len(X) == pytest.approx(3, rel=0.05)


def test_what_to_do_where_all_codes_are_zero_depends_on_what_was_asked():
    sae = ProxSAE(L1() + NonNegative(), 16, target_l0=0.001, n_steps=5, batch_size=100, random_state=0)
    X = np.random.default_rng(0).normal(size=(200, 8))
    with pytest.warns(UserWarning, match=r"every code of the last step is zero under .*: take a larger target_l0$"):
        sae.fit(X)


@pytest.mark.parametrize("n_rows", [1, 5])
def test_equal_rows_do_not_say_what_weight_meets_a_target(n_rows):
    sae = ProxSAE(L1() + NonNegative(), 8, target_l0=3, n_steps=2, random_state=0)
    with pytest.raises(ValueError, match="from rows that differ, and those given are equal"):
        sae.partial_fit(np.tile([0.3, -1.0, 2.0], (n_rows, 1)))
    sae.partial_fit(np.random.default_rng(0).normal(size=(50, 3)))


@pytest.mark.parametrize("sought", [0.7, 1.0, 1.6, 300.0, 1e-9])
def test_weights_far_below_the_one_sought_are_not_tried(sought, monkeypatch):
    tried = []

    def l0_by_weight(self, x):
        return lambda factor: tried.append(factor) or torch.full((len(x),), 3.0 * sought / factor)

    monkeypatch.setattr(Amortized, "l0_by_weight", l0_by_weight)
    encoder = Amortized().initial(L1(), torch.eye(4), learn_thresholds=False)
    assert WeightControl(3.0).meet(encoder, torch.ones(5, 4)) == pytest.approx(sought, rel=1e-6)
    assert encoder.regularizer.weight == pytest.approx(sought, rel=1e-6)
    assert min(tried) >= min(0.5, sought**2)  # the codes of which would be dense, and take long to solve
    assert max(tried) <= max(2.0, sought**2)


def test_learned_thresholds_do_not_run_away():
    X = load_digits().data.astype(np.float32)
    options = {"n_steps": 300, "batch_size": 512, "learning_rate": 0.05, "random_state": 0}
    fvu = ProxSAE(L0() + NonNegative(), 32, target_l0=4, **options).fit(X).history_["fvu"]
    assert fvu[-60:].mean() < fvu[40:60].mean()  # were each code to cost half the square of its threshold: 0.39 > 0.26
