"""proxsae: you specify the regularizer R; its proximal operator is the activation of a sparse autoencoder."""

from proxsae import regularizers
from proxsae.estimator import ProxSAE
from proxsae.many import FitManyError, fit_many
from proxsae.solvers import solve
from proxsae.verification import prove, verify

__all__ = ["FitManyError", "ProxSAE", "fit_many", "prove", "regularizers", "solve", "verify"]
__version__ = "0.1.0"
