"""Every theorem and every example runs, and fails where the library is wrong about what the theorem states."""

import csv
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import proxsae
from proxsae.regularizers import L0, Cardinality, naming, parse
from proxsae.solvers import Problem, certificates
from proxsae.verification import from_activation

ROOT = Path(__file__).parent.parent
THEORY = sorted(ROOT.glob("theory/*.py"))
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
DUALITY_GAP = certificates.duality_gap


@pytest.fixture
def figures(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("z3")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.extend(plt.get_fignums()))
    yield shown
    plt.close("all")


@pytest.mark.parametrize("script", [*THEORY, *EXAMPLES], ids=lambda script: script.stem)
def test_it_runs_and_draws(script, figures, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(script), "--small"])  # an example that takes minutes has a size for the test
    runpy.run_path(str(script), run_name="__main__")
    assert figures


def cut_at_t(self, xp, u, t):
    return xp.where(xp.abs(u) > t, u, 0.0)


def half_a_step(self, Z):
    step = 0.5 * self.step
    return self.regularizer.prox_unchecked(Z - step * self.gradient(Z), step)


def a_hundredth_of_the_gap(*arguments):
    report = DUALITY_GAP(*arguments)
    return report._replace(certificate=0.01 * report.certificate)


# A mistake for each page, which the check on it must see.
MISTAKES = {
    1: (L0, "prox_of", cut_at_t),
    2: (L0, "prox_of", cut_at_t),
    3: (Cardinality, "rank_sign", lambda self, step: -1.0),
    4: (Cardinality, "rank_sign", lambda self, step: 1.0),
    5: (from_activation, "_largest_expansion", lambda u, f: None),
    6: (Problem, "proximal_step", half_a_step),
    7: (proxsae.ProxSAE, "amortization_gap", lambda self, X: np.zeros(len(X))),
    8: (certificates, "duality_gap", a_hundredth_of_the_gap),
    9: (L0, "prox_of", cut_at_t),
    10: (proxsae, "verify", lambda **pair: SimpleNamespace(passed=True, failures=[])),
}


@pytest.mark.parametrize("script", THEORY, ids=lambda script: script.stem)
def test_a_check_sees_a_mistake(script, figures, monkeypatch):
    monkeypatch.setattr(*MISTAKES[int(script.name.split("_")[1])])
    with pytest.raises(AssertionError):
        runpy.run_path(str(script), run_name="__main__")


def test_there_are_ten_theorems_in_order():
    assert [int(script.name.split("_")[1]) for script in THEORY] == list(range(1, 11))


@pytest.mark.parametrize("script", THEORY, ids=lambda script: script.stem)
def test_a_theorem_is_stated_proved_and_referenced(script):
    page = script.read_text(encoding="utf-8").split('"""')[1]
    for part in ("**Theorem", "**Proof", "∎", "**References"):
        assert part in page, part


def test_the_decision_tables_say_what_holds_of_every_class():
    rows = []
    for path in sorted(ROOT.glob("docs/choose/*.csv")):
        with path.open(newline="", encoding="utf-8") as table:
            rows.extend(csv.DictReader(table))
    covered = set()
    for row in rows:
        R = parse(row["regularizer"].strip("`"))
        assert ("yes" if R.is_convex else "no", R.scope) == (row["convex"], row["one decision looks at a"]), R
        covered |= {type(term).__name__ for term in R.terms}
    assert set(naming.catalogue()) <= covered
