"""Two directions: planted opposites are found, glued atoms are not, and the formulas are their loops."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from proxsae.dictionary import opposition, pair_code, random_sides, sides_of

N, P, D = 3000, 12, 20


@pytest.fixture(scope="module")
def planted():
    """Signed atoms 0 to 5 whose sides have opposite contexts and next tokens; 6 to 11 have unrelated ones."""
    random = np.random.default_rng(0)
    atoms = np.linalg.qr(random.normal(size=(D, P)))[0].T
    Z = np.zeros((N, P))
    Z[np.arange(N), random.integers(P, size=N)] = random.choice([-1, 1], N) * random.uniform(1, 2, N)
    context = random.normal(size=(P, 2, D))
    context[:6, 1] = -context[:6, 0]
    atom, side = np.argmax(np.abs(Z), axis=1), (Z.sum(1) < 0).astype(int)
    X = 5.0 + Z @ atoms + 3 * context[atom, side] + 0.1 * random.normal(size=(N, D))
    head = random.normal(size=(D, 2 * P))  # token 2 i is what +d_i promotes, 2 i + 1 what -d_i does
    head[:, 0::2], head[:, 1::2] = 3 * atoms.T, -3 * atoms.T
    tokens = np.where(atom < 6, 2 * atom + side, random.integers(2 * P, size=N))
    return Z, atoms, X, tokens, lambda directions: directions @ head


def test_planted_opposites_are_told_from_others(planted):
    Z, atoms, X, tokens, lens = planted
    found = opposition(sides_of(Z, atoms), X, tokens, lens)
    assert found.axes.tolist() == list(range(P))
    assert found.balance.min() > 0.8
    assert found.context_cosine[:6].max() < -0.9
    assert np.abs(found.context_cosine[6:]).max() < 0.7
    assert found.lens[:6].min() > 1
    assert np.abs(found.lens[6:]).max() < 0.5


def test_the_measures_are_their_loops(planted):
    Z, atoms, X, tokens, lens = planted
    found = opposition(sides_of(csr_matrix(Z), atoms), X, tokens, lens)
    logits = lens(atoms)
    for i in (0, 7):
        means, scores = [], []
        for sign in (1, -1):
            fires = sign * Z[:, i] > 0
            means.append((X[fires] - Z[fires, i, None] * atoms[i]).mean(0) - X.mean(0))
            of_text = sign * logits[i, tokens]
            scores.append((of_text[fires].mean() - of_text.mean()) / of_text.std())
        cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
        assert found.context_cosine[i] == pytest.approx(cosine)
        assert (found.lens_plus[i], found.lens_minus[i]) == pytest.approx(tuple(scores))


def test_random_sides_glue_different_one_sided_atoms(planted):
    Z, atoms, X, tokens, lens = planted
    glued = random_sides(np.maximum(Z, 0), atoms, 200, random_state=1)
    assert glued.plus.shape == glued.minus.shape == (N, 200)
    assert not np.isclose((glued.D_plus * glued.D_minus).sum(1), 1).any()
    for i in (0, 50, 199):
        column = int(np.argmax(atoms @ glued.D_plus[i]))
        np.testing.assert_array_equal(glued.plus[:, [i]].toarray()[:, 0], np.maximum(Z[:, column], 0))
    null = opposition(glued, X, tokens, lens)
    real = opposition(sides_of(Z, atoms), X, tokens, lens)
    assert (real.context_cosine[:6] < np.quantile(null.context_cosine, 0.05)).all()
    # of signed codes each side is an atom of its own
    taken = random_sides(Z, atoms, 400)
    assert (taken.D_plus @ atoms.T).min() == pytest.approx(-1)


def test_axes_that_fire_on_one_side_are_left_out(planted):
    Z, atoms, X, _, _ = planted
    Z = Z.copy()
    Z[:, 3] = np.abs(Z[:, 3])
    found = opposition(sides_of(Z, atoms), X)
    assert found.axes.tolist() == [i for i in range(P) if i != 3]
    assert np.isnan(found.lens).all()
    assert not len(opposition(sides_of(Z, atoms), X, least=N).axes)
    with pytest.raises(ValueError, match="two atoms that fire on 3000 samples are needed, 0 do"):
        random_sides(Z, atoms, 5, least=N)


def test_shapes_that_do_not_fit(planted):
    Z, atoms, X, tokens, lens = planted
    with pytest.raises(ValueError, match="Z must have 12 components"):
        sides_of(Z[:, :5], atoms)
    with pytest.raises(ValueError, match=r"X must have shape \(3000, 20\)"):
        opposition(sides_of(Z, atoms), X[:, :5])
    with pytest.raises(ValueError, match="next_tokens must be 3000 tokens"):
        opposition(sides_of(Z, atoms), X, tokens[:7], lens)
    with pytest.raises(ValueError, match=r"next_tokens must be 3000 tokens, one a sample, got shape \(\)"):
        opposition(sides_of(Z, atoms), X, lens=lens)
    with pytest.raises(ValueError, match="do not fit D"):
        pair_code(Z[:3], Z[:3], X[:2], X[:3], atoms)


def test_an_atom_carries_a_pair_or_not():
    atoms = np.eye(4)
    Z_a = np.array([[2.0, 1.0, 0, 0], [2.0, 0, 0, 0], [2.0, 0, 0, 0]])
    Z_b = np.array([[-2.0, -1.0, 0, 0], [-2.0, 0, 3.0, 0], [0, 0, 3.0, 0]])
    X_a, X_b = Z_a + 5.0, Z_b + 5.0
    found = pair_code(Z_a, Z_b, X_a, X_b, atoms)
    assert (found.atom, found.sign) == (0, 1)
    delta = (Z_a - Z_b).mean(0)
    order = np.argsort(-np.abs(delta), kind="stable")
    expected = np.cumsum(delta[order] ** 2) / (delta @ delta)
    np.testing.assert_allclose(found.explained, expected)
    assert found.n_half == 1
    back = pair_code(Z_b, Z_a, X_b, X_a, atoms)
    assert (back.atom, back.sign) == (0, -1)
    one_sided = pair_code(np.maximum(Z_a, 0), np.maximum(Z_b, 0), X_a, X_b, atoms)
    assert (one_sided.atom, one_sided.sign) == (None, 0)
    nothing = pair_code(0 * Z_a, 0 * Z_b, X_a, X_b, atoms)
    assert nothing.n_half is None
    assert not nothing.explained.any()
    assert not pair_code(Z_a, Z_a, X_a, X_a, atoms).explained.any()
