"""R where it is more than its activation: given, or noted by save; the codes stay what they are."""

import json

import numpy as np
import pytest
from small_saes import P, assert_same_outputs, rows, sae_of

from proxsae.cli import main
from proxsae.formats import load, save
from proxsae.regularizers import L1, NonNegative, parse

RS = [
    "0.2*L1 + NonNegative",
    "0.2*L1",
    "0.2*L1 + 0.5*SquaredL2",
    "0.2*L1 + 0.3*L0 + NonNegative",
    "0.2*L1 + Cardinality(3)",
    "0.2*L1 + 0.5*SquaredL2 + NonNegative + Cardinality(3)",
    "AsymmetricL0(0.1, 0.4)",
    "Tilt(0.3) + 0.2*L1",
]


@pytest.mark.parametrize("R", RS)
def test_what_save_notes_comes_back(tmp_path, R):
    sae = sae_of(R)
    save(sae, tmp_path / "sae", format="saelens")
    again = load(tmp_path / "sae")
    assert again.regularizer_ == sae.regularizer_
    np.testing.assert_allclose(again.encoder_.weight, sae.encoder_.weight, rtol=1e-6)
    assert_same_outputs(sae, again, rows(), rtol=2e-6)


def test_the_gap_of_the_encoder_is_that_of_the_noted_regularizer(tmp_path):
    sae, X = sae_of("0.2*L1 + NonNegative"), rows(20)
    save(sae, tmp_path / "sae", format="saelens")
    gap = sae.amortization_gap(X)
    np.testing.assert_allclose(load(tmp_path / "sae").amortization_gap(X), gap, rtol=1e-3)


@pytest.mark.parametrize("name", ["gemma_scope", "dictionary_learning"])
@pytest.mark.parametrize("R", RS[:3])
def test_where_no_file_says_it_the_user_does(tmp_path, name, R):
    sae = sae_of(R)
    save(sae, tmp_path / "sae", format=name)
    # one weight of both signs is found in the biases of the pairs
    assert (load(tmp_path / "sae").regularizer_ == sae.regularizer_) == (R == "0.2*L1")
    again = load(tmp_path / "sae", regularizer=R)
    assert again.regularizer_ == parse(R)
    assert again.components_.shape == sae.components_.shape
    assert_same_outputs(sae, again, rows(), rtol=2e-6)


def test_any_weight_of_l1_has_the_codes_of_a_relu(tmp_path):
    sae = sae_of("NonNegative")
    save(sae, tmp_path / "sae", format="dictionary_learning")
    for weight in (0.0, 0.7, np.linspace(0, 2, P)):
        again = load(tmp_path / "sae", regularizer=weight * L1() + NonNegative())
        assert_same_outputs(sae, again, rows(), rtol=2e-6)


@pytest.mark.parametrize(
    "R", ["0.2*L1", "0.2*L0 + NonNegative", "NonNegative + Cardinality(3)", "Cardinality(3)", "0.2*L0"]
)
def test_what_is_not_the_activation_is_one_sentence(tmp_path, R):
    save(sae_of("NonNegative"), tmp_path / "sae", format="dictionary_learning")
    with pytest.raises(ValueError, match=r"is not the prox of .* with any scale and bias"):
        load(tmp_path / "sae", regularizer=R)


def test_a_note_that_no_longer_fits_is_not_believed(tmp_path):
    """Another library may have trained on, and keeps the note."""
    save(sae_of("0.2*L1"), tmp_path / "sae", format="saelens")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    plain = load(tmp_path / "sae")
    for note in ("Cardinality(3)", "no such thing", "MCP(3.0)", "L1(1, 2, 3)", "Box(1)", "1e300*L1"):
        config["metadata"]["proxsae_regularizer"] = note
        (tmp_path / "sae" / "cfg.json").write_text(json.dumps(config))
        assert_same_outputs(plain, load(tmp_path / "sae"), rows(), rtol=2e-6)


def test_our_own_file_says_its_own(tmp_path):
    sae_of("NonNegative").save(tmp_path / "sae")
    with pytest.raises(ValueError, match="sae is a file of proxsae, which says its own regularizer"):
        load(tmp_path / "sae", regularizer="0.1*L1 + NonNegative")


def test_the_command_takes_it(tmp_path, capsys):
    save(sae_of("NonNegative"), tmp_path / "sae", format="dictionary_learning")
    arguments = ["convert", str(tmp_path / "sae"), str(tmp_path / "ours"), "--format", "proxsae"]
    assert main([*arguments, "-R", "0.1*L1+NonNegative"]) == 0
    assert "R = 0.1*L1() + NonNegative()" in capsys.readouterr().out
    assert main([*arguments, "-R", "Cardinality(3)"]) == 1
    assert "is not the prox of Cardinality(3) with any scale and bias" in capsys.readouterr().err
