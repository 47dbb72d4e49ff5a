"""Synthetic data are made as they say: atoms, rates, signs, hierarchy, correlation, noise."""

import numpy as np
import pytest
from scipy.stats import binom

from proxsae.dictionary import forest, signals, sparse_signals, sphere_atoms


def within_chance(counts, n, rates):
    """Whether counts are those of binomial draws, with five standard deviations of room."""
    return (np.abs(counts - n * rates) <= 5 * binom.std(n, np.minimum(rates, 1)) + 1e-9).all()


def firing(data):
    return data.codes.toarray() != 0


@pytest.mark.parametrize(("p", "d"), [(40, 16), (5, 16), (200, 20)])
def test_atoms_have_norm_one_and_the_seed_decides(p, d):
    D = sphere_atoms(p, d, random_state=0)
    assert D.shape == (p, d)
    np.testing.assert_allclose(np.linalg.norm(D, axis=1), 1)
    np.testing.assert_array_equal(D, sphere_atoms(p, d, random_state=0))
    assert not np.array_equal(D, sphere_atoms(p, d, random_state=1))


def test_rates_of_zipf():
    n = 20_000
    for zipf in (0.0, 0.7, 1.5):
        data = sparse_signals(n, sphere_atoms(30, 8, random_state=0), 3.0, zipf=zipf, random_state=1)
        assert data.rates.sum() == pytest.approx(3)
        assert data.rates.max() <= 1
        free = data.rates < 1
        np.testing.assert_allclose(
            (data.rates * np.arange(1, 31) ** zipf)[free], (data.rates[free][-1]) * 30.0**zipf, rtol=1e-12
        )
        assert within_chance(firing(data).sum(0), n, data.rates)
    np.testing.assert_allclose(signals.firing_rates(5, 5, 2.0), 1)


def test_signals_are_codes_times_atoms_plus_noise_in_any_blocks(monkeypatch):
    D = sphere_atoms(30, 500, random_state=0)
    data = sparse_signals(400, D, 4, exact=True, noise=0.3, magnitudes=(0.5, 0.6), random_state=0)
    residual = data.X - data.codes @ D
    assert residual.std() == pytest.approx(0.3, rel=0.01)
    assert (np.diff(data.codes.indptr) == 4).all()
    assert ((np.abs(data.codes.data) >= 0.5) & (np.abs(data.codes.data) <= 0.6)).all()
    monkeypatch.setattr(signals, "BLOCK", 30 * 90)
    blocks = sparse_signals(400, D, 4, exact=True, random_state=0)
    assert blocks.codes.shape == (400, 30)
    assert (np.diff(blocks.codes.indptr) == 4).all()
    np.testing.assert_allclose(blocks.X, blocks.codes @ D)


def test_the_share_of_bipolar_atoms():
    for share in (0.0, 0.3, 1.0):
        data = sparse_signals(4000, sphere_atoms(40, 8, random_state=0), 4, bipolar=share, random_state=0)
        negative, positive = ((sign * data.codes.toarray() > 0).sum(0) for sign in (-1, 1))
        assert data.is_bipolar.sum() == round(40 * share)
        assert (negative[~data.is_bipolar] == 0).all()
        fires = (negative + positive)[data.is_bipolar]
        assert (np.abs(negative[data.is_bipolar] - fires / 2) < 5 * np.sqrt(fires / 4)).all()


def test_a_child_fires_only_with_its_parent_and_as_often_as_it_should():
    n, parents = 40_000, forest(21, 1, 4)
    assert parents[:7].tolist() == [-1, 0, 0, 0, 0, 1, 1]
    assert parents[20] == 4
    D = sphere_atoms(21, 8, random_state=0)
    data = sparse_signals(n, D, 3.0, zipf=0.5, parents=parents, random_state=0)
    fires = firing(data)
    assert (fires[:, 1:] <= fires[:, parents[1:]]).all()
    assert within_chance(fires.sum(0), n, data.rates)
    alone = firing(sparse_signals(n, D, 3.0, zipf=0.5, parents=parents, exclusive=True, random_state=0))
    assert (alone[:, 1:] <= alone[:, parents[1:]]).all()
    for parent in range(5):
        assert alone[:, parents == parent].sum(1).max() == 1
        assert fires[:, parents == parent].sum(1).max() > 1


def test_atoms_that_no_exact_code_reaches_are_told():
    """With equal rates a root and its children take all non-zeros."""
    D, parents = sphere_atoms(50, 20, random_state=0), forest(50, 5, 3)
    with pytest.warns(UserWarning, match="^30 of 50 atoms, low in the hierarchy, are in no sample"):
        data = sparse_signals(2000, D, 4, exact=True, parents=parents, random_state=0)
    assert (data.codes.getnnz(axis=0)[20:] == 0).all()


@pytest.mark.filterwarnings("ignore:.*low in the hierarchy")
@pytest.mark.parametrize(("zipf", "n_patterns"), [(0.0, 3), (1.0, 50)])
def test_exact_and_exclusive_codes_of_a_hierarchy(zipf, n_patterns):
    """With equal rates a child is sure to fire where it may, and the root decides."""
    D, parents = sphere_atoms(30, 10, random_state=0), forest(30, 3, 2)
    options = {"zipf": zipf, "parents": parents, "random_state": 0}
    exact = firing(sparse_signals(500, D, 6, exact=True, **options))
    assert (exact.sum(1) == 6).all()
    assert (exact[:, 3:] <= exact[:, parents[3:]]).all()
    assert len(np.unique(exact, axis=0)) >= n_patterns
    for alone in (firing(sparse_signals(500, D, 6, exclusive=True, exact=e, **options)) for e in (False, True)):
        assert alone.sum(1).max() >= 3
        assert max(alone[:, parents == parent].sum(1).max() for parent in range(14)) == 1
        both = [alone[:, child].any() for child in (3, 4)]
        assert both == [True, True]


def test_rates_that_underflow():
    rates = signals.firing_rates(4000, 3000, 1e3)
    assert (np.diff(rates) <= 0).all()
    assert rates[0] == 1 > rates[3500]
    np.testing.assert_allclose(rates.sum(), 3000)


def test_common_factors_correlate_the_firing():
    D = sphere_atoms(30, 8, random_state=0)
    free, tied = (firing(sparse_signals(20_000, D, 6.0, correlation=c, random_state=0)) for c in (0.0, 0.6))
    off = ~np.eye(30, dtype=bool)
    chance, real = (np.abs(np.corrcoef(fires.T)[off]).mean() for fires in (free, tied))
    assert chance < 0.01 < 5 * 0.01 < real
    assert within_chance(tied.sum(0), 20_000, np.full(30, 0.2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"l0": 0}, "l0 must lie between 0 and the 6 atoms, got 0"),
        ({"l0": 7}, "l0 must lie between 0 and the 6 atoms, got 7"),
        ({"l0": 2.5, "exact": True}, "l0 must be an integer where it is exact, got 2.5"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 2.5}, "n_samples must be an integer >= 1, got 2.5"),
        ({"l0": "two"}, "l0 must lie between 0 and the 6 atoms, got 'two'"),
        ({"magnitudes": 3}, r"magnitudes must be \(low, high\) .* got 3"),
        ({"zipf": -1}, "zipf must be finite and >= 0, got -1"),
        ({"bipolar": 1.1}, "bipolar must lie between 0 and 1, got 1.1"),
        ({"correlation": 1.0}, r"correlation must lie in \[0, 1\)"),
        ({"magnitudes": (0, 1)}, r"magnitudes must be \(low, high\) with 0 < low <= high"),
        ({"noise": np.nan}, "noise must be finite and >= 0, got nan"),
        ({"parents": [0, 0, 0, 0, 0, 0]}, "for each of the 6 atoms the number of an earlier one"),
        ({"parents": [-1, 0.0, 0, 0, 0, 0]}, "for each of the 6 atoms the number of an earlier one"),
        ({"parents": [-1]}, "for each of the 6 atoms the number of an earlier one"),
        ({"dictionary": np.ones(3)}, "dictionary must have shape"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sparse_signals(**{"n_samples": 5, "dictionary": np.eye(6), "l0": 2, **options})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sphere_atoms(0, 3), "must be integers >= 1, got 0 and 3"),
        (lambda: forest(5, 6, 1), "a forest of 5 atoms needs 1 to 5 roots"),
        (lambda: forest(5, 2.5, 1), "a forest of 5 atoms needs 1 to 5 roots"),
    ],
)
def test_bad_atoms_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
