"""Pages: one self-contained HTML file each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxsae.data.files import replacing
from proxsae.report.features import FeatureCard, Token
from proxsae.report.figures import NEGATIVE, POSITIVE, activation_histogram


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, paragraphs, figures as SVG text, a table of rows with the same keys, cards.

    And, before them, a command line, and after the paragraphs what it printed.
    """

    heading: str
    text: list[str] = field(default_factory=list)
    figure: str = ""
    table: list[dict[str, Any]] = field(default_factory=list)
    cards: list[FeatureCard] = field(default_factory=list)
    command: str = ""
    printed: str = ""


def write_sections(path: str | os.PathLike[str], *, title: str, facts: dict[str, str], sections: list[Section]) -> Path:
    """Write a page of sections, whole or not at all; `facts` stand under the title."""
    html = render("sections.html.jinja", title=title, facts=facts, sections=sections, histogram=activation_histogram)
    return write_page(path, html)


def write_page(path: str | os.PathLike[str], html: str) -> Path:
    """Write a page, whole or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render(template: str, **content: Any) -> str:
    """Return a page of one of the templates as HTML; texts are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("proxsae", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shade"] = shade
    environment.filters["visible"] = visible
    return environment.get_template(template).render(**content)


def shade(token: Token, strongest: float) -> str:
    """Return the background of a token: the colour of its side, as strong as its activation."""
    if not token.activation:
        return "transparent"
    share = min(1.0, abs(token.activation) / max(strongest, 1e-30))
    colour = POSITIVE if token.activation > 0 else NEGATIVE
    return f"{colour}{int(20 + 150 * share):02x}"


def visible(text: str) -> str:
    """Return the text of a token with line breaks made visible."""
    return text.replace("\n", "\u23ce")
