"""Objects of SAELens and its loader, by the shape of what they get; `make test-formats` has the library itself."""

import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from small_saes import D, P, rows, sae_of

from proxsae.formats import as_saelens, saelens_converter, save


class StandInSAE:
    """Gives back what the converter does, called as the library calls it."""

    @classmethod
    def load_from_disk(cls, path, device="cpu", dtype=None, converter=None):
        overrides = {"dtype": dtype} if dtype is not None else None
        config, tensors = converter(path, device, cfg_overrides=overrides)
        return SimpleNamespace(config=config, tensors=tensors)


@pytest.fixture
def library(monkeypatch):
    module = ModuleType("sae_lens")
    module.SAE = StandInSAE
    monkeypatch.setitem(sys.modules, "sae_lens", module)


def by_formula(found, X):
    """The reconstruction of a ReLU or JumpReLU in the words of the library."""
    u = X @ found.tensors["W_enc"].numpy() + found.tensors["b_enc"].numpy()
    threshold = found.tensors.get("threshold", torch.zeros(1)).numpy()
    return np.where(u > threshold, u, 0).clip(min=0) @ found.tensors["W_dec"].numpy() + found.tensors["b_dec"].numpy()


@pytest.mark.parametrize("R", ["0.2*L1", "0.2*L0", "0.3*L1 + NonNegative"])
def test_the_object_is_what_its_loader_makes_of_the_model(library, R):
    sae = sae_of(R)
    np.testing.assert_allclose(by_formula(sae.as_saelens(), rows()), sae.predict(rows()), rtol=0, atol=1e-4)


def test_the_loader_gets_what_would_be_written(library, tmp_path):
    sae = sae_of("Cardinality(3)")
    sae.provenance_ = {"model": "gpt2", "site": "block.7", "context_length": 64}
    sae.save(tmp_path / "sae.safetensors")
    save(sae, tmp_path / "theirs", format="saelens")
    for path in (tmp_path / "sae.safetensors", tmp_path / "theirs"):
        found = StandInSAE.load_from_disk(path, converter=saelens_converter)
        assert (found.config["architecture"], found.config["k"]) == ("topk", 3)
        assert (found.config["d_in"], found.config["d_sae"]) == (D, 2 * P)
        assert found.config["metadata"]["hook_name"] == "blocks.6.hook_resid_post"
        assert {name: tuple(t.shape) for name, t in found.tensors.items()} == {
            "W_enc": (D, 2 * P),
            "b_enc": (2 * P,),
            "W_dec": (2 * P, D),
            "b_dec": (D,),
        }
        torch.testing.assert_close(found.tensors["W_dec"][P:], -torch.from_numpy(sae.components_))


def test_the_loader_asks_for_a_dtype_a_device_or_signed_codes(library, tmp_path):
    sae_of("Cardinality(3)").save(tmp_path / "sae.safetensors")
    converter = partial(saelens_converter, signed="native")
    found = StandInSAE.load_from_disk(tmp_path / "sae.safetensors", "meta", "torch.float16", converter)
    assert (found.config["architecture"], found.config["dtype"]) == ("abstopk", "torch.float16")
    assert {(t.dtype, t.device.type) for t in found.tensors.values()} == {(torch.float16, "meta")}


def test_the_object_shares_no_memory_with_the_model(library):
    sae = sae_of("0.3*L1 + NonNegative")
    before = sae.predict(rows())
    for tensor in as_saelens(sae).tensors.values():
        tensor.zero_()
    np.testing.assert_array_equal(sae.predict(rows()), before)


def test_what_cannot_be_an_object_is_one_sentence(monkeypatch, library, tmp_path):
    with pytest.raises(ValueError, match=r"no other library has the activation of 0\.2\*MCP"):
        sae_of("0.2*MCP(3.0)").as_saelens()
    with pytest.raises(FileNotFoundError, match="no file at"):
        StandInSAE.load_from_disk(tmp_path / "nothing", converter=saelens_converter)
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(ImportError, match="as_saelens needs the package sae-lens, which cannot be imported: "):
        sae_of("0.2*L0").as_saelens()
