"""Measures of dictionaries and codes against enumeration, scikit-learn and what is known in closed form."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from proxsae import dictionary
from proxsae.dictionary import (
    bipolarity,
    code_correlation,
    match_atoms,
    matched_cosine,
    mutual_coherence,
    seed_stability,
    support_scores,
)


def random(p, d, seed=0):
    return np.random.default_rng(seed).standard_normal((p, d))


def sparse_codes(n, p, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.3)


def test_coherence_is_the_largest_cosine_block_by_block(monkeypatch):
    D = random(30, 7)
    pairs = [abs(np.dot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(D, 2)]
    assert mutual_coherence(D) == pytest.approx(max(pairs), rel=1e-12)
    monkeypatch.setattr(dictionary.arrays, "BLOCK", 65)
    assert mutual_coherence(torch.from_numpy(1e200 * D)) == pytest.approx(max(pairs), rel=1e-12)
    assert mutual_coherence(D[:1]) == 0
    assert mutual_coherence(np.vstack([D, -D[3]])) == 1
    assert mutual_coherence(np.zeros((3, 2))) == 0


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_matching_is_the_best_of_all(p, q, signed, seed):
    D, T = random(p, 3, seed), random(q, 3, seed + 1)
    C = (D / np.linalg.norm(D, axis=1, keepdims=True)) @ (T / np.linalg.norm(T, axis=1, keepdims=True)).T
    score = np.abs(C) if signed else C
    if p >= q:
        best = max(sum(score[i, j] for j, i in enumerate(chosen)) for chosen in itertools.permutations(range(p), q))
    else:
        best = max(sum(score[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(q), p))
    matching = match_atoms(D, T, signed=signed)
    assert matching.cosine.sum() == pytest.approx(best, abs=1e-12)
    assert matched_cosine(D, T, signed=signed) == pytest.approx(best / q, abs=1e-12)
    np.testing.assert_allclose(C[matching.learned, matching.true] * matching.sign, matching.cosine)


def test_matching_undoes_order_sign_and_scale():
    T = random(40, 16)
    rng = np.random.default_rng(1)
    order, signs = rng.permutation(40), rng.choice([-1, 1], 40)
    D = (signs * rng.uniform(0.5, 2, 40))[:, None] * T[order]
    assert matched_cosine(D, T) == pytest.approx(1)
    assert matched_cosine(D, T, signed=False) < 0.9
    assert matched_cosine(D[:30], T) == pytest.approx(0.75)
    matching = match_atoms(D, T)
    np.testing.assert_array_equal(order[matching.learned], np.arange(40))
    np.testing.assert_array_equal(matching.sign, signs[matching.learned])
    assert seed_stability([T, D, T]) == pytest.approx(1)
    assert matched_cosine(np.zeros((3, 2)), np.eye(2)) == 0


def test_support_scores_are_those_of_scikit_learn():
    Z, T = sparse_codes(50, 12), sparse_codes(50, 12, 1)
    scores = support_scores(csr_matrix(Z), T)
    flat = (T != 0).ravel(), (Z != 0).ravel()
    for ours, theirs in zip(scores, (precision_score, recall_score, f1_score, jaccard_score), strict=True):
        assert ours == pytest.approx(theirs(*flat), rel=1e-12)
    assert support_scores(0 * Z, 0 * T) == (1, 1, 1, 1)
    assert support_scores(0 * Z, T) == (1, 0, 0, 0)
    stored = csr_matrix(T)
    stored.data[:] = 0.0
    assert support_scores(stored, 0 * T) == (1, 1, 1, 1)


def test_atoms_without_a_partner_are_false_or_missed():
    T = sparse_codes(30, 5)
    D_true = random(5, 8)
    D, Z = np.vstack([D_true[::-1], random(2, 8, 3)]), np.hstack([T[:, ::-1], np.ones((30, 2))])
    scores = support_scores(Z, T, match_atoms(D, D_true))
    n = (T != 0).sum()
    assert scores == pytest.approx((n / (n + 60), 1, 2 * n / (2 * n + 60), n / (n + 60)))
    fewer = support_scores(T[:, :3], T, match_atoms(D_true[:3], D_true))
    assert fewer.recall == pytest.approx((T[:, :3] != 0).sum() / n)
    assert fewer.precision == 1


@pytest.mark.parametrize("signed", [True, False])
def test_code_correlation_is_the_best_mean_of_pearsons(signed):
    Z, T = 3 * sparse_codes(60, 5) + 1, sparse_codes(60, 4, 1)
    Z[:, 0] -= 2 * T[:, 2]
    R = np.corrcoef(Z.T, T.T)[:5, 5:]
    R = np.abs(R) if signed else R
    best = max(sum(R[i, j] for j, i in enumerate(chosen)) for chosen in itertools.permutations(range(5), 4))
    assert code_correlation(Z, T, signed=signed) == pytest.approx(best / 4, rel=1e-9)
    assert code_correlation(csr_matrix(1e200 * Z), T, signed=signed) == pytest.approx(best / 4, rel=1e-9)
    with_constant = np.hstack([T, np.full((60, 1), 0.1)])
    assert code_correlation(Z, with_constant, signed=signed) == pytest.approx(best / 4, rel=1e-9)
    assert code_correlation(-2 * T + 5, T) == pytest.approx(1)
    assert code_correlation(0 * Z, 0 * T) == 1
    assert code_correlation(Z, 0 * T) == 0
    assert code_correlation(0 * Z, T) == 0


def test_bipolarity():
    D = random(6, 40)
    paired = np.vstack([D, -2 * D[:3], D[5]])
    assert bipolarity(paired).antipodal == 0.6
    assert bipolarity(paired, threshold=1.0).antipodal == 0.6
    Z = np.array([[1, -1, 2, 0, 0], [3, 1, 1, -1, 0], [1, 0, -1, -2, 0], [0, 0, 1, 0, 0.0]])
    result = bipolarity(D[:5], csr_matrix(Z))
    np.testing.assert_allclose(result.balance, [0, 1, 0.5, 0, 0])
    assert result.two_sided == pytest.approx(1.5 / 4)
    assert bipolarity(D, np.zeros((3, 6))).two_sided == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mutual_coherence(np.zeros((0, 3))), "D must have shape"),
        (lambda: mutual_coherence([[np.nan]]), "D must be finite"),
        (lambda: mutual_coherence([["a"]]), "D must hold real floating-point numbers"),
        (lambda: support_scores(np.eye(2), np.eye(2), 3), "matching must be what match_atoms gives, got int"),
        (lambda: matched_cosine(np.eye(3), np.eye(2)), "must have 2 features as the other dictionary has, got 3"),
        (lambda: support_scores(np.eye(3), np.eye(2)), "of the same samples, got 3 and 2"),
        (lambda: support_scores(np.ones((2, 3)), np.ones((2, 4))), "the same shape, or a matching"),
        (
            lambda: support_scores(np.ones((2, 3)), np.ones((2, 2)), match_atoms(np.eye(4), np.eye(4))),
            "matching has the learned atom 3, and the codes have 3",
        ),
        (lambda: support_scores(np.ones(3), np.ones(3)), r"Z must have shape \(n_samples, n_components\)"),
        (lambda: seed_stability([np.eye(2)]), "at least two, got 1"),
        (lambda: seed_stability([np.eye(2), np.eye(3)]), r"must have one shape, got \(2, 2\), \(3, 3\)"),
        (lambda: bipolarity(np.eye(2), threshold=0), r"threshold must lie in \(0, 1\], got 0"),
        (lambda: bipolarity(np.eye(2), np.ones((3, 3))), "Z must have 2 components as D has atoms, got 3"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
