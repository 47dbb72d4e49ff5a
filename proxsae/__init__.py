"""proxsae: you specify the regularizer R; its proximal operator is the activation of a sparse autoencoder."""
