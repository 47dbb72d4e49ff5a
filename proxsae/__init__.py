"""proxsae: you specify the regularizer R; its proximal operator is the activation of a sparse autoencoder."""

from proxsae import regularizers
from proxsae.estimator import ProxSAE

__all__ = ["ProxSAE", "regularizers"]
__version__ = "0.1.0"
