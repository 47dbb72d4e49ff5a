"""Files that other libraries wrote give the outputs that those libraries recorded; see peers/make_foreign.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_saes import assert_same_outputs, sae_of

from proxsae import ProxSAE
from proxsae.formats import load, save
from proxsae.formats.registry import formats
from proxsae.solvers import solve

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("files/*/recorded.json"))
WITHOUT_PROX = [folder for folder in FOLDERS if folder.name == "openai_TopK_without_ReLU"]  # see test_without_prox
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* is for rows that are normalised first"),
    pytest.mark.filterwarnings("ignore:.* is the prox of no R"),
]
each_file = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
each_prox = pytest.mark.parametrize(
    "folder", [folder for folder in FOLDERS if folder not in WITHOUT_PROX], ids=lambda folder: folder.name
)


def recorded(folder):
    """The model, rows as it takes them, and the codes and reconstructions of the library for those."""
    record = json.loads((folder / "recorded.json").read_text())
    X, codes, reconstruction = (np.float32(record[name]) for name in ("rows", "codes", "reconstruction"))
    sae = load(folder / record["path"])
    shift, scale = 0.0, 1.0
    if sae.provenance_.get("normalised_rows") == "layer_norm":
        shift, scale = X.mean(1, keepdims=True), X.std(1, ddof=1, keepdims=True)
        X, scale = (X - shift) / (scale + np.float32(1e-5)), 1 / scale
    elif sae.provenance_.get("normalised_rows") == "unit_mean_square":
        scale = np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
        X = np.float32(X * scale)
    return sae, X, codes, (reconstruction - shift) * scale


def test_the_files_are_there():
    assert {folder.name.split("_")[0] for folder in FOLDERS} == {name.split("_")[0] for name in formats()}
    assert len(FOLDERS) >= 36


@each_file
def test_outputs_are_those_of_the_library(folder):
    sae, X, codes, reconstruction = recorded(folder)
    Z = sae.transform(X)
    assert Z.nnz > 0
    np.testing.assert_allclose(np.sort(Z.toarray()), np.sort(codes), rtol=0, atol=2e-6 * np.abs(codes).max())
    outputs = sae.predict(X)
    np.testing.assert_allclose(outputs, reconstruction, rtol=0, atol=2e-6 * np.abs(reconstruction).max())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@each_prox
def test_a_loaded_model_is_a_fitted_one(folder):
    """Its regularizer is that of its codes: the encoder is the prox, and a solver takes R."""
    sae, X, _, Y = recorded(folder)
    u = X @ sae.encoder_.weight.numpy().T + sae.encoder_.bias.numpy()
    init = sae.transform(X).toarray()
    np.testing.assert_allclose(sae.regularizer_.prox(u), init, rtol=0, atol=1e-5)
    assert np.isfinite(sae.score(X, Y))
    found = solve(Y[:2], sae.components_, sae.regularizer_, intercept=sae.intercept_, init=init[:2])
    assert np.all(np.isfinite(found.objective))


@each_prox
def test_it_is_written_and_read_back(folder, tmp_path):
    """In our own format, and in every other that has a place for it."""
    sae, X, _, _ = recorded(folder)
    sae.save(tmp_path / "sae.safetensors")
    assert_same_outputs(sae, ProxSAE.load(tmp_path / "sae.safetensors"), X)
    written, refused = 0, []
    for name in formats():
        path = tmp_path / (f"{name}.pt" if name == "openai" else name)
        try:
            save(sae, path, format=name)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert_same_outputs(sae, load(path), X, rtol=2e-6)
            written += 1
    assert all("no place for" in text or "no other library has" in text or "has ReLU of" in text for text in refused)
    assert written or "groupmax" in folder.name


@pytest.mark.parametrize("name", ["llama_scope_2024_topk", "llama_scope_topk"])
def test_the_place_of_llama_scope_is_a_site_of_ours(name):
    told = load(FOLDERS[0].parent / name).provenance_
    assert told == {"hook": "blocks.7.hook_resid_post", "site": "block.8"}


def test_the_places_of_others_are_sites_of_ours(tmp_path):
    (files,) = FOLDERS[0].parent.glob("gemma_scope_second_release/*/*")
    assert load(files).provenance_["site"] == "block.8"
    shutil.copytree(FOLDERS[0].parent / "dictionary_learning_AutoEncoderTopK", tmp_path / "sae")
    config = json.loads((tmp_path / "sae" / "config.json").read_text())
    assert "site" not in load(tmp_path / "sae").provenance_
    config["trainer"]["submodule_name"] = "resid_post_layer_7"
    (tmp_path / "sae" / "config.json").write_text(json.dumps(config))
    assert load(tmp_path / "sae").provenance_["site"] == "block.8"


def test_an_unknown_place_stays_unknown(tmp_path):
    save(sae_of("0.3*L1 + NonNegative"), tmp_path / "scope", format="llama_scope")
    sae = load(tmp_path / "scope")
    assert sae.provenance_ == {}
    for provenance in ({}, {"hook": "unknown"}):  # which files of ours may hold that were read before
        sae.provenance_ = provenance
        save(sae, tmp_path / "lens", format="saelens")
        assert "hook_name" not in json.loads((tmp_path / "lens" / "cfg.json").read_text())["metadata"]
    config = json.loads((tmp_path / "lens" / "cfg.json").read_text())
    config["metadata"]["hook_name"] = "unknown"
    (tmp_path / "lens" / "cfg.json").write_text(json.dumps(config))
    assert "hook" not in load(tmp_path / "lens").provenance_
