"""load, save and the command line: which format it is, and what is refused."""

import json
from contextlib import suppress

import numpy as np
import pytest
from small_saes import assert_same_outputs, rows, sae_of

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.formats import load, save
from proxsae.regularizers import parse


def test_ours_is_read_and_written(tmp_path):
    sae = sae_of("0.2*L1 + NonNegative")
    save(sae, tmp_path / "sae.safetensors")
    again = load(tmp_path / "sae.safetensors")
    assert again.regularizer_ == sae.regularizer_
    assert_same_outputs(sae, again, rows())


def test_what_is_no_format_is_one_sentence(tmp_path):
    sae = sae_of("Cardinality(3)")
    with pytest.raises(ValueError, match=r"format must be one of proxsae, .*saelens.*, got 'onnx'"):
        save(sae, tmp_path / "sae", format="onnx")
    with pytest.raises(ValueError, match="format must be one of"):
        load(tmp_path, format="onnx")
    with pytest.raises(ValueError, match=r'signed must be "double" or "native", got \'both\''):
        save(sae, tmp_path / "sae", format="saelens", signed="both")
    with pytest.raises(ValueError, match=r"is a folder of no format that is known: it has none of the files ae\.pt,"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file at .*nothing"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="the name of the file to load is empty"):
        load("")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="text is not a whole safetensors file"):
        load(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match=r"no file at .*cfg\.json"):
        load(tmp_path, format="saelens")


def test_what_a_folder_lacks_is_said(tmp_path):
    save(sae_of("NonNegative + Cardinality(3)"), tmp_path, format="saelens")
    with pytest.raises(ValueError, match="'proxsae-sae'; it is one of the files of SAELens in that folder: give"):
        load(tmp_path / "sae_weights.safetensors")
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"for saelens it lacks sae_weights\.safetensors; for sparsify it lacks sae\."):
        load(tmp_path)


def test_a_file_of_openai_has_any_name(tmp_path):
    sae = sae_of("0.3*L1 + NonNegative")
    save(sae, tmp_path / "resid_post", format="openai")
    assert_same_outputs(sae, load(tmp_path / "resid_post"), rows(), rtol=2e-6)


@pytest.mark.parametrize("name", ["x.pt", "ae.pt", "params.npz", "params.safetensors", "x.npz", "x.bin"])
def test_our_files_are_known_by_their_header(name, tmp_path):
    sae = sae_of("Cardinality(3)")
    sae.save(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name).components_, sae.components_)
    (tmp_path / "x.pt").write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"x\.pt is not a "):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize("format_", ["sparsify", "dictionary_learning", "openai", "gemma_scope", "llama_scope"])
def test_one_weight_comes_back_as_one_number(format_, tmp_path):
    for R in ("0.3*L1", "0.3*L1 + Cardinality(3)"):
        with suppress(ValueError):  # not every format has both activations
            save(sae_of(R), tmp_path / f"{format_}{len(R)}", format_)
            assert load(tmp_path / f"{format_}{len(R)}", format_).regularizer_ == parse(R)
    assert list(tmp_path.iterdir())


def test_an_R_that_does_not_fit_names_the_file(tmp_path):
    save(sae_of("NonNegative + Cardinality(3)"), tmp_path / "sae", format="saelens")
    with pytest.raises(ValueError, match=r"sae: the activation of the file is not the prox of 0\.1\*L1"):
        load(tmp_path / "sae", regularizer="0.1*L1")


def test_an_unfitted_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet"):
        save(ProxSAE("Cardinality(3)"), tmp_path / "sae", format="saelens")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_the_format_lacks_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"no other library has the activation of 0\.2\*MCP"):
        save(sae_of("0.2*MCP(3.0)"), tmp_path / "sae", format="saelens")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("site", "module"), [("block.15", "resid_post_layer_14"), ("block.1", "resid_post_layer_0"), ("mlp_out.3", None)]
)
def test_dictionary_learning_keeps_the_place_in_the_stream(site, module, tmp_path):
    sae = sae_of("NonNegative + Cardinality(3)")
    sae.provenance_ = {"model": "gpt2", "site": site}
    save(sae, tmp_path / "sae", format="dictionary_learning")
    assert json.loads((tmp_path / "sae" / "config.json").read_text())["trainer"].get("submodule_name") == module
    assert load(tmp_path / "sae").provenance_.get("site") == (site if module else None)


@pytest.mark.parametrize("field", ["site", "target_site"])
def test_a_model_of_several_places_has_no_place_in_a_library(field, tmp_path):
    sae = sae_of("Cardinality(3)")
    sae.provenance_ = {"model": "gpt2", "site": "mlp_in.3", field: "mlp_in.3 mlp_out.3"}
    with pytest.raises(ValueError, match=r"this one is of 'mlp_in\.3 mlp_out\.3' side by side"):
        save(sae, tmp_path / "sae", format="saelens")
    assert not (tmp_path / "sae").exists()


def test_an_encoder_that_is_not_one_matrix_leaves_nothing(tmp_path):
    sae = ProxSAE("Cardinality(3)", n_components=12, n_steps=2, encoder="solved", random_state=0).fit(rows(50))
    with pytest.raises(
        ValueError, match="other libraries have encoders of one matrix, as Amortized is, and this one is"
    ):
        save(sae, tmp_path / "sae", format="saelens")
    assert list(tmp_path.iterdir()) == []


FIRST_AND_SECOND = [
    (
        "dictionary_learning",
        "saelens",
        r"holds ae\.pt, which is none of the files written for saelens: give another folder",
    ),
    ("saelens", "sparsify", r"holds sae_weights\.safetensors, which is none of the files written for sparsify"),
    ("llama_scope", "saelens", r"holds config\.json, which is none of the files written for saelens"),
    (
        "gemma_scope",
        "dictionary_learning",
        r"holds params\.npz, which is none of the files written for dictionary_learning",
    ),
]


@pytest.mark.parametrize(("first", "second", "sentence"), FIRST_AND_SECOND)
def test_a_folder_of_another_format_stays_as_it_is(first, second, sentence, tmp_path, capsys):
    sae, folder, ours = sae_of("0.3*L1 + NonNegative"), tmp_path / "sae", tmp_path / "ours.safetensors"
    if "sparsify" in (first, second):
        sae = sae_of("NonNegative + Cardinality(3)")
    save(sae, folder, first)
    save(sae, folder, first)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=sentence):
        save(sae, folder, second)
    sae.save(ours)
    assert main(["convert", str(ours), str(folder), "--format", second]) == 1
    assert "give another folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_half_of_the_files_may_be_of_something_else(tmp_path):
    (tmp_path / "config.json").write_text("of a language model")
    with pytest.raises(ValueError, match=r"holds config\.json without ae\.pt, which is no model of dictionary"):
        save(sae_of("0.3*L1 + NonNegative"), tmp_path, "dictionary_learning")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_older_release_in_the_folder_would_win(tmp_path):
    (tmp_path / "hyperparams.json").touch()
    (tmp_path / "params.safetensors").touch()
    for name in ("llama_scope", "gemma_scope"):
        with pytest.raises(ValueError, match="which is none of the files written for"):
            save(sae_of("0.3*L1 + NonNegative"), tmp_path, name)


def test_the_command_converts_there_and_back(tmp_path, capsys):
    sae = sae_of("Cardinality(3)")
    ours, theirs, back = tmp_path / "sae.safetensors", tmp_path / "theirs", tmp_path / "back.safetensors"
    sae.save(ours)
    assert main(["convert", str(ours), str(theirs), "--format", "saelens"]) == 0
    assert main(["convert", str(theirs), str(back), "--format", "proxsae"]) == 0
    said = capsys.readouterr().out
    assert "16 atoms, 6 features, R = Cardinality(3)" in said
    assert f"saved {theirs} for saelens" in said
    assert_same_outputs(sae, ProxSAE.load(back), rows())
    assert main(["convert", str(theirs), str(back), "--format", "onnx"]) == 1
    assert capsys.readouterr().err.startswith("proxsae convert: format must be one of proxsae, ")


def test_a_file_of_ours_does_not_lie_beside_those_of_a_library(tmp_path):
    sae = sae_of("NonNegative + Cardinality(3)")
    sae.save(tmp_path / "sae.safetensors")
    with pytest.raises(ValueError, match=r"is a folder, and sae\.safetensors in it a file of proxsae: give the file"):
        load(tmp_path)
    for library in ("sparsify", "saelens"):
        with pytest.raises(ValueError, match=r"holds sae\.safetensors, which is none of the files written for"):
            save(sae, tmp_path, library)
    assert load(tmp_path / "sae.safetensors").regularizer_ == sae.regularizer_


def test_a_file_where_a_folder_is_needed_and_the_other_way_round(tmp_path):
    sae = sae_of("0.3*L1 + NonNegative")
    (tmp_path / "x.npy").touch()
    with pytest.raises(ValueError, match=r"x\.npy is a file, and saelens is written to a folder: give another folder"):
        save(sae, tmp_path / "x.npy", "saelens")
    for read in (ProxSAE.load, lambda path: load(path, "openai")):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path} is a folder, needed is a file"):
            read(tmp_path)
