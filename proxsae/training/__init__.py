"""The gradient engine: batches, normalisation, the training step, sparsity control."""

from proxsae.training.autoencoder import SparseAutoencoder
from proxsae.training.trainer import Trainer

__all__ = ["SparseAutoencoder", "Trainer"]
