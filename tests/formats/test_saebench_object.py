"""Objects for SAEBench, which counts a code as active where it is positive; `make test-saebench` has the library."""

from dataclasses import asdict, is_dataclass

import numpy as np
import pytest
import torch
from small_saes import D, P, rows, sae_of

from proxsae import ProxSAE

PLACE = {"model": "gpt2", "site": "block.7", "context_length": 64, "tokens_seen": 5000}
RS = ["Cardinality(3)", "0.2*L1", "0.4*MCP(3.0)", "0.2*L0 + NonNegative", "NonNegative + Cardinality(3)"]


def told(sae, **more):
    sae.provenance_ = {**PLACE, **more}
    return sae


@pytest.mark.parametrize("R", RS)
@pytest.mark.parametrize("shape", [(24, D), (2, 12, D), (D,)])
def test_codes_are_not_negative_and_decode_to_the_same(R, shape):
    sae = told(sae_of(R))
    theirs, x = sae.as_saebench(), torch.from_numpy(rows(24)).flatten()[: np.prod(shape)].reshape(shape)
    z = theirs.encode(x)
    assert z.shape == (*shape[:-1], theirs.cfg.d_sae)
    assert (z >= 0).all()
    expected = sae.transform(x.reshape(-1, D).numpy())
    np.testing.assert_array_equal((z.reshape(-1, theirs.cfg.d_sae) > 0).sum(1), expected.getnnz(axis=1))
    output = sae.predict(x.reshape(-1, D).numpy())
    for decoded in (theirs.decode(z), theirs(x)):
        np.testing.assert_allclose(decoded.detach().numpy().reshape(-1, D), output, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["unrolled", "solved"])
def test_an_encoder_of_any_kind_will_do(encoder):
    X = rows(60)
    sae = told(ProxSAE("Cardinality(3)", n_components=12, n_steps=2, encoder=encoder, random_state=0).fit(X))
    theirs = sae.as_saebench()
    np.testing.assert_allclose(theirs(torch.from_numpy(X)).detach().numpy(), sae.predict(X), rtol=0, atol=1e-4)
    torch.testing.assert_close(theirs.W_enc, theirs.W_dec.T)


def test_the_parameters_are_those_of_the_formula_of_unit_atoms():
    theirs, x = told(sae_of("0.2*L1")).as_saebench(), torch.from_numpy(rows(20))
    norms = torch.linalg.vector_norm(theirs.W_dec, dim=1)
    torch.testing.assert_close(norms, torch.ones(2 * P))
    assert (theirs.W_enc.shape, theirs.W_dec.shape) == ((D, 2 * P), (2 * P, D))
    u = x @ theirs.W_enc + theirs.b_enc
    assert ((theirs.encode(x) > 0) <= (u > 0)).all()
    np.testing.assert_array_equal(theirs.W_dec[:P].detach(), -theirs.W_dec[P:].detach())


def test_in_half_precision_thresholds_stay_as_they_are():
    sae = told(sae_of("0.2*L0"))
    theirs = sae.as_saebench().to(device="cpu", dtype=torch.bfloat16)
    X = torch.from_numpy(rows(200)).to(torch.bfloat16)
    z = theirs.encode(X)
    assert (theirs.dtype, z.dtype, theirs(X).dtype) == (torch.bfloat16,) * 3
    np.testing.assert_array_equal((z > 0).sum(1), sae.transform(X.float().numpy()).getnnz(axis=1))


def test_the_configuration_says_where_and_what():
    cfg = told(sae_of("Cardinality(3)")).as_saebench().cfg
    assert is_dataclass(cfg)
    cfg.metadata = object()  # which the library adds
    assert cfg.to_dict() == asdict(cfg)
    assert (cfg.model_name, cfg.hook_name, cfg.hook_layer) == ("gpt2", "blocks.6.hook_resid_post", 6)
    assert (cfg.context_size, cfg.training_tokens, cfg.dtype) == (64, 5000, "float32")
    assert (cfg.d_in, cfg.d_sae, cfg.architecture) == (D, 2 * P, "proxsae Cardinality(3)")
    cfg = sae_of("Cardinality(3)").as_saebench("pythia-70m", "blocks.3.hook_mlp_out").cfg
    assert (cfg.model_name, cfg.hook_name, cfg.hook_layer) == ("pythia-70m", "blocks.3.hook_mlp_out", 3)


def test_the_object_shares_no_memory_with_the_model():
    sae = told(sae_of("NonNegative + Cardinality(3)"))
    before = sae.predict(rows())
    for parameter in sae.as_saebench().parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(sae.predict(rows()), before)


def test_what_it_cannot_evaluate_is_one_sentence():
    with pytest.raises(ValueError, match=r"needs the language model and the place in it, .* give model_name and ho"):
        sae_of("0.2*L0").as_saebench("gpt2")
    with pytest.raises(ValueError, match="needs the number of a block in hook_name, and 'hook_embed' has none"):
        sae_of("0.2*L0").as_saebench("gpt2", "hook_embed")
    with pytest.raises(ValueError, match=r"rows normalised first \('layer_norm'\)"):
        told(sae_of("0.2*L0"), normalised_rows="layer_norm").as_saebench()
    X = rows(60)
    transcoder = ProxSAE("Cardinality(3)", n_components=12, n_steps=2, random_state=0).fit(X, X[:, :4])
    with pytest.raises(ValueError, match="codes of a transcoder"):
        told(transcoder).as_saebench()
