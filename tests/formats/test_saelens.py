"""SAELens: what is written is read back, and what contradicts itself is refused; peers/ compares with the library."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from llm_models import tiny_model
from safetensors.torch import load_file, save_file
from small_saes import D, P, assert_same_outputs, rows, sae_of

from proxsae import ProxSAE
from proxsae.commands.harvested import of_harvests
from proxsae.formats import load, save
from proxsae.formats.places import hook_in, hook_of, site_of
from proxsae.llm import evaluate, steer

FILES = Path(__file__).parent / "files"
RS = ["0.2*L1 + NonNegative", "0.2*L0", "NonNegative + Cardinality(3)", "Cardinality(3)", "0.2*L1 + Cardinality(3)"]


@pytest.fixture
def folder(tmp_path):
    save(sae_of("0.2*L0 + NonNegative"), tmp_path / "sae", format="saelens")
    return tmp_path / "sae"


def edit(folder, **changes):
    config = json.loads((folder / "cfg.json").read_text())
    config = {name: value for name, value in {**config, **changes}.items() if value is not ...}
    (folder / "cfg.json").write_text(json.dumps(config))


def edit_tensors(folder, **changes):
    tensors = {**load_file(folder / "sae_weights.safetensors"), **changes}
    save_file({name: t for name, t in tensors.items() if t is not ...}, folder / "sae_weights.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("R", RS)
def test_what_is_written_is_read_back(tmp_path, R, dtype):
    sae = sae_of(R, dtype=dtype)
    save(sae, tmp_path / "sae", format="saelens")
    again = load(tmp_path / "sae")
    assert again.components_.dtype == sae.components_.dtype
    X = rows(dtype=str(dtype).removeprefix("torch."))
    assert_same_outputs(sae, again, X, rtol=1e-6 if dtype == torch.float32 else 1e-14)


def test_signed_codes_are_written_as_they_are_where_asked(tmp_path):
    sae = sae_of("Cardinality(3)")
    save(sae, tmp_path / "sae", format="saelens", signed="native")
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["architecture"] == "abstopk"
    assert_same_outputs(sae, load(tmp_path / "sae"), rows())


@pytest.mark.parametrize("R", ["0.3*L1 + NonNegative", "NonNegative + Cardinality(3)", "Cardinality(3)"])
def test_the_units_of_the_training_are_in_the_weights(tmp_path, R):
    """A model fitted on data far from zero and of no unit scale gives the same numbers, its plain formula too."""
    X = 40 * rows(600, 8) + 1000
    sae = ProxSAE(R, n_components=24, n_steps=30, random_state=0).fit(X)
    save(sae, tmp_path / "sae", format="saelens")
    again = load(tmp_path / "sae")
    np.testing.assert_allclose(
        again.inverse_transform(again.transform(X)), sae.inverse_transform(sae.transform(X)), rtol=1e-5
    )
    tensors = {name: t.double().numpy() for name, t in load_file(tmp_path / "sae" / "sae_weights.safetensors").items()}
    u = X.astype("float64") @ tensors["W_enc"] + tensors["b_enc"]
    z = np.maximum(u, 0)
    if "Cardinality" in R:
        z = np.where(u >= np.sort(u)[:, -3:-2], z, 0)
    np.testing.assert_allclose(
        z @ tensors["W_dec"] + tensors["b_dec"], sae.inverse_transform(sae.transform(X)), rtol=1e-4
    )


def test_batchtopk_is_written_as_jumprelu(tmp_path):
    X = rows(400)
    sae = ProxSAE("NonNegative + Cardinality(3, 'batch')", n_components=24, n_steps=30, random_state=0).fit(X)
    save(sae, tmp_path / "sae", format="saelens")
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["architecture"] == "jumprelu"
    assert_same_outputs(sae, load(tmp_path / "sae"), X)


def test_where_the_activations_come_from_is_kept(tmp_path):
    sae = sae_of("Cardinality(3)")
    for site, hook in (
        ("block.15", "blocks.14.hook_resid_post"),
        ("embed", "blocks.0.hook_resid_pre"),
        ("mlp_out.3", "blocks.2.hook_mlp_out"),
        ("mlp_in.3", "blocks.2.mlp.hook_in"),
    ):
        sae.provenance_ = {"model": "gpt2", "site": site, "context_length": 128, "text": "wikitext", "tokens_seen": 640}
        save(sae, tmp_path / "sae", format="saelens")
        assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]["hook_name"] == hook
        assert load(tmp_path / "sae").provenance_ == {**sae.provenance_, "hook": hook}


def test_what_a_part_returns_has_another_hook_where_a_norm_follows_it():
    """TransformerLens has the norms of Gemma 2 and 3 before hook_attn_out and hook_mlp_out, and we what is before."""
    paths = ("models--google--gemma-2-2b/snapshots/c5eb", "gemma-2-2b/epoch-3/checkpoint-5", "C:\\Gemma-2-9b\\")
    paths += ("/kaggle/input/gemma-2/transformers/gemma-2-2b/2", "data/gemma-3/4b-it", "gemma2", "gemma3n_text")
    for model in ("gemma-2-2b", "google/gemma-3-1b-it", "gemma-3n-E4B", *paths):
        assert hook_of("mlp_out.3", model) == "blocks.2.mlp.hook_out"
        assert hook_of("attn_out.3", model) == "blocks.2.attn.hook_out"
        assert hook_of("block.3", model) == "blocks.2.hook_resid_post"
        assert site_of("blocks.2.hook_mlp_out", model) is site_of("blocks.2.hook_attn_out", model) is None
    for model in ("gpt2", "gemma-2b", "gemma", "gemma-1.1-2b-it", None, 2):
        assert hook_of("attn_out.3", model) == "blocks.2.hook_attn_out"
        assert site_of("blocks.2.hook_attn_out", model) == "attn_out.3"
    for model in ("gpt2", "gemma-2-2b", None):
        for what in ("attn", "mlp"):
            assert site_of(f"blocks.2.{what}.hook_out", model) == f"{what}_out.3"
            assert site_of(hook_of(f"{what}_out.3", model), model) == f"{what}_out.3"


@pytest.mark.parametrize(
    ("told", "hook"),
    [
        ({"model": "models/mine", "model_type": "gemma2"}, "blocks.2.mlp.hook_out"),
        ({"model": "gemma-2-study/gpt2", "model_type": "gpt2"}, "blocks.2.hook_mlp_out"),
        ({"model": "gemma-2-2b", "model_type": ""}, "blocks.2.mlp.hook_out"),
        ({"model": "gemma-2-2b"}, "blocks.2.mlp.hook_out"),
    ],
)
def test_the_type_of_the_model_decides_before_its_name(told, hook):
    assert hook_in({**told, "site": "mlp_out.3"}) == hook


def test_the_place_of_a_transcoder_whose_targets_are_behind_a_norm_is_asked_for(tmp_path):
    hooks = {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"}
    source = FILES / "saelens_transcoder"
    shutil.copytree(source, tmp_path / "sae")
    edit(tmp_path / "sae", metadata={"sae_lens_version": "6.0.0", "model_name": "gemma-2-2b", **hooks})
    sae = load(tmp_path / "sae")
    assert (sae.provenance_["site"], sae.provenance_["target_hook"]) == ("mlp_in.3", "blocks.2.hook_mlp_out")
    assert of_harvests({"sae": sae}, {}) == {"reads": "mlp_in.3"}
    with pytest.raises(ValueError, match=r"sae names the hook 'blocks\.2\.hook_mlp_out', which is no"):
        evaluate(tiny_model(), sae)
    save(sae, tmp_path / "again", format="saelens")
    assert json.loads((tmp_path / "again" / "cfg.json").read_text())["metadata"].items() >= hooks.items()


def test_what_is_before_the_gain_of_a_norm_is_no_site_of_ours(tmp_path):
    """TransformerLens has there x / scale, and an MLP takes that times the gain."""
    sae = sae_of("Cardinality(3)")
    sae.provenance_ = {"model": "gpt2", "hook": "blocks.7.ln2.hook_normalized"}
    save(sae, tmp_path / "sae", format="saelens")
    again = load(tmp_path / "sae")
    assert again.provenance_ == sae.provenance_
    message = "names the hook 'blocks.7.ln2.hook_normalized', which is no place of ours; give block"
    with pytest.raises(ValueError, match=f"sae {message}"):
        evaluate(tiny_model(), again)
    with pytest.raises(ValueError, match=f"the autoencoder {message}"):
        steer(tiny_model(), again, {}, "w1")


def test_how_documents_become_contexts_is_told(tmp_path):
    def told():
        save(sae, tmp_path / "sae", format="saelens")
        metadata = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
        return [metadata.get(name) for name in ("prepend_bos", "sequence_separator_token", "disable_concat_sequences")]

    def packing():
        found = of_harvests({"sae": load(tmp_path / "sae")}, {})
        return {name: found[name] for name in ("bos", "separator", "concatenate") if name in found}

    sae = sae_of("Cardinality(3)")
    assert told() == [None, None, None]
    assert packing() == {}
    sae.provenance_ = {"model": "gpt2", "site": "block.15"}
    assert told() == [True, None, None]
    sae.provenance_ |= {"weights": "float32:1"}  # a harvest of ours
    assert told() == [True, "eos", False]
    assert packing() == {"separator": "eos", "concatenate": True}
    sae.provenance_ |= {"bos": False, "separator": "bos", "concatenate": False}
    assert told() == [False, "bos", True]
    assert packing() == {"bos": False, "separator": "bos", "concatenate": False}
    assert sae.as_saebench().cfg.prepend_bos is False
    again = load(tmp_path / "sae")
    save(again, tmp_path / "again", format="saelens")
    assert load(tmp_path / "again").provenance_ == again.provenance_
    for separator in (None, 7, "w3"):
        sae.provenance_ |= {"separator": separator}
        told()
        assert packing()["separator"] == separator


@pytest.mark.parametrize("separator", ["sep", True, 1.5, ["eos"]])
def test_a_separator_that_is_none_of_ours_is_not_kept(folder, separator):
    """SAELens has "sep" for a token of the tokenizer, which is no text of one."""
    metadata = {"sae_lens_version": "6.0.0", "sequence_separator_token": separator, "disable_concat_sequences": 1}
    edit(folder, metadata=metadata)
    assert load(folder).provenance_ == {}


def test_a_second_model_takes_the_place_of_the_first(tmp_path):
    save(sae_of("0.2*L0"), tmp_path / "sae", format="saelens")
    save(sae_of("Cardinality(3)", p=8), tmp_path / "sae", format="saelens")
    assert load(tmp_path / "sae").components_.shape == (8, D)
    names = ["README.md", "cfg.json", "sae_weights.safetensors"]
    assert sorted(path.name for path in (tmp_path / "sae").iterdir()) == names


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"d_sae": P + 1}, rf"'W_enc': it has shape \(6, {P}\), needed is \(6, {P + 1}\)"),
        ({"d_in": "6"}, "cfg.json: the field 'd_in': it is 6, needed is an integer"),
        ({"d_in": True}, "'d_in': it is True"),
        ({"d_sae": ...}, "'d_sae': it is missing"),
        ({"d_sae": -3}, "'d_sae': it is -3, needed is at least 1"),
        ({"d_sae": 10**12}, "'W_enc': it has shape"),
        ({"dtype": "int8"}, "'dtype': it is 'int8'"),
        ({"architecture": "topk"}, "'threshold': a SAE of architecture 'topk' has no such tensor"),
        ({"architecture": "gated"}, "has no such tensor"),
        ({"architecture": "crosscoder"}, "'architecture': it is 'crosscoder', known are 'standard'"),
        ({"architecture": "transcoder"}, "'threshold': a SAE of architecture 'transcoder' has no such tensor"),
        ({"architecture": "temporal"}, "'temporal' cannot be read: its codes depend on other tokens"),
        ({"architecture": "matching_pursuit"}, "it has no encoder"),
        ({"architecture": ...}, "'architecture': it is missing"),
        ({"normalize_activations": "z_score"}, "'normalize_activations': it is 'z_score', known are 'none'"),
        ({"apply_b_dec_to_input": "yes"}, "needed is true or false"),
        ({"metadata": {"sae_lens_version": "six"}}, "'sae_lens_version': it is 'six'"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_one_sentence(folder, change, sentence):
    edit(folder, **change)
    with pytest.raises(ValueError, match=sentence) as refusal:
        load(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"W_dec": ...}, "'W_dec': it is missing; there are W_enc, b_dec, b_enc, threshold"),
        ({"b_dec": torch.zeros(D + 1)}, r"'b_dec': it has shape \(7,\), needed is \(6,\)"),
        ({"b_enc": torch.zeros(P, 1)}, "'b_enc': it has shape"),
        ({"b_enc": torch.zeros(P, dtype=torch.int64)}, "'b_enc': it holds int64"),
        ({"threshold": torch.full((P,), torch.nan)}, "'threshold': it holds NaN or infinity"),
        ({"W_skip": torch.zeros(D, D)}, "'W_skip': a SAE of architecture 'jumprelu' has no such tensor"),
        ({"scaling_factor": torch.full((P,), 2.0)}, "'scaling_factor': it scales the codes"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(folder, change, sentence):
    edit_tensors(folder, **change)
    with pytest.raises(ValueError, match=sentence) as refusal:
        load(folder)
    assert "sae_weights.safetensors" in str(refusal.value)


def test_a_factor_of_ones_is_ignored_as_by_the_library(folder):
    before = load(folder)
    edit_tensors(folder, scaling_factor=torch.ones(P))
    assert_same_outputs(before, load(folder), rows())


def test_half_precision_that_overflows_is_one_sentence(folder):
    edit(folder, dtype="float16")
    edit_tensors(folder, b_dec=torch.full((D,), 1e6))
    with pytest.raises(ValueError, match="'b_dec': it holds NaN or infinity"):
        load(folder)


def test_k_beyond_the_atoms_is_one_sentence(tmp_path):
    save(sae_of("NonNegative + Cardinality(3)"), tmp_path / "sae", format="saelens")
    edit(tmp_path / "sae", k=P + 1)
    with pytest.raises(ValueError, match=f"'k': it is {P + 1}, and there are {P} atoms"):
        load(tmp_path / "sae")


def test_a_threshold_whose_square_is_beyond_the_numbers_is_one_sentence(folder):
    edit_tensors(folder, threshold=torch.linspace(1e19, 3e19, P))
    with pytest.raises(ValueError, match="the threshold leaves the range of numbers"):
        load(folder)


def test_a_text_of_R_with_a_number_beyond_the_floats_is_passed_over(folder):
    edit(folder, metadata={"sae_lens_version": "6.0.0"})
    plain = load(folder).regularizer_
    edit(folder, metadata={"sae_lens_version": "6.0.0", "proxsae_regularizer": f"0x{100_000 * 'f'}*L1"})
    assert load(folder).regularizer_ == plain
