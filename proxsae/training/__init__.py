"""The gradient engine: scaling, losses, state, the training step, sparsity control."""

from proxsae.training.autoencoder import Autoencoder, Forward
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.losses import HierarchicalTopK, Matryoshka
from proxsae.training.refinement import Refined, Refinement
from proxsae.training.scaling import Scaling
from proxsae.training.state import TrainingState
from proxsae.training.trainer import Trainer

__all__ = [
    "Autoencoder",
    "FeatureBlocks",
    "Forward",
    "HierarchicalTopK",
    "Matryoshka",
    "Refined",
    "Refinement",
    "Scaling",
    "Trainer",
    "TrainingState",
]
