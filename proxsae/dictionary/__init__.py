"""Dictionaries: measures of how good one is and whether it is the true one, and data of which the true one is known."""

from proxsae.dictionary.atoms import clustered_atoms, coherent_atoms, sphere_atoms
from proxsae.dictionary.coherence import RestrictedIsometry, mutual_coherence, restricted_isometry, welch_bound
from proxsae.dictionary.directions import Bipolarity, bipolarity
from proxsae.dictionary.recovery import (
    Matching,
    SupportScores,
    code_correlation,
    match_atoms,
    matched_cosine,
    seed_stability,
    support_scores,
)
from proxsae.dictionary.signals import SparseSignals, forest, sparse_signals

__all__ = [
    "Bipolarity",
    "Matching",
    "RestrictedIsometry",
    "SparseSignals",
    "SupportScores",
    "bipolarity",
    "clustered_atoms",
    "code_correlation",
    "coherent_atoms",
    "forest",
    "match_atoms",
    "matched_cosine",
    "mutual_coherence",
    "restricted_isometry",
    "seed_stability",
    "sparse_signals",
    "sphere_atoms",
    "support_scores",
    "welch_bound",
]
