"""hf:// names, on a local stand-in of the layout of the Hub's cache; nothing is downloaded."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from small_saes import assert_same_outputs, rows

from proxsae.cli import main
from proxsae.formats import load

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


@pytest.mark.parametrize("name", ["hf://", "hf://owner", "hf://owner/saes/../../etc", "hf:///saes/x", "hf://a/b@/c"])
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
