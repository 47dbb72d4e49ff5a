"""Results to look at: the page of all atoms, reports with curves, tables and feature cards, and tables as text."""

from proxsae.report.explorer import explorer_page
from proxsae.report.features import FeatureCard, feature_cards
from proxsae.report.page import Section, write_page, write_sections
from proxsae.report.reading import Reading, read_text
from proxsae.report.server import PageServer
from proxsae.report.table import format_table, table_row

__all__ = [
    "FeatureCard",
    "PageServer",
    "Reading",
    "Section",
    "explorer_page",
    "feature_cards",
    "format_table",
    "read_text",
    "table_row",
    "write_page",
    "write_sections",
]
