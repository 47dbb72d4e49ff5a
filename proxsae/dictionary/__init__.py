"""Dictionaries: measures of how good one is, and of whether it is the true one."""

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

__all__ = [
    "Bipolarity",
    "Matching",
    "RestrictedIsometry",
    "SupportScores",
    "bipolarity",
    "code_correlation",
    "match_atoms",
    "matched_cosine",
    "mutual_coherence",
    "restricted_isometry",
    "seed_stability",
    "support_scores",
    "welch_bound",
]
