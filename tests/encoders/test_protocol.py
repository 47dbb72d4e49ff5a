"""What every encoder keeps: odd data give a defined answer, and files name what they hold."""

import numpy as np
import pytest

from proxsae import ProxSAE
from proxsae.encoders.base import ENCODERS
from proxsae.regularizers import L1, Cardinality, NonNegative

RNG = np.random.default_rng(0)
ODD = {
    "fewer rows than atoms": RNG.normal(size=(5, 4)),
    "one row": RNG.normal(size=(1, 4)),
    "equal rows": np.full((20, 4), 3.0),
    "two rows again and again": np.repeat(RNG.normal(size=(2, 4)), 10, axis=0),
    "zeros": np.zeros((20, 4)),
}


@pytest.mark.parametrize("R", [0.3 * L1() + NonNegative(), Cardinality(2)], ids=repr)
@pytest.mark.parametrize("data", ODD)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_odd_data_give_finite_models(encoder, data, R):
    X = ODD[data].astype(np.float32)
    sae = ProxSAE(R, 8, encoder=encoder, n_steps=20, batch_size=8, random_state=0, dead_after=30).fit(X)
    Z = sae.transform(X)
    assert np.isfinite(Z.data).all()
    assert np.isfinite(sae.inverse_transform(Z)).all()
    np.testing.assert_allclose(np.linalg.norm(sae.components_, axis=1), 1, atol=1e-5)
    assert np.isfinite(sae.score(X))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_names_of_encoders_are_those_of_the_estimator_and_of_files(encoder, tmp_path):
    X = RNG.normal(size=(50, 4)).astype(np.float32)
    sae = ProxSAE(0.3 * L1(), 8, encoder=encoder, n_steps=2, random_state=0).fit(X)
    assert sae.encoder_.name == encoder
    sae.save(tmp_path / "sae.safetensors")
    assert ProxSAE.load(tmp_path / "sae.safetensors").encoder == encoder
