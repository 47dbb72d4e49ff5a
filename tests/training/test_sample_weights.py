"""Weights of samples: 0 is a row left out, 2 a row there twice; exactly, where every batch is the whole data."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from proxsae import ProxSAE, fit_many
from proxsae.data.rows import Rows, with_weights
from proxsae.data.stream import ShuffledRows
from proxsae.dictionary import MOD, Online
from proxsae.encoders import Solved, Unrolled
from proxsae.regularizers import L0, L1, Cardinality, NonNegative, Simplex
from proxsae.training import HierarchicalTopK, Matryoshka

WEIGHTS = np.arange(60) % 4


@pytest.fixture(scope="module")
def X():
    X = np.random.default_rng(0).normal(size=(60, 8)) + np.arange(8)
    return X * (1 + WEIGHTS[:, None])  # so that mean, scale and norms depend on the weights


def fitted(R, X, Y=None, weights=None, **options):
    """Fit in full batches; atoms are dead after a number of passes, which is counted in rows."""
    atoms = np.random.default_rng(1).normal(size=(24, X.shape[1] if Y is None else Y.shape[1]))
    options = {"n_steps": 12, "batch_size": 1000, "random_state": 0, **options}
    options["dead_after"] = options.pop("passes", 6) * np.count_nonzero(np.ones(len(X)) if weights is None else weights)
    return ProxSAE(R, 24, **options).fit(X, Y, weights, init=atoms)


def assert_same(one, other, X, tol=1e-9):
    np.testing.assert_allclose(one.components_, other.components_, atol=tol)
    np.testing.assert_allclose(one.predict(X), other.predict(X), atol=1000 * tol)
    for name in ("loss", "fvu", "l0"):
        np.testing.assert_allclose(one.history_[name], other.history_[name], rtol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("R", "options"),
    [
        (Cardinality(3), {"n_steps": 20, "passes": 2}),  # with dead atoms
        (0.5 * L1() + NonNegative(), {"loss": Matryoshka((8, 24))}),
        (L0() + NonNegative(), {"target_l0": 3}),
        (Simplex(3.0), {}),
        (Cardinality(6), {"loss": HierarchicalTopK((2, 6)), "max_norm_ratio": 1.6}),
        (Cardinality(3), {"encoder": Unrolled(2, isometry=0.1)}),
        (0.5 * L1(), {"encoder": Unrolled(2), "target_l0": 4, "n_steps": 4}),
        (0.5 * L1(), {"encoder": Solved(tol=1e-10), "update": Online()}),
        (0.5 * L1(), {"encoder": Solved(tol=1e-10), "update": MOD()}),
        (Cardinality(3), {"encoder": Solved("omp"), "update": "ksvd"}),
        (0.5 * L1(), {"encoder": Solved(tol=1e-10), "update": "gradient"}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.* of 24 atoms were used by none")
def test_two_is_twice_and_zero_is_nothing(R, options, X):
    weighted, repeated = fitted(R, X, weights=WEIGHTS, **options), fitted(R, np.repeat(X, WEIGHTS, axis=0), **options)
    assert_same(weighted, repeated, X, 1e-6)
    assert np.abs(weighted.components_ - fitted(R, X, **options).components_).max() > 1e-3
    left_out = fitted(R, X[WEIGHTS > 0], **options)
    assert_same(fitted(R, X, weights=2.5 * (WEIGHTS > 0), **options), left_out, X, 0)


def test_targets_have_the_weights_of_their_rows(X):
    Y = np.random.default_rng(2).normal(size=(60, 5)) * (1 + WEIGHTS[:, None])
    twice = [np.repeat(part, WEIGHTS, axis=0) for part in (X, Y)]
    weighted, repeated = fitted(L1(), X, Y, WEIGHTS), fitted(L1(), *twice)
    assert_same(weighted, repeated, X, 1e-6)
    assert weighted.score(X, Y, WEIGHTS) == pytest.approx(repeated.score(*twice))
    start = {"skip_connection": True, "n_steps": 1, "learning_rate": 1e-12}
    linear = LinearRegression().fit(X, Y, WEIGHTS)
    np.testing.assert_allclose(fitted(L1(), X, Y, WEIGHTS, **start).skip_.T, linear.coef_, atol=1e-4)
    (of_many,) = fit_many([ProxSAE(L1(), 24, n_steps=3, random_state=0)], X, Y, WEIGHTS)
    alone = ProxSAE(L1(), 24, n_steps=3, random_state=0).fit(X, Y, WEIGHTS)
    np.testing.assert_array_equal(of_many.components_, alone.components_)


def test_weights_hold_in_small_batches_and_in_every_kind_of_rows(X, tmp_path):
    # rows of weight 0 change no batch, and a weight that is the same for all changes nothing at all
    np.save(tmp_path / "x.npy", X)
    options = {"batch_size": 16, "n_steps": 30}
    plain = fitted(Cardinality(3), X[WEIGHTS > 0], weights=WEIGHTS[WEIGHTS > 0], **options)
    for rows in (X, torch.from_numpy(X), np.load(tmp_path / "x.npy", mmap_mode="r")):
        weighted = fitted(Cardinality(3), rows, weights=WEIGHTS.tolist(), **options)
        np.testing.assert_array_equal(weighted.components_, plain.components_)
    same = fitted(Cardinality(3), X, weights=np.full(60, 7.0), **options)
    np.testing.assert_array_equal(same.components_, fitted(Cardinality(3), X, **options).components_)
    much = fitted(Cardinality(1), X, weights=np.where(np.arange(60) < 6, 1e6, 1.0), n_steps=100, learning_rate=2e-2)
    assert much.score(X[:6]) > fitted(Cardinality(1), X, n_steps=100, learning_rate=2e-2).score(X[:6]) + 0.05


def test_going_on_takes_weights_too(X):
    one, other = (ProxSAE(Cardinality(3), 24, batch_size=1000, random_state=0) for _ in range(2))
    for _ in range(3):
        one.partial_fit(X, None, WEIGHTS)
        other.partial_fit(np.repeat(X, WEIGHTS, axis=0))
    np.testing.assert_allclose(one.components_, other.components_, atol=1e-6)


def test_a_checkpoint_is_that_of_its_weights(X, tmp_path):
    options = {"n_steps": 10, "checkpoint_dir": tmp_path, "checkpoint_every": 5, "random_state": 0}
    sae = ProxSAE(Cardinality(3), 24, **options)
    whole = sae.fit(X, sample_weight=WEIGHTS).components_
    (tmp_path / "step-00000010.safetensors").unlink()
    np.testing.assert_array_equal(sae.fit(X, sample_weight=WEIGHTS, resume=True).components_, whole)
    with pytest.raises(ValueError, match="checkpoint of another fit: its X"):
        sae.fit(X, sample_weight=WEIGHTS[::-1] + 1, resume=True)


def test_the_score_is_that_of_scikit_learn(X):
    sae = fitted(Cardinality(3), X)
    wanted = r2_score(X, sae.predict(X), sample_weight=WEIGHTS, multioutput="variance_weighted")
    assert sae.score(X, sample_weight=WEIGHTS) == pytest.approx(wanted, rel=1e-12)
    sae.batch_size = 7
    assert sae.score(X, None, WEIGHTS) == pytest.approx(wanted, rel=1e-12)
    assert sae.score(X) != pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("R", "rows", "weights", "message"),
    [
        (Cardinality(3), None, -WEIGHTS, "Negative values in data passed to `sample_weight`"),
        (Cardinality(3), None, np.zeros(60), "zero"),
        (Cardinality(3), None, np.ones(59), r"sample_weight.shape == \(59,\), expected \(60,\)"),
        (Cardinality(3), None, np.full(60, np.nan), "Input sample_weight contains NaN"),
        (Cardinality(3, "batch"), None, WEIGHTS, "shares non-zeros out among the rows of a batch"),
        (Cardinality(3), ShuffledRows, WEIGHTS, "no targets Y and no weights can go with them"),
    ],
)
def test_what_does_not_fit_is_refused(X, R, rows, weights, message):
    with pytest.raises(ValueError, match=message):
        ProxSAE(R, 24, n_steps=2).fit(X if rows is None else rows(X), sample_weight=weights)


def test_weights_of_any_size_have_mean_one(X):
    for scale in (1e-300, 1.0, 1e306):
        rows = with_weights(Rows(X), scale * WEIGHTS)
        np.testing.assert_allclose(rows.weights, WEIGHTS[WEIGHTS > 0] / 2, rtol=1e-12)
