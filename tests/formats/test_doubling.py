"""A signed model written as a non-negative one of twice the atoms, and folded back where that is exact."""

import numpy as np
import pytest
import torch
from small_saes import D, P, assert_same_outputs, rows, sae_of

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.formats.activations import activation_sides, regularizer_of_parts
from proxsae.formats.doubling import encoder_and_atoms, parts_of
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, SquaredL2, parse

EACH = np.linspace(0.05, 0.6, P)
SIGNED = [
    "Cardinality(3)",
    "0.2*L1",
    "0.2*L0",
    "AsymmetricL0(0.1, 0.4)",
    "0.2*L1 + 0.3*L0",
    "0.2*L1 + Cardinality(3)",
    "0.2*L1 + 0.5*SquaredL2 + 0.3*L0",
    "0.2*L1 + 0.5*SquaredL2 + Cardinality(3)",
    "Tilt(0.3) + 0.2*L1",
    "0.5*SquaredL2 + Cardinality(3)",
    EACH * L1(),
    EACH * L0(),
    EACH * L1() + EACH[::-1].copy() * SquaredL2() + EACH * L0(),
]
NON_NEGATIVE = [
    "NonNegative",
    "0.2*L1 + NonNegative",
    "0.2*L0 + NonNegative",
    "NonNegative + Cardinality(3)",
    "0.2*L1 + NonNegative + Cardinality(3)",
    "0.2*L1 + 0.5*SquaredL2 + 0.3*L0 + NonNegative",
    EACH * L1() + NonNegative(),
]


def unfolded(parts):
    """The model that the parts are, without folding."""
    encoder = Amortized.of(regularizer_of_parts(parts), parts.weight, parts.bias)
    return ProxSAE.from_parts(parts.atoms, parts.intercept, encoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("R", SIGNED, ids=str)
def test_a_signed_model_is_a_non_negative_one_of_twice_the_atoms(R, dtype):
    X = rows(dtype=str(dtype).removeprefix("torch."))
    sae, rtol = sae_of(R, dtype=dtype), 1e-6 if dtype == torch.float32 else 1e-14
    double = unfolded(parts_of(sae, "double"))
    assert double.components_.shape == (2 * P, D)
    assert double.regularizer_.is_nonnegative
    Z, pairs = sae.transform(X).toarray(), double.transform(X).toarray()
    assert (Z > 0).any()
    assert (Z < 0).any()
    np.testing.assert_allclose(pairs[:, :P], np.maximum(Z, 0), rtol=0, atol=rtol * np.abs(Z).max())
    np.testing.assert_allclose(pairs[:, P:], np.maximum(-Z, 0), rtol=0, atol=rtol * np.abs(Z).max())
    outputs = sae.inverse_transform(Z)
    np.testing.assert_allclose(double.inverse_transform(pairs), outputs, rtol=0, atol=rtol * np.abs(outputs).max())


@pytest.mark.parametrize("R", SIGNED, ids=str)
def test_a_doubled_model_is_folded_back(R):
    sae, X = sae_of(R), rows()
    parts = parts_of(sae, "double")
    encoder, atoms = encoder_and_atoms(parts)
    again = ProxSAE.from_parts(atoms, parts.intercept, encoder)
    np.testing.assert_array_equal(again.components_, sae.components_)
    assert_same_outputs(sae, again, X, rtol=1e-6)


@pytest.mark.parametrize("R", ["Cardinality(3)", "0.2*L0", "AsymmetricL0(0.1, 0.4)"])
def test_where_nothing_is_added_to_a_bias_folding_back_is_exact(R):
    sae = sae_of(R)
    encoder, _ = encoder_and_atoms(parts_of(sae, "double"))
    assert torch.equal(encoder.weight, sae.encoder_.weight)
    assert torch.equal(encoder.bias, sae.encoder_.bias)
    np.testing.assert_array_equal(encoder.regularizer.prox(rows(d=P)), sae.regularizer_.prox(rows(d=P)))


@pytest.mark.parametrize("R", NON_NEGATIVE, ids=str)
def test_a_non_negative_model_keeps_its_atoms(R):
    sae, X = sae_of(R), rows()
    parts = parts_of(sae, "double")
    assert parts.atoms.shape == (P, D)
    assert_same_outputs(sae, unfolded(parts), X, rtol=1e-6)


def test_thresholds_are_met_exactly():
    """The threshold that is written is the number at which the prox is 0 and after which it is not."""
    theta = np.float32(np.random.default_rng(0).uniform(0.01, 3, P))
    sae = sae_of(0.5 * torch.as_tensor(theta) ** 2 * L0() + NonNegative())
    parts = parts_of(sae, "double")
    np.testing.assert_array_equal(parts.threshold.numpy(), theta)
    R = regularizer_of_parts(parts)
    np.testing.assert_array_equal(R.prox(theta), 0)
    np.testing.assert_array_equal(R.prox(np.nextafter(theta, np.float32(9))), np.nextafter(theta, np.float32(9)))


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.weight[P].add_(1e-6),
        lambda parts: parts.atoms[-1, 0].add_(1e-6),
        lambda parts: parts.bias[-1].add_(1.0),  # both codes of the pair may then be positive
    ],
)
def test_what_is_not_tied_is_not_folded(change):
    sae = sae_of("0.2*L0")
    parts = parts_of(sae, "double")
    change(parts)
    encoder, atoms = encoder_and_atoms(parts)
    assert atoms.shape == (2 * P, D)
    assert encoder.regularizer.is_nonnegative


@pytest.mark.parametrize(
    ("R", "sentence"),
    [
        ("MCP(3.0)", "no other library has the activation of MCP"),
        ("Simplex", "no other library has the activation of Simplex"),
        ("Cardinality(3, 'batch')", "selects over a batch"),
        ("0.2*L0 + Cardinality(3)", "no other library has both"),
        (EACH * SquaredL2() + parse("Cardinality(3)"), "not in the order of the codes"),
        ("Box(0.0, 1.0)", "no other library has the activation of Box"),
    ],
)
def test_what_no_library_has_is_one_sentence(R, sentence):
    with pytest.raises(ValueError, match=sentence):
        activation_sides(parse(R) if isinstance(R, str) else R)


def test_native_signs_are_for_abstopk():
    parts = parts_of(sae_of("Cardinality(3)"), "native")
    assert (parts.activation, parts.k, len(parts.atoms)) == ("abstopk", 3, P)
    with pytest.raises(ValueError, match=r'signed="native" is for AbsTopK alone'):
        parts_of(sae_of("0.2*L1"), "native")


@pytest.mark.parametrize("weight", [0.3, 0.2, 1 / 3, 2.0, 1e-3, 123.456])
def test_one_weight_is_one_number_again(weight):
    R = weight * L1()
    encoder, _ = encoder_and_atoms(parts_of(sae_of(R), "double"))
    again = encoder.regularizer
    assert np.ndim(again.weight) == 0
    assert float(again.weight) == pytest.approx(weight, rel=1e-5)
    assert again == R or weight == 1 / 3
    sae = sae_of(R + Cardinality(3))
    assert encoder_and_atoms(parts_of(sae, "double"))[0].regularizer.terms[0].weight == again.weight


def test_weights_that_differ_by_more_than_rounding_stay():
    weights = 0.3 + 1e-5 * np.arange(P)
    encoder, _ = encoder_and_atoms(parts_of(sae_of(weights * L1()), "double"))
    np.testing.assert_allclose(encoder.regularizer.weight, weights, atol=1e-6)
    assert np.ptp(encoder.regularizer.weight) > 1e-5
