"""The compiled pursuits equal their plain versions, ties included."""

import numpy as np
import plain_pursuit as pursuit
import pytest
from scipy.linalg import hadamard

from proxsae.regularizers import Zero, parse
from proxsae.solvers.pursuits import compiled_partner, compiled_pursuit
from proxsae.solvers.pursuits.compiled_gram import all_rows
from proxsae.solvers.pursuits.pursuit import scalar_formulas
from proxsae.solvers.pursuits.supports import room_for

PARTNERS = ["Zero", "NonNegative", "0.5*L1", "0.5*L1 + NonNegative", "0.3*SquaredL2", "0.2*L0", "MCP(3.0)"]


def problem(seed, n=12, p=24, d=10):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d)) * rng.uniform(0.5, 2.0, (p, 1))
    X = rng.standard_normal((n, d))
    return X @ D.T, (X * X).sum(1), D @ D.T


def penalty_of(r, p):
    def prox(u, t, atoms):
        return r.at(np.atleast_1d(atoms)).prox_unchecked(np.atleast_1d(u), np.atleast_1d(t)).reshape(np.shape(u))

    def value(z, atoms):
        return r.at(np.atleast_1d(atoms)).penalties(np.atleast_1d(np.asarray(z, float))).reshape(np.shape(z))

    return prox, value


def signed(C, energies, G, k, *, by_error, dtype=np.float64):
    diagonal = G.diagonal().astype(dtype)
    weights = diagonal if by_error else np.ones_like(diagonal)
    out = room_for(len(C), k, dtype)
    compiled_pursuit.pursue_rows(
        C.astype(dtype), energies.astype(dtype), all_rows(G.astype(dtype)), diagonal, weights, k, by_error,
        out.atoms, out.codes, out.counts,
    )  # fmt: skip
    return out


def penalized(C, energies, G, k, method, r, out=None):
    prox, value, parameters = scalar_formulas(r, len(G))
    out = room_for(len(C), k, np.float64) if out is None else out
    compiled_partner.pursue_rows(
        prox, value, parameters, C, energies, all_rows(G), G.diagonal().copy(), k, method, r.is_convex, 1000, 0.1, *out
    )
    return out


def supports(out):
    return [list(atoms[:count]) for atoms, count in zip(out.atoms, out.counts, strict=True)]


@pytest.mark.parametrize("by_error", [False, True])
@pytest.mark.parametrize("k", [1, 5, 9])  # at k = d every last atom is as good
def test_signed_pursuits_are_the_plain_ones(by_error, k):
    C, energies, G = problem(k)
    expected = [
        pursuit.pursue(c, e, G, k, penalty_of(Zero(), len(G)), by_error=by_error)
        for c, e in zip(C, energies, strict=True)
    ]
    out = signed(C, energies, G, k, by_error=by_error)
    assert supports(out) == expected
    for c, support, codes in zip(C, expected, out.codes, strict=True):
        np.testing.assert_allclose(codes[: len(support)], np.linalg.solve(G[np.ix_(support, support)], c[support]))
    assert supports(signed(C, energies, G, k, by_error=by_error, dtype=np.float32)) == expected


@pytest.mark.parametrize("by_error", [False, True])
@pytest.mark.parametrize("n_atoms", [8, 16, 1200])
def test_the_first_of_equal_atoms_wins(by_error, n_atoms):
    """Orthogonal atoms with integer entries, each of them several times: all correlations are exact."""
    D = np.tile(hadamard(8).astype(float), (-(-n_atoms // 8), 1))[:n_atoms]
    X = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0, 0, 0], [3, 1, 1, 0, 0, 2, 0, 0], [0] * 8], float)
    C, energies, G = X @ D.T, (X * X).sum(1), D @ D.T
    out = signed(C, energies, G, 4, by_error=by_error)
    plain = [
        pursuit.pursue(c, e, G, 4, penalty_of(Zero(), n_atoms), by_error=by_error)
        for c, e in zip(C, energies, strict=True)
    ]
    assert supports(out) == plain
    assert plain[0] == [0, 1, 2, 3]
    assert plain[3] == []
    assert supports(penalized(C, energies, G, 4, "ols" if by_error else "omp", Zero())) == plain


@pytest.mark.parametrize("method", ["omp", "ols"])
@pytest.mark.parametrize("text", PARTNERS)
def test_pursuits_with_a_partner_are_the_plain_ones(text, method):
    r = parse(text)
    C, energies, G = problem(3, n=4)
    penalty = penalty_of(r, len(G))
    out = penalized(C, energies, G, 6, method, r)
    for i, support in enumerate(supports(out)):
        plain = pursuit.pursue(C[i], energies[i], G, 6, penalty, by_error=method == "ols")
        F, codes = pursuit.refit(C[i], G, plain, penalty)
        used = [j for j, z in zip(plain, codes, strict=True) if z != 0]
        if len(used) < len(plain):  # an atom that came to rest at zero made room for another
            assert value_of(C[i], G, support, out.codes[i], r) <= F + 1e-9
            continue
        assert support == plain
        np.testing.assert_allclose(out.codes[i, : len(plain)], codes, atol=1e-8)


def value_of(c, G, support, codes, r):
    z = codes[: len(support)]
    return 0.5 * z @ G[np.ix_(support, support)] @ z - c[support] @ z + float(r.value(z))
