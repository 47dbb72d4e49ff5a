"""The Python of the README and of the pages of the documentation runs, and says what it says."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from llm_models import tiny_model, tiny_texts
from small_saes import sae_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def a_small_model_and_text(tmp_path, monkeypatch):
    """Stand for the embedded model and text, of which the examples use the first 15 blocks."""
    monkeypatch.chdir(tmp_path)
    sizes = {"num_hidden_layers": 16, "max_position_embeddings": 128, "hidden_size": 96}
    monkeypatch.setattr("proxsae.llm.load_model", lambda: tiny_model(**sizes))
    monkeypatch.setattr("proxsae.llm.text._embedded", lambda: iter(tiny_texts(2000)))


def _python(name):
    text = ROOT.joinpath(name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return [
        textwrap.dedent(block)
        for block in re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, flags=re.MULTILINE)
    ]


def test_the_readme_runs():
    blocks = _python("README.md")
    assert len(blocks) == 7
    scope: dict[str, object] = {}
    smaller = {"n_tokens=20_000": "n_tokens=6_000", "n_components=2304, n_steps=300": "n_components=512, n_steps=60"}
    for large, small in smaller.items():
        assert large in blocks[1]
        blocks[1] = blocks[1].replace(large, small)
    for block in blocks:
        exec(block, scope)
    assert 0 < scope["Z"].getnnz(axis=1).max() <= 8
    assert scope["result"]["n_tokens"] >= 1024
    assert 0 < scope["result"]["fvu"] < 1
    assert scope["relu"].transform(scope["X"]).getnnz() / len(scope["X"]) == pytest.approx(8, rel=0.2)
    assert scope["s"].converged.all()
    assert not scope["report"].passed
    assert scope["report"].counterexample["better objective"] < scope["report"].counterexample["claimed objective"]
    assert (scope["better"].after <= scope["better"].before).all()
    assert min(scope[name].score(scope["X"]) for name in ("unrolled", "learned")) > 0.3
    said = re.findall(r"^(\S.*?)\s+# (.*)$", blocks[3], flags=re.MULTILINE)
    assert len(said) == 5
    for expression, shown in said:
        assert repr(eval(expression, scope)).replace(" ", "") == shown.replace(" ", ""), expression


def test_the_first_page_runs(capsys):
    (block,) = _python("docs/index.rst")
    scope: dict[str, object] = {}
    exec(block, scope)
    assert (scope["Z"].data > 0).all()
    assert scope["Z"].getnnz(axis=1).max() <= 8
    assert scope["s"].certificate_kind == "duality gap"
    assert capsys.readouterr().out.startswith("passed: NonNegative() + Cardinality(8)")


def test_the_page_on_language_models_is_the_example_of_the_readme():
    block = _python("docs/language_models.rst")[0]
    without_notes = [re.sub(r"\s+#.*", "", text).strip() for text in (block, _python("README.md")[1])]
    assert without_notes[1].startswith(without_notes[0])


def test_the_steering_on_that_page_runs(capsys):
    sae = sae_of("Cardinality(8)", d=16, p=64)
    sae.provenance_ = {"site": "block.2"}
    (block,) = (block for block in _python("docs/language_models.rst") if "steered" in block)
    exec(block, {"model": tiny_model(), "sae": sae})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_page_on_formats_runs(capsys):
    (block,) = _python("docs/formats.rst")
    scope: dict[str, object] = {}
    exec(block, scope)
    assert capsys.readouterr().out == "Cardinality(4)\n"
    assert abs(scope["again"].transform(scope["X"]) - scope["sae"].transform(scope["X"])).max() == 0


def test_the_regularizers_from_outside_have_everything(capsys):
    blocks = [
        block for block in _python("docs/own_regularizer.rst") if "BerHu" in block or "own" in block or "G =" in block
    ]
    assert len(blocks) == 3
    scope = {"__name__": __name__, "X": np.random.default_rng(0).normal(size=(200, 16))}
    for block in blocks:
        exec(block, scope)
    told = capsys.readouterr().out.splitlines()
    assert all(line.startswith("proved True R(z) = ") for line in told[::2])
    assert told[1] == "duality gap 1.0"
    assert told[3].startswith("fixed-point residual ")
    assert float(told[3].split()[-1]) > 0.8
    assert len(blocks[0].split("class BerHu")[1].split("R = 0.3")[0].strip().splitlines()) <= 22
