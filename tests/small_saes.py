"""Small fitted models, and what is equal about two."""

import numpy as np
import torch
from torch import nn

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.regularizers import parse

D, P = 6, 16


def rows(n=200, d=D, dtype="float32", seed=1):
    return (2 * np.random.default_rng(seed).normal(size=(n, d)) + 0.5).astype(dtype)


def sae_of(R, *, d=D, p=P, dtype=torch.float32, seed=0):
    """A model with random parameters; the atoms are of any norm, the last is never used."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight, bias = normal(p, d), 0.3 * normal(p)
    weight[-1], bias[-1] = 0.0, 0.0
    encoder = Amortized.of(parse(R) if isinstance(R, str) else R, weight, bias)
    return ProxSAE.from_parts(normal(p, d), normal(d), encoder)


class UntiedGate(nn.Module):
    """max(x W^T + b, 0) where x G^T + g > 0: the prox of no R, unless G = W up to a factor > 0 a row."""

    is_nonnegative = True

    def __init__(self, G, g, W, b):
        super().__init__()
        self.G, self.g, self.W, self.b = (nn.Parameter(part) for part in (G, g, W, b))

    def forward(self, x):
        return (x @ self.G.T + self.g > 0) * (x @ self.W.T + self.b).clamp(min=0)


def assert_same_outputs(first, second, X, rtol=0.0):
    """Codes and reconstructions are equal up to rtol of the largest."""
    codes, others = (sae.transform(X).toarray() for sae in (first, second))
    np.testing.assert_allclose(codes, others, rtol=0, atol=rtol * np.abs(codes).max())
    outputs, others = (sae.predict(X) for sae in (first, second))
    np.testing.assert_allclose(outputs, others, rtol=0, atol=rtol * np.abs(outputs).max())


def assert_saved_and_resumed(make, fitted, X, path):
    """A file keeps a fitted model, which can be trained further; with its training it goes on as if never stopped."""
    fitted.save(path)
    loaded = ProxSAE.load(path)
    assert (loaded.transform(X) != fitted.transform(X)).nnz == 0
    assert repr(loaded.encoder) == repr(fitted.encoder)
    before = loaded.score(X)
    assert loaded.partial_fit(X).score(X) > before - 0.1
    through = make().partial_fit(X).partial_fit(X)
    make().partial_fit(X).save(path, training_state=True)
    resumed = ProxSAE.load(path).partial_fit(X)
    np.testing.assert_array_equal(resumed.components_, through.components_)
    assert (resumed.transform(X) != through.transform(X)).nnz == 0
