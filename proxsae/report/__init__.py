"""Results to look at: the HTML report with curves, a table and feature cards, and the table as text."""

from proxsae.report.features import FeatureCard, feature_cards
from proxsae.report.page import Section, write_report, write_sections
from proxsae.report.table import format_table, table_row

__all__ = [
    "FeatureCard",
    "Section",
    "feature_cards",
    "format_table",
    "table_row",
    "write_report",
    "write_sections",
]
