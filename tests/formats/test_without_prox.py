"""What is the prox of no R loads, encodes, decodes, is evaluated and written back, and says what it cannot do."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_saes import D, P, UntiedGate, assert_same_outputs, rows, sae_of

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.formats import LargestValues, SAEWithoutProx, load, save
from proxsae.metrics import reconstruction_metrics
from proxsae.solvers import solve

FILE = Path(__file__).parent / "files" / "openai_TopK_without_ReLU" / "6.pt"
THOSE_OF_R = ("refine", "amortization_gap", "fit", "partial_fit", "fit_transform", "calibrate", "as_saelens")
pytestmark = pytest.mark.filterwarnings("ignore:.* is for rows that are normalised first")
quietly = pytest.mark.filterwarnings("ignore:.* is the prox of no R")


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def gate_of(seed=0):
    return UntiedGate(normal(P, D, seed=seed), normal(P, seed=seed + 1), normal(P, D, seed=seed + 2), normal(P))


def test_it_says_so_where_it_is_loaded():
    with pytest.warns(
        UserWarning, match="its activation, 'topk_without_relu', is the prox of no R: it encodes"
    ) as said:
        sae = load(FILE)
    assert {one.filename for one in said} == {__file__}
    assert isinstance(sae, SAEWithoutProx)
    assert repr(sae) == "SAEWithoutProx(8 atoms, 3 features, LargestValues)"
    with pytest.raises(ValueError, match="the prox of no R, L1 included"):
        load(FILE, regularizer="L1")


@quietly
@pytest.mark.parametrize("name", THOSE_OF_R)
def test_what_needs_an_R_is_one_sentence(name):
    sae = load(FILE)
    with pytest.raises(ValueError, match=f"there is no {name}, because LargestValues is the prox of no R; for an R of"):
        getattr(sae, name)(rows(5, 3))
    assert not hasattr(sae, name)
    assert not hasattr(sae, "regularizer_")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sae.nothing


def test_what_the_sentence_advises_does_work():
    sae, X = SAEWithoutProx(normal(P, D), normal(D), gate_of()), rows(50)
    atoms, b = sae.components_, sae.intercept_
    assert np.all(np.isfinite(solve(X, atoms, "NonNegative + 0.1*L1", intercept=b).objective))
    assert ProxSAE("NonNegative + Cardinality(3)", P, n_steps=2).fit(X, init=atoms).score(X) < 1


@quietly
def test_it_is_written_back_and_for_no_other(tmp_path):
    sae = load(FILE)
    save(sae, tmp_path / "6.pt", format="openai")
    assert_same_outputs(sae, load(tmp_path / "6.pt"), rows(40, 3), rtol=2e-6)
    with pytest.raises(ValueError, match="a file of proxsae holds an R, and LargestValues is the prox of none"):
        save(sae, tmp_path / "sae.safetensors")
    with pytest.raises(ValueError, match="sparsify has no place for the activation 'topk_without_relu'"):
        save(sae, tmp_path / "sparsify", format="sparsify")
    untied = SAEWithoutProx(normal(P, D), normal(D), gate_of())
    with pytest.raises(ValueError, match="no library has a file for the encoder UntiedGate"):
        save(untied, tmp_path / "gate", format="saelens")


@pytest.mark.filterwarnings("default")
def test_on_the_command_line(tmp_path, capsys):
    assert main(["convert", str(FILE), str(tmp_path / "6.pt"), "--format", "openai"]) == 0
    out, err = capsys.readouterr()
    assert "8 atoms, 3 features, R = none" in out
    assert "is the prox of no R" in err
    assert main(["convert", str(FILE), str(tmp_path / "sae"), "--format", "saelens"]) == 1
    assert "SAELens has no place for the activation 'topk_without_relu'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_encoder_of_your_own_is_used_as_it_is(dtype):
    encoder, X = gate_of(), rows(30, dtype=dtype)
    sae = SAEWithoutProx(normal(P, D), normal(D), encoder)
    G, g, W, b = (getattr(encoder, name).numpy() for name in ("G", "g", "W", "b"))
    expected = (X @ G.T + g > 0) * np.maximum(X @ W.T + b, 0)
    Z = sae.transform(X)
    assert Z.dtype == dtype
    np.testing.assert_allclose(Z.toarray(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sae.predict(X), expected @ sae.components_ + sae.intercept_, rtol=1e-4, atol=1e-4)


def test_a_tied_gate_is_a_jumprelu():
    """With G = W up to positive factors the gate is that of a threshold, which is the prox of L0."""
    sae = sae_of("0.5*L0 + NonNegative")  # threshold 1
    W, b = sae.encoder_.weight, sae.encoder_.bias
    factor = normal(P).exp()
    untied = SAEWithoutProx(sae.components_, sae.intercept_, UntiedGate(factor[:, None] * W, factor * (b - 1), W, b))
    assert_same_outputs(sae, untied, rows(100), rtol=1e-6)


def test_neither_is_monotone_as_every_prox_is():
    largest = LargestValues(torch.eye(2), torch.zeros(2), 1)
    u, other = torch.tensor([[-2.0, -1.0]]), torch.tensor([[-0.5, -1.0]])
    assert float(((largest(u) - largest(other)) * (u - other)).sum().detach()) < 0


def test_it_is_measured_as_any_other():
    sae, X = SAEWithoutProx(normal(P, D), normal(D), gate_of()), rows(100)
    assert sae.score(X) == pytest.approx(reconstruction_metrics(sae, X)["explained_variance"])
    assert sae.score(X.tolist()) == pytest.approx(sae.score(torch.from_numpy(X)), rel=1e-5)
    with pytest.raises(ValueError, match="X has 3 features, and the model is for 6"):
        sae.transform(X[:, :3])
    with pytest.raises(ValueError, match="contains NaN"):
        sae.transform(X * np.nan)
    for again in (copy.deepcopy(sae), pickle.loads(pickle.dumps(sae))):
        assert_same_outputs(sae, again, X)


@pytest.mark.parametrize(
    "encoder", [gate_of(), LargestValues(normal(P, D), normal(P), P // 2 + 2), torch.nn.Linear(D, P)]
)
def test_saebench_takes_it(encoder):
    sae, X = SAEWithoutProx(normal(P, D), normal(D), encoder, {"model": "gpt2", "site": "block.7"}), rows(20)
    theirs = sae.as_saebench()
    assert theirs.cfg.d_sae == (P if isinstance(encoder, UntiedGate) else 2 * P)
    assert theirs.cfg.architecture == f"proxsae {type(encoder).__name__}"
    assert (theirs.encode(torch.from_numpy(X)) >= 0).all()
    np.testing.assert_allclose(theirs(torch.from_numpy(X)).detach().numpy(), sae.predict(X), rtol=0, atol=1e-4)
