"""Dictionaries: how they are learned, how good one is, whether it is the true one, and data with a known one."""

from proxsae.dictionary.antonyms import PairCode, pair_code
from proxsae.dictionary.atoms import sphere_atoms
from proxsae.dictionary.coherence import mutual_coherence
from proxsae.dictionary.directions import Bipolarity, bipolarity
from proxsae.dictionary.opposites import Opposition, Sides, opposition, random_sides, sides_of
from proxsae.dictionary.recovery import (
    Matching,
    SupportScores,
    code_correlation,
    match_atoms,
    matched_cosine,
    seed_stability,
    support_scores,
)
from proxsae.dictionary.replacement import initial_atoms
from proxsae.dictionary.rules import KSVD, MOD, Batch, Learned, Online, Update
from proxsae.dictionary.signals import SparseSignals, forest, sparse_signals
from proxsae.dictionary.split import ErrorSplit, SplitRow, error_split
from proxsae.dictionary.updates import Statistics, descend_atoms, ksvd_atoms, least_squares_atoms

__all__ = [
    "KSVD",
    "MOD",
    "Batch",
    "Bipolarity",
    "ErrorSplit",
    "Learned",
    "Matching",
    "Online",
    "Opposition",
    "PairCode",
    "Sides",
    "SparseSignals",
    "SplitRow",
    "Statistics",
    "SupportScores",
    "Update",
    "bipolarity",
    "code_correlation",
    "descend_atoms",
    "error_split",
    "forest",
    "initial_atoms",
    "ksvd_atoms",
    "least_squares_atoms",
    "match_atoms",
    "matched_cosine",
    "mutual_coherence",
    "opposition",
    "pair_code",
    "random_sides",
    "seed_stability",
    "sides_of",
    "sparse_signals",
    "sphere_atoms",
    "support_scores",
]
