"""Sphinx configuration: numpydoc pages, and the gallery of theorems and examples. No page needs the network."""

from pathlib import Path

import proxsae
from proxsae.regularizers import parse
from proxsae.verification.theorems import CLASSES, SELECTIONS, SUMS

project = "proxsae"
author = project_copyright = "The proxsae developers"
version = release = proxsae.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"

html_theme = "furo"
html_title = "proxsae"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

autosummary_ignore_module_all = False  # a package documents what its __all__ names
autodoc_typehints = "none"  # numpydoc writes the types
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": ["../theory", "../examples"],
    "gallery_dirs": ["gallery/theory", "gallery/examples"],
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,  # a theorem that does not hold stops the build
    "image_srcset": ["2x"],
    "download_all_examples": False,
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
}


def entry(text):
    """Return the section of the catalogue on one regularizer, from the LaTeX reader of its formulas."""
    R = parse(text)
    lines = [f"`{text}`", "-" * (len(text) + 2), ""]
    for of in ("value", "prox"):
        lines += [".. math::", "", f"   {R.latex(of)}", ""]
    return "\n".join(lines)


generated = Path(__file__).parent / "generated"
generated.mkdir(exist_ok=True)
(generated / "catalogue.inc").write_text("\n".join(map(entry, (*CLASSES, *SUMS, *SELECTIONS))), encoding="utf-8")
