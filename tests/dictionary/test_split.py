"""`error_split` blames whichever was spoiled: the dictionary, or the inference."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import config_context

from proxsae import ProxSAE
from proxsae.dictionary import error_split, sparse_signals, sphere_atoms
from proxsae.encoders import Solved
from proxsae.metrics import reconstruction_metrics
from proxsae.regularizers import L1, Cardinality, NonNegative


class Fitted:
    """An autoencoder with given parts: its codes are those of a solver, spoiled by a function."""

    def __init__(self, D, R, spoil=lambda Z: Z):
        self.sae = ProxSAE.from_parts(D, np.zeros(D.shape[1]), Solved.of(R, tol=1e-6))
        self.components_, self.intercept_, self.regularizer_, self.spoil = D, np.zeros(D.shape[1]), R, spoil

    def transform(self, X):
        return csr_matrix(self.spoil(self.sae.transform(X).toarray()))


@pytest.fixture(scope="module")
def data():
    return sparse_signals(300, sphere_atoms(20, 12, random_state=0), 2, exact=True, noise=0.01, random_state=0)


def test_a_poor_encoder_is_blamed(data):
    half = Fitted(data.dictionary, Cardinality(2), lambda Z: 0.5 * Z)
    split = error_split(half, data.X, data.dictionary, data.codes, random_state=0)
    assert split.inference > 0.2
    assert abs(split.dictionary) < 1e-3
    table = {(row.dictionary, row.codes): row for row in split.rows}
    assert table["learned", "refined"].fvu == pytest.approx(table["true", "solved"].fvu, abs=1e-4)
    assert table["learned", "refined"].cosine == pytest.approx(1)
    assert table["learned", "OMP"].iou > 0.8
    assert table["random", "OMP"].cosine < 0.8
    assert table["rows of X", "OMP"].cosine < 0.9
    assert table["random", "OMP"].fvu > table["learned", "OMP"].fvu


def test_rows_as_atoms_are_not_measured_on_themselves():
    """Rows that no others resemble are no better atoms than random ones."""
    X = np.random.default_rng(0).normal(size=(60, 40))
    split = error_split(Fitted(sphere_atoms(60, 40, random_state=0), Cardinality(2)), X, random_state=0)
    random, rows = (next(row for row in split.rows if row.dictionary == name) for name in ("random", "rows of X"))
    assert rows.fvu > 0.9 * random.fvu
    assert rows.l0 == 2


def test_a_poor_dictionary_is_blamed(data):
    other = Fitted(sphere_atoms(20, 12, random_state=1), Cardinality(2))
    split = error_split(other, data.X.astype(np.float32), data.dictionary, csr_matrix(data.codes), random_state=0)
    assert abs(split.inference) < split.dictionary
    assert split.rows[0].f1 < 0.7
    assert split.rows[3].f1 > split.rows[0].f1


def test_without_a_truth_there_is_no_recovery(data):
    split = error_split(Fitted(data.dictionary, NonNegative() + Cardinality(2)), data.X[:50], random_state=0)
    assert split.dictionary is None
    assert all(row.cosine is row.f1 is row.iou is row.correlation is None for row in split.rows)
    assert [row.codes for row in split.rows] == ["learned", "refined", "OMP", "OMP", "OMP"]
    assert max(row.l0 for row in split.rows) <= 2
    lines = str(split).splitlines()
    assert lines[0].split() == ["dictionary", "codes", "fvu", "l0", "cosine", "f1", "iou", "correlation"]
    assert len(lines) == 7
    assert "None" not in str(split)
    with_truth = str(error_split(Fitted(data.dictionary, 0.1 * L1()), data.X[:50], data.dictionary))
    assert with_truth.splitlines()[-1].startswith("FVU lost by the dictionary: ")


def test_measures_do_not_depend_on_the_container_of_codes(data):
    def measured():
        return reconstruction_metrics(sae, data.X), str(error_split(sae, data.X[:10], random_state=0))

    sae = ProxSAE(Cardinality(2), 20, n_steps=2, random_state=0).fit(data.X)
    metrics, split = measured()
    with config_context(transform_output="pandas"):
        assert measured() == (metrics, split)
    sae.set_params(sparse_output=False).set_output(transform="pandas")
    assert measured() == (pytest.approx(metrics), split)


def test_a_transcoder_is_refused(data):
    sae = ProxSAE(Cardinality(2), 20, n_steps=2, random_state=0).fit(data.X, data.X[:, :5])
    with pytest.raises(ValueError, match="a transcoder decodes to targets"):
        error_split(sae, data.X)


def test_bad_input_is_one_sentence(data):
    sae = Fitted(data.dictionary, 0.1 * L1())
    with pytest.raises(ValueError, match=r"sae must be fitted, .* got ProxSAE without components_"):
        error_split(ProxSAE(L1()), data.X)
    with pytest.raises(ValueError, match="Z_true needs D_true"):
        error_split(sae, data.X, Z_true=data.codes)
    with pytest.raises(ValueError, match="Z_true must have 20 components as D_true has atoms, got 19"):
        error_split(sae, data.X, data.dictionary, data.codes[:, :19])
