"""Studies: many autoencoders on one language model, compared by commands that can be stopped and run again."""

from proxsae.studies.configuration import Configuration, abstopk_paper, grid
from proxsae.studies.probing import k_sparse_accuracies, probe
from proxsae.studies.results import read_rows
from proxsae.studies.source import Source
from proxsae.studies.sweep import sweep

__all__ = [
    "Configuration",
    "Source",
    "abstopk_paper",
    "grid",
    "k_sparse_accuracies",
    "probe",
    "read_rows",
    "sweep",
]
