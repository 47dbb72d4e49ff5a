"""Files that other libraries wrote give the outputs that those libraries recorded; see peers/make_foreign.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from proxsae.formats import load
from proxsae.solvers import solve

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("files/*/recorded.json"))


def test_the_files_are_there():
    assert len(FOLDERS) >= 11


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_outputs_are_those_of_the_library(folder):
    recorded = json.loads((folder / "recorded.json").read_text())
    X, codes, reconstruction = (np.float32(recorded[name]) for name in ("rows", "codes", "reconstruction"))
    sae = load(folder / recorded["path"])
    Z = sae.transform(X)
    assert Z.nnz > 0
    np.testing.assert_allclose(np.sort(Z.toarray()), np.sort(codes), rtol=0, atol=2e-6 * np.abs(codes).max())
    np.testing.assert_allclose(
        sae.inverse_transform(Z), reconstruction, rtol=0, atol=2e-6 * np.abs(reconstruction).max()
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_loaded_model_is_a_fitted_one(folder):
    """Its regularizer is that of its codes: the encoder is the prox, and a solver takes R."""
    recorded = json.loads((folder / "recorded.json").read_text())
    X = np.float32(recorded["rows"])
    sae = load(folder / recorded["path"])
    u = X @ sae.encoder_.weight.numpy().T + sae.encoder_.bias.numpy()
    np.testing.assert_allclose(sae.regularizer_.prox(u), sae.transform(X).toarray(), rtol=0, atol=1e-5)
    assert np.isfinite(sae.score(X))
    found = solve(
        X[:2], sae.components_, sae.regularizer_, intercept=sae.intercept_, init=sae.transform(X[:2]).toarray()
    )
    assert np.all(np.isfinite(found.objective))
