"""The Python of the README runs, and says what it says."""

import re
from pathlib import Path

import pytest


def test_the_readme_runs(tmp_path, monkeypatch):
    pytest.importorskip("z3")
    text = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert scope["Z"].getnnz(axis=1).max() == 8
    assert scope["s"].converged.all()
    assert not scope["report"].passed
    assert scope["report"].counterexample["better objective"] < scope["report"].counterexample["claimed objective"]
    for line in re.findall(r"^(\S.*?)\s+# (.*)$", blocks[1], flags=re.MULTILINE):
        expression, shown = line
        assert repr(eval(expression, scope)).replace(" ", "") == shown.replace(" ", ""), expression
