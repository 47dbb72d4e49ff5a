"""A configuration that contradicts its tensors, or is of what is no prox, is one sentence."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_saes import D, P, assert_same_outputs, rows, sae_of

from proxsae.formats import load, save

FILES = Path(__file__).parent / "files"
OTHER_PLACE = "codes of one place decode to another, and ProxSAE holds autoencoders"


@pytest.fixture
def copied(tmp_path):
    def copy(name):
        return shutil.copytree(FILES / name, tmp_path / name)

    return copy


def edit(path, **changes):
    """Set values, ``...`` for none; ``a__b`` is b in the object a."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        inside = values
        for part in outer:
            inside = inside[part]
        if value is ...:
            inside.pop(last, None)
        else:
            inside[last] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "file", "change", "sentence"),
    [
        (
            "sparsify_topk",
            "cfg.json",
            {"num_latents": 9},
            r"'encoder.weight': it has shape \(8, 3\), needed is \(9, 3\)",
        ),
        ("sparsify_topk", "cfg.json", {"num_latents": 0}, r"needed is \(96, 3\)"),
        ("sparsify_topk", "cfg.json", {"k": 9}, "'k': it is 9, and there are 8 atoms"),
        ("sparsify_topk", "cfg.json", {"k": 3.5}, "'k': it is 3.5, needed is an integer"),
        ("sparsify_topk", "cfg.json", {"d_in": ...}, "'d_in': it is missing"),
        ("sparsify_topk", "cfg.json", {"d_in": "1\n2"}, r"'d_in': it is '1\\n2', needed is an integer"),
        (
            "sparsify_topk",
            "cfg.json",
            {"activation": "relu"},
            "'activation': it is 'relu', known are 'topk', 'groupmax'",
        ),
        ("sparsify_topk", "cfg.json", {"skip_connection": True}, "'W_skip': it is missing"),
        ("sparsify_groupmax", "cfg.json", {"k": 5}, "'k': it is 5, and there are 12 atoms"),
        ("dictionary_learning_AutoEncoder", "config.json", {"trainer__dict_size": 9}, "'trainer.dict_size': it is 9"),
        ("dictionary_learning_AutoEncoder", "config.json", {"trainer__dict_class": "CrossCoder"}, "it is 'CrossCoder'"),
        ("dictionary_learning_AutoEncoder", "config.json", {"trainer": 3}, "'trainer.dict_class': it is missing"),
        (
            "dictionary_learning_AutoEncoder",
            "config.json",
            {"trainer__dict_class": "AutoEncoderTopK"},
            "'b_dec': it is missing",
        ),
        (
            "dictionary_learning_AutoEncoderTopK",
            "config.json",
            {"trainer__k": 4},
            "'trainer.k': it is 4, and that of the weights is 3",
        ),
        (
            "gemma_scope_second_release",
            "resid_post/layer_7_width_16k_l0_small/config.json",
            {"architecture": "relu"},
            "'architecture': it is 'relu', known are 'jump_relu'",
        ),
        ("llama_scope_topk", "config.json", {"hook_point_out": "blocks.8"}, f"'hook_point_out': {OTHER_PLACE}"),
        ("llama_scope_topk", "config.json", {"use_glu_encoder": True}, "an encoder of two matrices is not a prox"),
        ("llama_scope_topk", "config.json", {"sae_type": "clt"}, "'sae_type': it is 'clt', known are 'sae'"),
        ("llama_scope_topk", "config.json", {"act_fn": "batchtopk"}, "'act_fn': it is 'batchtopk'"),
        ("llama_scope_topk", "config.json", {"norm_activation": "batch-wise"}, "'norm_activation': it is 'batch-wise'"),
        ("llama_scope_topk", "config.json", {"expansion_factor": 1e9}, "'W_E': it has shape"),
        (
            "llama_scope_topk",
            "config.json",
            {"d_model": 10**10, "expansion_factor": 1e299},
            r"'expansion_factor': it is 1e\+299, which of 10000000000 features is no number of atoms",
        ),
        (
            "llama_scope_topk",
            "config.json",
            {"d_model": 10**400},
            r"'d_model': it is 10+\.\.\., needed is at most 2\^63",
        ),
        ("llama_scope_topk", "config.json", {"top_k": 9}, "'top_k': it is 9, and there are 8 atoms"),
        (
            "llama_scope_2024_jumprelu",
            "hyperparams.json",
            {"dataset_average_activation_norm": {"in": 0.0}},
            "'dataset_average_activation_norm': it is 0.0, needed is a positive number",
        ),
        (
            "llama_scope_2024_jumprelu",
            "hyperparams.json",
            {"dataset_average_activation_norm": {"in": 1e200}},
            "leaves the range of numbers",
        ),
        ("llama_scope_2024_jumprelu", "hyperparams.json", {"jump_relu_threshold": -1.0}, "needed is a number >= 0"),
    ],
)
def test_a_contradiction_is_one_sentence(copied, name, file, change, sentence):
    folder = copied(name)
    path = folder / json.loads((folder / "recorded.json").read_text())["path"]
    load(path)
    edit(folder / file, **change)
    with pytest.raises(ValueError, match=sentence) as refusal:
        load(path)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_transcoder_of_gemma(copied, tmp_path):
    place = "gemma_scope_second_release/resid_post/layer_7_width_16k_l0_small"
    folder = copied("gemma_scope_second_release") / "resid_post" / "layer_7_width_16k_l0_small"
    tensors = load_file(folder / "params.safetensors")
    skip = torch.arange(9.0).reshape(3, 3)
    save_file({**tensors, "affine_skip_connection": skip}, folder / "params.safetensors")
    plain, x = load(FILES / place), np.float32([[1, 2, 3]])
    assert not plain.is_transcoder_
    np.testing.assert_allclose(load(folder).predict(x), plain.predict(x) + x @ skip.numpy(), rtol=1e-5)


FIRST_RELEASE = FILES / "gemma_scope_first_release/layer_7/width_16k/average_l0_6"
PLACE = "layer_7/width_16k/average_l0_6"


@pytest.mark.parametrize(
    ("folder", "what"),
    [
        ("gemma-scope-2b-pt-transcoders/" + PLACE, "transcoder"),
        ("models--google--gemma-scope-2b-pt-transcoders/snapshots/0123abc/" + PLACE, "transcoder"),
        ("gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_small", "transcoder"),
        ("gemma-scope-2-1b-pt/transcoder_all/layer_7_width_16k_l0_small_affine", "transcoder"),
        ("my-transcoders/run1", "plain"),
        ("gemma-scope-2b-pt-transcoders/mine", "plain"),
        ("my-transcoders/" + PLACE, "transcoder"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embedding"),
        ("sae-work/embedding", "plain"),
        ("embedding/run1", "plain"),
        ("embedding/width_4k/run1", "plain"),
    ],
)
def test_the_published_folders_of_gemma_alone_mean_something(folder, what, tmp_path):
    plain = load(FIRST_RELEASE)
    shutil.copytree(FIRST_RELEASE, tmp_path / folder)
    sae = load(tmp_path / folder)
    assert sae.is_transcoder_ == (what == "transcoder")
    scale = 3**0.5 if what == "embedding" else 1
    np.testing.assert_allclose(sae.components_, scale * plain.components_, rtol=1e-6)
    if what != "transcoder":
        save(plain, tmp_path / folder, format="gemma_scope")  # and nothing in a file of ours
        np.testing.assert_array_equal(load(tmp_path / folder).components_, plain.components_)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activation": "Identity"}, "'activation': it is Identity, known are 'ReLU' and 'TopK'"),
        (
            {"activation_state_dict": {"k": 3, "postact_fn": "GELU"}},
            "'activation_state_dict': postact_fn is GELU, known are 'ReLU' and 'Identity'",
        ),
        ({"activation_state_dict": {"k": 9, "postact_fn": "ReLU"}}, "k is 9, needed is an integer from 1 to 8"),
        ({"activation_state_dict": [3]}, "k is None, needed is an integer"),
        ({"activation_state_dict": {"k": True, "postact_fn": "ReLU"}}, "k is True, needed is an integer"),
        ({"decoder.weight": torch.ones(8, 3)}, r"'decoder.weight': it has shape \(8, 3\), needed is \(3, 8\)"),
        ({"pre_bias": "none"}, "'pre_bias': it is missing"),
        ({"activation": "x" * 10_000}, r"it is x{200}\.\.\., known are"),
    ],
)
def test_a_file_of_openai_that_is_no_prox_is_one_sentence(tmp_path, change, sentence):
    values = torch.load(FILES / "openai_TopK" / "6.pt", weights_only=True)
    torch.save({**values, **change}, tmp_path / "6.pt")
    with pytest.raises(ValueError, match=sentence) as refusal:
        load(tmp_path / "6.pt")
    assert str(tmp_path / "6.pt") in str(refusal.value)


def test_rows_that_are_normalised_first_are_said_and_kept(tmp_path):
    with pytest.warns(UserWarning, match=r"6\.pt is for rows that are normalised first, .* \(x - mean\(x\)\)") as said:
        sae = load(FILES / "openai_TopK" / "6.pt")
    assert len(said) == 1
    assert said[0].filename == __file__
    save(sae, tmp_path / "saelens", format="saelens")
    assert json.loads((tmp_path / "saelens" / "cfg.json").read_text())["normalize_activations"] == "layer_norm"
    with pytest.raises(ValueError, match=r"sparsify has no place for rows that are normalised first \('layer_norm'\)"):
        save(sae, tmp_path / "sparsify", format="sparsify")
    with pytest.raises(ValueError, match="has ReLU of raw rows and TopK of layer_norm, not 'topk' of raw"):
        save(sae_of("NonNegative + Cardinality(3)"), tmp_path / "6.pt", format="openai")


def test_a_training_of_saelens_whose_scale_is_not_there_is_said(copied):
    folder = copied("saelens_standard")
    edit(folder / "cfg.json", normalize_activations="expected_average_only_in")
    with pytest.warns(UserWarning, match="'expected_average_only_in', and not by which factors") as said:
        load(folder)
    assert said[0].filename == __file__


def test_fields_left_out_are_what_the_library_takes(copied):
    """No number of atoms is the expansion factor; no subtraction said is one."""
    folder = copied("sparsify_topk_atoms_by_expansion")
    before = load(folder)
    edit(folder / "cfg.json", num_latents=..., activation=..., transcode=..., skip_connection=...)
    assert_same_outputs(before, load(folder), rows(d=3))
    folder = copied("saelens_standard")
    before = load(folder)
    edit(folder / "cfg.json", apply_b_dec_to_input=..., normalize_activations=..., device=...)
    assert_same_outputs(before, load(folder), rows(d=3))
    edit(folder / "cfg.json", dtype=..., metadata__sae_lens_version="6.0.0-rc.1")
    assert_same_outputs(before, load(folder), rows(d=3))


def test_a_single_file_is_enough_where_its_name_says_what_it_is(copied):
    for name, inside in (
        ("dictionary_learning_AutoEncoderTopK", "ae.pt"),
        ("gemma_scope_first_release", "layer_7/width_16k/average_l0_6/params.npz"),
        ("gemma_scope_second_release", "resid_post/layer_7_width_16k_l0_small/params.safetensors"),
    ):
        path = FILES / name / inside
        assert_same_outputs(load(path.parent), load(path), rows(d=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["sparsify", "dictionary_learning", "llama_scope", "gemma_scope", "openai"])
def test_every_format_keeps_the_precision(tmp_path, name, dtype):
    R = {"sparsify": "Cardinality(3)", "gemma_scope": "0.2*L0"}.get(name, "0.2*L1")
    sae = sae_of(R, dtype=dtype)
    path = tmp_path / ("sae.pt" if name == "openai" else "sae")
    save(sae, path, format=name)
    again = load(path, format=name)
    assert again.components_.dtype == sae.components_.dtype
    assert again.components_.shape == (P, D)
    X = rows(dtype=str(dtype).removeprefix("torch."))
    assert_same_outputs(sae, again, X, rtol=2e-6 if dtype == torch.float32 else 1e-13)
    assert np.abs(again.transform(X)).max() > 0


@pytest.mark.parametrize("library", ["saelens", "llama_scope", "sparsify", "dictionary_learning"])
def test_no_file_says_k_is_0(library, tmp_path):
    with pytest.raises(ValueError, match="has no autoencoder whose codes are all zero, k = 0"):
        save(sae_of("NonNegative + Cardinality(0)"), tmp_path / "sae", format=library)
    assert not (tmp_path / "sae").exists()


def test_a_length_of_context_that_is_no_number_is_left_out(copied, tmp_path):
    folder = copied("dictionary_learning_AutoEncoder")
    edit(folder / "config.json", buffer={"ctx_len": float("nan")}, trainer__lm_name=["gpt2"])
    sae = load(folder)
    assert sae.provenance_ == {}
    save(sae, tmp_path / "sae", format="saelens")
    assert load(tmp_path / "sae").provenance_ == {}


@pytest.mark.parametrize("library", ["saelens", "llama_scope", "sparsify", "dictionary_learning"])
def test_a_save_that_fails_leaves_the_model_that_was_there(library, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    old = sae_of("NonNegative + Cardinality(2)", seed=1)
    save(old, tmp_path / "old", format=library)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for folder in ("old", "new"):
            with pytest.raises(OSError, match="cannot be written: No space left"):
                save(sae_of("NonNegative + Cardinality(3)"), tmp_path / folder, format=library)
    assert_same_outputs(old, load(tmp_path / "old"), rows(), rtol=2e-6)
    save(old, tmp_path / "new", format=library)
    assert_same_outputs(old, load(tmp_path / "new"), rows(), rtol=2e-6)


def test_what_is_no_json_is_refused_before_the_weights_are_written(tmp_path):
    sae = sae_of("NonNegative + Cardinality(3)")
    save(sae, tmp_path / "sae", format="saelens")
    before = {path.name: path.read_bytes() for path in (tmp_path / "sae").iterdir()}
    sae = sae_of("NonNegative + Cardinality(3)", seed=1)
    sae.provenance_ = {"context_length": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        save(sae, tmp_path / "sae", format="saelens")
    assert {path.name: path.read_bytes() for path in (tmp_path / "sae").iterdir()} == before
