"""The house: no circle of files inside a folder, no long file, and no import that is not declared.

An import counts whether it stands at the top of a file or inside a function.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "proxsae"
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
FOLDERS = sorted({name.rsplit(".", 1)[0] for name in MODULES})


def imports(source):
    """The modules of the package that a file imports when it runs; what only a type checker reads is left out."""
    found = set()
    for node in run_by_python(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(MODULES) or {node.module}
    return found & set(MODULES)


def run_by_python(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from run_by_python(child)


def circle(graph):
    """Return a circle of a graph as a list that ends where it begins, or None."""
    done = set()

    def walk(node, path):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for following in sorted(graph[node]):
            if found := walk(following, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := walk(node, []))), None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_of_files_inside_a_folder(folder):
    inside = {name for name in MODULES if name.startswith(f"{folder}.") and not name.endswith("__init__")}
    graph = {name: imports(MODULES[name].read_text(encoding="utf-8")) & inside - {name} for name in inside}
    assert circle(graph) is None


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    lazy = "def f():\n    from proxsae.regularizers.basic import L1\n"
    assert imports(lazy) == {"proxsae.regularizers.basic"}
    assert (
        imports(f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {lazy.splitlines()[1].strip()}\n") == set()
    )


def test_no_file_is_longer_than_it_should_be():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
IMPORTED_AS = {"scikit-learn": "sklearn", "z3-solver": "z3", "python-flint": "flint"}
NOT_OURS_TO_DECLARE = {"sae_lens", "yaml"}  # SAELens where a user has it, and the format of its table, which it needs
NEEDED_BY_OTHERS = {"accelerate", "gguf"}  # transformers reads .gguf files by them
BESIDE_THE_PACKAGE = {"docs", "dev"}


def packages(source):
    """The top-level packages of others that a file imports, by a statement or by name."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "proxsae"}


def imported_names(requirements):
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements} - {"proxsae"}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def test_every_package_that_is_imported_is_declared():
    """What another package happens to bring along may be gone with its next version."""
    imported = set().union(*(packages(path.read_text(encoding="utf-8")) for path in MODULES.values()))
    assert imported - imported_names(DECLARED) == NOT_OURS_TO_DECLARE


def test_every_package_that_is_declared_is_imported():
    imported = set().union(*(packages(path.read_text(encoding="utf-8")) for path in MODULES.values()))
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in BESIDE_THE_PACKAGE}
    declared = imported_names([*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)])
    assert declared - imported == NEEDED_BY_OTHERS


def test_an_import_would_be_found():
    lazy = "def f():\n    import b.c\n    from d import e\n    return importlib.import_module('g')\n"
    assert packages(f"import os, a\nfrom . import h\n{lazy}") == {"a", "b", "d", "g"}


def test_text_of_the_gallery_begins_below_its_mark():
    """A text beside `# %%` is dropped by sphinx-gallery."""
    pages = [path for folder in ("examples", "theory") for path in PACKAGE.parent.joinpath(folder).glob("*.py")]
    lines = [line for path in pages for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(pages) > 10
    assert [line for line in lines if line.startswith("# %%") and line != "# %%"] == []
