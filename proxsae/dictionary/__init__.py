"""Measures of a dictionary and of the codes it gives."""

from proxsae.dictionary.metrics import reconstruction_metrics

__all__ = ["reconstruction_metrics"]
