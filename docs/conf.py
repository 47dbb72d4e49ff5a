"""Sphinx configuration: numpydoc pages, and the gallery of theorems and examples. No page needs the network."""

from pathlib import Path

import proxsae
from proxsae.regularizers import naming, parse
from proxsae.verification.proofs.catalogue import CLASSES, SELECTIONS, SUMS

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
    "reference_url": {"proxsae": None},  # names in the code link to the API pages
    "abort_on_example_error": True,  # a theorem that does not hold stops the build
    "image_srcset": ["2x"],
    "thumbnail_size": (600, 240),
    "download_all_examples": False,
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
}


# The catalogue page: one admissible choice of parameters each, of every class.
CATALOGUE = {
    "Scalar": (*CLASSES, "CEL0(1.0, 1.0)", "LInfBall(1.0)", "Tanh(1.0)"),
    "Selections": SELECTIONS,
    "Groups": (
        "OfNorms(MCP(3.0), 4)",
        "GroupL2(4)",
        "GroupL0(4)",
        "GroupCardinality(2, 4)",
        "TreeGroups([[0, 1], [0, 1, 2, 3]])",
    ),
    "Whole codes": (
        "Simplex(1.0)",
        "Entmax(1.5)",
        "L1Ball(1.0)",
        "L2Ball(1.0)",
        "LInf",
        "SortedL1([3.0, 2.0, 1.0])",
        "SumOfKLargest(2)",
        "KSupport(2)",
        "KSupportNorm(2)",
        "L1MinusL2",
        "Blocks([[Simplex, 4], [L1, 12]])",
    ),
    "Sums": SUMS,
}
TRAITS = ("is_convex", "is_separable", "is_nonnegative", "is_scale_free")


def table(texts):
    """Return the traits of regularizers, as they answer."""
    rows = [".. csv-table::", "   :header-rows: 1", "   :delim: &", ""]
    rows.append("   regularizer & convex & separable & z >= 0 & scale-free & scope")
    for text in texts:
        R = parse(text)
        traits = ["yes" if getattr(R, trait) else "" for trait in TRAITS]
        rows.append("   " + " & ".join([f"`{text}`", *traits, R.scope]))
    return [*rows, ""]


def entry(text):
    """Return the entry of one regularizer, from the LaTeX reader of its formulas."""
    R = parse(text)
    name = text.partition("(")[0]
    title = f":obj:`{text} <proxsae.regularizers.{name}>`" if len(R.terms) == 1 else f"`{text}`"
    lines = [f".. rubric:: {title}", ""]
    for of in ("value", "prox"):
        lines += [".. math::", "", f"   {R.latex(of)}", ""]
    return lines


def catalogue():
    """Return the page, or stop where a class of the library is missing from it."""
    parsed = [parse(text) for texts in CATALOGUE.values() for text in texts]
    missing = set(naming.catalogue()) - {type(term).__name__ for R in parsed for term in R.terms}
    if missing:
        raise RuntimeError(f"docs/conf.py: CATALOGUE lacks {', '.join(sorted(missing))}")
    lines = []
    for heading, texts in CATALOGUE.items():
        lines += [heading, "-" * len(heading), "", *table(texts)]
        lines += [line for text in texts for line in entry(text)]
    return "\n".join(lines)


generated = Path(__file__).parent / "generated"
generated.mkdir(exist_ok=True)
(generated / "catalogue.inc").write_text(catalogue(), encoding="utf-8")
