"""Every theorem and every example runs, in order: each stops with an error where what it states does not hold."""

import csv
import runpy
from pathlib import Path

import pytest

from proxsae.regularizers import parse

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted([*ROOT.glob("theory/*.py"), *ROOT.glob("examples/*.py")])


@pytest.fixture
def figures(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.extend(plt.get_fignums()))
    yield shown
    plt.close("all")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs_and_draws(script, figures):
    pytest.importorskip("z3")
    runpy.run_path(str(script), run_name="__main__")
    assert figures


def test_there_are_ten_theorems_in_order():
    numbers = [int(script.name.split("_")[1]) for script in SCRIPTS if script.parent.name == "theory"]
    assert numbers == list(range(1, 11))


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.parent.name == "theory"], ids=lambda script: script.stem)
def test_a_theorem_is_stated_and_proved_and_checked(script):
    text = script.read_text(encoding="utf-8")
    assert "**Theorem" in text
    assert "**Proof" in text
    assert "\u220e" in text
    assert "\nassert " in text or "\n    assert " in text


def test_the_decision_table_says_what_holds():
    with ROOT.joinpath("docs", "choose.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) > 10
    for row in rows:
        R = parse(row["regularizer"].strip("`"))
        assert ("yes" if R.is_convex else "no", R.scope) == (row["convex"], row["one decision looks at a"]), R
