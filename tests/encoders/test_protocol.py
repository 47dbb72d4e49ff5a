"""What every encoder keeps: odd data give a defined answer, and files name what they hold."""

import numpy as np
import pytest
import torch
from scipy.sparse import isspmatrix_csr
from sklearn.exceptions import ConvergenceWarning

from proxsae import ProxSAE, solve
from proxsae.encoders.base import ENCODERS, on_device
from proxsae.regularizers import L0, L1, Blocks, Cardinality, GroupL2, NonNegative

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


@pytest.mark.parametrize("R", [0.3 * L1() + NonNegative(), 0.3 * L0(), Cardinality(2), "0.3*GroupL2(2)"], ids=repr)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_refined_codes_are_better_and_their_objectives_are_those_of_the_definition(encoder, R):
    X = RNG.normal(size=(60, 4)).astype(np.float32) + 1
    sae = ProxSAE(R, 8, encoder=encoder, n_steps=20, batch_size=32, random_state=0).fit(X)
    refined = sae.refine(X)
    for codes, objective in ((sae.transform(X), refined.before), (refined.codes, refined.after)):
        residual = X - codes @ sae.components_ - sae.intercept_
        wanted = 0.5 * (residual**2).sum(1) + sae.regularizer_.value(codes.toarray())
        np.testing.assert_allclose(objective, wanted, rtol=1e-4, atol=1e-5)
    assert refined.codes.dtype == np.float32
    assert isspmatrix_csr(refined.codes)
    assert (refined.after <= refined.before).all()
    assert encoder == "solved" or (refined.after < refined.before - 1e-3).any()
    gap, certificate = sae.amortization_gap(X, return_certificate=True)
    np.testing.assert_array_equal(gap, refined.before - refined.after)
    best = solve(X.astype(float), sae.components_.astype(float), R, intercept=sae.intercept_.astype(float))
    if best.certificate_kind == "duality gap":
        assert (refined.before - best.objective <= gap + certificate + 1e-9).all()
        np.testing.assert_allclose(refined.after, best.objective, rtol=1e-5)


def test_refining_keeps_the_code_of_the_encoder_where_a_solver_ends_worse():
    X = RNG.normal(size=(60, 4)).astype(np.float32) + 1
    sae = ProxSAE(0.3 * L1(), 8, n_steps=20, random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning):
        refined = sae.refine(X, method="ista", max_iter=0)
    assert (refined.codes != sae.transform(X)).nnz == 0
    with pytest.raises(ValueError, match='method must be "auto"'):
        sae.refine(X, method="magic")


@pytest.mark.parametrize("groups", [2, [0, 0, 1, 1]], ids=["a size", "labels"])
def test_the_numbers_of_R_go_to_a_device_and_the_weights_of_groups_stay_in_main_memory(groups):
    R = np.ones(4) * L1() + 0.3 * GroupL2(groups, group_weights=np.ones(2))
    of_groups, of_codes = on_device(R, "meta").terms
    assert of_codes.weight.device.type == "meta"
    assert isinstance(of_groups.group_weights, np.ndarray)
    ((block, _),) = on_device(Blocks([(np.ones(4) * L1(), 4)]), "meta").blocks
    assert block.weight.device.type == "meta"
    assert on_device(torch.ones(4) * L1() + R.terms[0], "cpu") == R
