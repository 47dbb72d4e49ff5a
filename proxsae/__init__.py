"""proxsae: you specify the regularizer R; its proximal operator is the activation of a sparse autoencoder."""

from proxsae import regularizers
from proxsae.estimator import ProxSAE
from proxsae.solvers import solve

__all__ = ["ProxSAE", "regularizers", "solve"]
__version__ = "0.1.0"
