"""All supports: against another enumeration, SCIP, and degenerate dictionaries."""

import numpy as np
import pytest
from all_supports import QUADRATIC, best_with
from pursuit_problems import with_at_most

from proxsae import solve
from proxsae.regularizers import Cardinality


def data(n=6, p=10, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((p, d))


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("text", QUADRATIC)
def test_it_is_the_best_of_all_supports(text, k):
    X, D = data()
    s = solve(X, D, with_at_most(k, text), method="exact")
    np.testing.assert_allclose(s.objective, best_with(X, D, text, k)[0], rtol=1e-10)
    assert s.certificate_kind == "globally optimal"
    assert s.converged.all()
    swap = solve(X, D, with_at_most(k, text), method="swap")
    assert (s.objective <= swap.objective + 1e-12).all()


@pytest.mark.parametrize("kind", ["duplicates", "zero", "scales", "one"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_dictionaries(kind, dtype):
    X, D = data(d=4)
    D = {
        "duplicates": np.concatenate([D[:5], D[:5], -D[:2]]),
        "zero": np.concatenate([D[:4], np.zeros((3, 4))]),
        "scales": D * 10.0 ** np.linspace(-6, 6, 10)[:, None],
        "one": D[:1],
    }[kind]
    s = solve(X.astype(dtype), D.astype(dtype), Cardinality(2), method="exact")
    assert s.codes.dtype == dtype
    assert np.isfinite(s.codes).all()
    np.testing.assert_allclose(s.objective, best_with(X, D, "Zero", 2)[0], rtol=1e-4 if dtype == np.float32 else 1e-8)


def test_scip_agrees():
    scip = pytest.importorskip("pyscipopt")
    X, D = data(n=2, p=7, d=5, seed=3)
    s = solve(X, D, "0.3*L1 + Cardinality(2)", method="exact")
    for x, objective in zip(X, s.objective, strict=True):
        model = scip.Model()
        model.hideOutput()
        plus, minus = ([model.addVar(lb=0.0, ub=20.0) for _ in D] for _ in range(2))
        used = [model.addVar(vtype="B") for _ in D]
        for a, b, u in zip(plus, minus, used, strict=True):
            model.addCons(a + b <= 20.0 * u)
        model.addCons(scip.quicksum(used) <= 2)
        cost = model.addVar(lb=0.0)
        z = [a - b for a, b in zip(plus, minus, strict=True)]
        residual = [x[f] - scip.quicksum(c * w for c, w in zip(z, D[:, f], strict=True)) for f in range(5)]
        model.addCons(0.5 * scip.quicksum(e * e for e in residual) + 0.3 * scip.quicksum([*plus, *minus]) <= cost)
        model.setObjective(cost)
        model.optimize()
        assert model.getObjVal() == pytest.approx(objective, abs=1e-4)


def test_refusals_are_one_sentence():
    X, D = data()
    with pytest.raises(ValueError, match=r"'exact' needs a convex partner, and 0.1\*L0\(\) is not convex"):
        solve(X, D, "0.1*L0 + Cardinality(2)", method="exact")
    with pytest.raises(ValueError, match="'exact' needs a Cardinality of each sample"):
        solve(X, D, "0.1*L1", method="exact")
    with pytest.raises(
        ValueError, match=r"at all 4.19e\+15 supports of 20 among 60 atoms, at most 1,000,000; use .swap."
    ):
        solve(X, np.random.default_rng(0).standard_normal((60, 6)), Cardinality(20), method="exact")
