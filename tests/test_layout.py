"""The house: no circle of files inside a folder, whether imports stand at the top of a file or inside a function."""

import ast
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
