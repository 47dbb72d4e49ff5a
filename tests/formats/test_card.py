"""The card of a folder says what the model says, and takes the place of no other."""

import re

import pytest
import yaml
from small_saes import D, P, sae_of

from proxsae.formats import load, save

PLACE = {"model": "owner/model-1", "site": "block.7", "text": "wikitext", "dropped_positions": [0], "tokens_seen": 5000}


def card_of(folder):
    """The front matter, the rows of the table and the whole."""
    text = (folder / "README.md").read_text()
    _, front, _ = text.split("---\n", 2)
    rows = [re.fullmatch(r"\| (.+) \| (.+) \|", line) for line in text.splitlines() if line.startswith("| ")]
    return yaml.safe_load(front), {row[1]: row[2] for row in rows if row}, text


def test_it_says_what_the_model_says(tmp_path):
    sae = sae_of("Cardinality(3)")
    sae.provenance_ = PLACE
    save(sae, tmp_path, format="saelens")
    front, rows, text = card_of(tmp_path)
    assert front == {
        "library_name": "saelens",
        "tags": ["sparse-autoencoder", "proxsae"],
        "base_model": "owner/model-1",
    }
    assert rows == {
        "regularizer R": "Cardinality(3)",
        "features": str(D),
        "atoms": str(P),
        "numbers": "float32",
        "here, for SAELens": f"TopK, then ReLU, k = 3; {2 * P} atoms, each once with either sign",
        "language model": "owner/model-1",
        "place in it": "block.7",
        "place in it, for TransformerLens": "blocks.6.hook_resid_post",
        "text": "wikitext",
        "positions dropped": "[0]",
        "tokens seen in training, repeats included": "5000",
    }
    assert 'SAE.load_from_disk("FOLDER")' in text


@pytest.mark.parametrize(
    ("name", "R"), [("sparsify", "Cardinality(3)"), ("gemma_scope", "0.2*L0"), ("llama_scope", "0.2*L1 + NonNegative")]
)
def test_what_is_not_known_is_not_said(tmp_path, name, R):
    save(sae_of(R), tmp_path, format=name)
    front, rows, _ = card_of(tmp_path)
    assert front == {"library_name": name, "tags": ["sparse-autoencoder", "proxsae"]}
    assert len(rows) == 5
    load(tmp_path)  # and the card is in no reader's way


def test_the_card_of_another_stays(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("My notes on proxsae.\n")
    save(sae_of("0.2*L0"), tmp_path, format="saelens")
    assert card.read_text() == "My notes on proxsae.\n"
    card.unlink()
    save(sae_of("0.2*L0"), tmp_path, format="saelens")
    save(sae_of("Cardinality(3)"), tmp_path, format="saelens")
    assert card_of(tmp_path)[1]["regularizer R"] == "Cardinality(3)"


def test_what_a_stranger_wrote_stays_in_its_cell(tmp_path):
    sae = sae_of("Cardinality(3)")
    sae.provenance_ = {"model": "a/b\nlicense: mit", "text": "x | y\n\n# Title `z`" + 500 * "w", "site": "block.7"}
    save(sae, tmp_path, format="saelens")
    front, rows, text = card_of(tmp_path)
    assert set(front) == {"library_name", "tags"}
    assert "# Title" not in [line[:7] for line in text.splitlines()]
    assert len(rows["text"]) < 250


def test_a_file_of_ours_or_of_another_library_has_none(tmp_path):
    save(sae_of("0.3*L1 + NonNegative"), tmp_path / "6.pt", format="openai")
    save(sae_of("0.2*L0"), tmp_path / "sae.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6.pt", "sae.safetensors"]
