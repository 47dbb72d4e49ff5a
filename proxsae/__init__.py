"""proxsae: you specify the regularizer R; its proximal operator is the activation of a sparse autoencoder."""

from proxsae import regularizers
from proxsae.estimator import ProxSAE
from proxsae.solvers import solve
from proxsae.verification import prove, verify

__all__ = ["ProxSAE", "prove", "regularizers", "solve", "verify"]
__version__ = "0.1.0"
