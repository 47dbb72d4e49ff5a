"""Samples, unit atoms and regularizers for the methods for at most k non-zeros."""

import numpy as np
from all_supports import QUADRATIC

from proxsae.regularizers import parse

TEXTS = [*QUADRATIC, "0.1*L0", "MCP(3.0)"]


def data(n=12, p=16, d=8, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((p, d))
    return rng.standard_normal((n, d)).astype(dtype), (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(dtype)


def with_at_most(k, text):
    return parse(f"{text} + Cardinality({k})" if text != "Zero" else f"Cardinality({k})")
