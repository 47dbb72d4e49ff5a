"""The HTML report: one file with curves, a table and feature cards."""

from proxsae.report.features import FeatureCard, feature_cards
from proxsae.report.page import write_report

__all__ = ["FeatureCard", "feature_cards", "write_report"]
