"""The weight of R follows from target_l0, whatever the units of the data."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from proxsae import ProxSAE
from proxsae.regularizers import L0, L1, NonNegative


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


def test_learned_thresholds_do_not_run_away():
    X = load_digits().data.astype(np.float32)
    options = {"n_steps": 300, "batch_size": 512, "learning_rate": 0.05, "random_state": 0}
    fvu = ProxSAE(L0() + NonNegative(), 32, target_l0=4, **options).fit(X).history_["fvu"]
    assert fvu[-60:].mean() < fvu[40:60].mean()  # were each code to cost half the square of its threshold: 0.39 > 0.26
