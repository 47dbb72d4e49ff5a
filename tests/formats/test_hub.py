"""Names on the Hub and of SAELens's releases, on a local stand-in of the Hub's cache; nothing is downloaded."""

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from small_saes import assert_same_outputs, rows

from proxsae.cli import main
from proxsae.formats import load, saelens_converter, saelens_hub_converter

FILES = Path(__file__).parent / "files"
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A repository with SAEs in folders, its files links to blobs, as the cache has them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--saes.v1"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    (repository / "refs" / "v2").write_text(SHA)
    (repository / "blobs").mkdir()
    for number, name in enumerate(["saelens_topk", "openai_ReLU", "gemma_scope_first_release_embeddings"]):
        for file in sorted(path for path in (FILES / name).rglob("*") if path.is_file()):
            blob = repository / "blobs" / f"{number}-{file.name}"
            shutil.copy(file, blob)
            link = repository / "snapshots" / SHA / name / file.relative_to(FILES / name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    return tmp_path


@pytest.mark.parametrize(
    "place",
    ["saelens_topk", "openai_ReLU/6.pt", "gemma_scope_first_release_embeddings/embedding/width_16k/average_l0_6"],
)
def test_a_name_is_the_file_that_it_names(cache, place):
    for revision in ("", "@v2", f"@{SHA}"):
        assert_same_outputs(load(FILES / place), load(f"hf://owner/saes.v1{revision}/{place}"), rows(d=3))


@pytest.mark.parametrize("place", ["saelens_topk", "openai_ReLU/6.pt"])
def test_the_converters_of_saelens_take_a_place_on_the_hub(cache, place):
    expected = saelens_converter(FILES / place)
    for found in (
        saelens_converter(f"hf://owner/saes.v1/{place}"),
        saelens_hub_converter("owner/saes.v1", place, "cpu", False, {"dtype": "float32"})[:2],
    ):
        assert found[0] == expected[0]
        for name, tensor in expected[1].items():
            np.testing.assert_array_equal(found[1][name], tensor)
    assert saelens_hub_converter("owner/saes.v1", f"/{place}/")[2] is None
    with pytest.raises(ValueError, match="force_download is not for this converter"):
        saelens_hub_converter("owner/saes.v1", place, force_download=True)
    with pytest.raises(FileNotFoundError, match=r"hf://owner/saes\.v1/nothing"):
        saelens_hub_converter("owner/saes.v1", "nothing")


def test_only_what_a_format_reads_is_asked_for(cache, monkeypatch):
    """Optimizer states and other autoencoders of a repository stay where they are."""
    asked = []

    def download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        return str(cache / "models--owner--saes.v1" / "snapshots" / SHA)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load("hf://owner/saes.v1@v2/saelens_topk")
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("owner/saes.v1", "v2")
    assert {"saelens_topk/cfg.json", "saelens_topk/sae_weights.safetensors", "saelens_topk"} <= set(patterns)
    assert all(pattern.startswith("saelens_topk") and "*" not in pattern for pattern in patterns)


@pytest.mark.parametrize(
    "name",
    [
        "hf://",
        "hf://owner",
        "hf://owner/saes/../../etc",
        "hf:///saes/x",
        "hf://a/b@/c",
        "hf://a/b/*",
        "hf://a/b/x?",
        "hf://a/b/[x]",
    ],
)
def test_what_is_no_name_is_one_sentence(name):
    with pytest.raises(ValueError, match="is no place on the Hub, which is hf://owner/repository/path"):
        load(name)


def test_what_is_not_there_is_one_sentence(cache, capsys):
    with pytest.raises(FileNotFoundError, match=r"hf://owner/saes\.v1/nothing: the repository has no such file"):
        load("hf://owner/saes.v1/nothing")
    with pytest.raises(FileNotFoundError, match=r"hf://owner/other/x cannot be fetched: .") as refusal:
        load("hf://owner/other/x")
    assert "\n" not in str(refusal.value)
    assert main(["convert", "hf://owner/other/x", str(cache / "out"), "--format", "proxsae"]) == 1
    assert capsys.readouterr().err.startswith("proxsae convert: hf://owner/other/x cannot be fetched: ")


def test_the_command_takes_a_name(cache, capsys):
    assert (
        main(["convert", "hf://owner/saes.v1/saelens_topk", str(cache / "sae.safetensors"), "--format", "proxsae"]) == 0
    )
    assert "8 atoms, 3 features, R = NonNegative() + Cardinality(3)" in capsys.readouterr().out


# --- releases of SAELens ----------------------------------------------------------------------------------------------

TABLE = """
gemma-scope-2b-pt-res-canonical:
  conversion_func: gemma_2
  model: gemma-2-2b
  repo_id: owner/saes.v1
  saes:
  - {id: layer_20/width_16k/canonical, path: gemma_scope_first_release_embeddings/embedding/width_16k/average_l0_6}
  - {id: layer_21/width_16k/canonical, path: nowhere}
res-jb:
  model: gpt2-small
  repo_id: owner/saes.v1
  saes:
  - {id: blocks.7.hook_resid_pre, path: saelens_topk, norm_scaling_factor: 0.5}
  - {id: openai, path: openai_ReLU/6.pt}
res-wg:
  config_overrides: {normalize_activations: constant_norm_rescale}
  model: gpt2-small
  repo_id: owner/saes.v1
  saes: [{id: blocks.7.hook_resid_pre, path: saelens_topk}]
"""
CANONICAL = "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical"


@pytest.fixture
def table(tmp_path, monkeypatch):
    package = tmp_path / "installed" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('only its table is read')\n")
    (package / "pretrained_saes.yaml").write_text(TABLE)
    monkeypatch.syspath_prepend(package.parent)


def test_a_name_is_what_the_table_says(cache, table, capsys):
    sae = load(CANONICAL)
    assert_same_outputs(
        sae, load(FILES / "gemma_scope_first_release_embeddings/embedding/width_16k/average_l0_6"), rows(d=3)
    )
    assert sae.provenance_["model"] == "gemma-2-2b"
    assert_same_outputs(load("res-jb/openai"), load(FILES / "openai_ReLU/6.pt"), rows(d=3))
    assert main(["convert", CANONICAL, str(cache / "sae.safetensors"), "--format", "proxsae"]) == 0
    assert "8 atoms, 3 features" in capsys.readouterr().out


def test_a_file_comes_before_a_name(cache, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("res-jb").mkdir()
    load(FILES / "saelens_standard").save("res-jb/openai")
    assert_same_outputs(load("res-jb/openai"), load(FILES / "saelens_standard"), rows(d=3))


def test_the_scaling_of_a_release_is_folded_in(cache, table):
    (folder,) = cache.glob("models--owner--saes.v1/snapshots/*/saelens_topk")
    raw, X = load(folder), rows(d=3)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").unlink()
    (folder / "cfg.json").write_text(json.dumps({**config, "normalize_activations": "expected_average_only_in"}))
    scaled = load("res-jb/blocks.7.hook_resid_pre")
    np.testing.assert_allclose(scaled.transform(X).toarray(), raw.transform(0.5 * X).toarray(), rtol=1e-5)
    np.testing.assert_allclose(scaled.predict(X), raw.predict(0.5 * X) / 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "res-jb/blocks.8.hook_resid_pre",
            "the release res-jb of SAELens has no 'blocks.8.hook_resid_pre'; it has b",
        ),
        ("res-xx/blocks.7.hook_resid_pre", "no file at .*, nor a release of SAELens called 'res-xx'"),
        (
            "res-wg/blocks.7.hook_resid_pre",
            "is for rows normalised by 'constant_norm_rescale', which its file does",
        ),
        ("gemma-scope-2b-pt-res-canonical/layer_21/width_16k/canonical", "nowhere: the repository has no such file"),
        ("/res-jb/openai", "^no file at /res-jb/openai$"),
        ("./res-jb/openai", "^no file at ./res-jb/openai$"),
        ("res-jb", "^no file at res-jb$"),
    ],
)
def test_what_is_no_release_is_one_sentence(cache, table, name, sentence):
    with pytest.raises(FileNotFoundError, match=sentence):
        load(name)


def test_without_the_package_a_sentence_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(FileNotFoundError, match="if it is a release of SAELens, the package sae-lens is needed"):
        load(CANONICAL)
