"""The Python of the README and of the first page of the documentation runs, and says what it says."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_readme_runs(tmp_path, monkeypatch):
    pytest.importorskip("z3")
    text = ROOT.joinpath("README.md").read_text(encoding="utf-8")
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


def test_the_first_page_runs(capsys):
    text = ROOT.joinpath("docs", "index.rst").read_text(encoding="utf-8")
    (block,) = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, flags=re.MULTILINE)
    scope: dict[str, object] = {}
    exec(textwrap.dedent(block), scope)
    assert (scope["Z"].data > 0).all()
    assert scope["Z"].getnnz(axis=1).max() <= 8
    assert scope["s"].certificate_kind == "duality gap"
    assert capsys.readouterr().out.startswith("passed: NonNegative() + Cardinality(8)")
