"""Random parameters of small autoencoders for every library: with twins, dead atoms, and thresholds met exactly."""

import numpy as np
import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def parameters(d, p, dtype=torch.float32, seed=0):
    """W [d, p], b_enc, D [p, d], b_dec, thresholds of both signs, gate parameters.

    W, both biases and the thresholds are multiples of 1/4 of a few bits, as are rows(): then every product is exact in
    float32, and some pre-activations are exactly at a threshold or at zero. Atom 1 is the twin of atom 0, so that they
    tie; atom 2 is never active; atom 3 decodes to nothing.
    """
    rng = np.random.default_rng(seed)

    def grid(*shape, most=4):
        return torch.as_tensor(rng.integers(-most, most + 1, shape) / 4, dtype=torch.float32)

    W, D = grid(d, p), torch.as_tensor(rng.normal(size=(p, d)), dtype=torch.float32)
    b_enc, b_dec, threshold = grid(p), grid(d), grid(p)
    W[:, 1], b_enc[1], D[1], threshold[1] = W[:, 0], b_enc[0], D[0], threshold[0]
    W[:, 2], b_enc[2] = 0.0, -2.0
    D[3] = 0.01 * D[3]
    gate = {"b_gate": grid(p), "b_mag": grid(p), "r_mag": torch.as_tensor(0.3 * rng.normal(size=p))}
    found = {"W_enc": W, "b_enc": b_enc, "W_dec": D, "b_dec": b_dec, "threshold": threshold, **gate}
    return {name: value.to(dtype) for name, value in found.items()}


def real_parameters(d, p, dtype=torch.float32, seed=0):
    """The same with normal numbers, for TopK: no ties but that of the twins."""
    found = parameters(d, p, seed=seed)
    rng = np.random.default_rng(seed + 1)
    W, b = torch.as_tensor(rng.normal(size=(d, p))), torch.as_tensor(0.3 * rng.normal(size=p))
    W[:, 1], b[1] = W[:, 0], b[0]
    W[:, 2], b[2] = 0.0, -2.0
    found |= {"W_enc": W.float(), "b_enc": b.float()}
    return {name: value.to(dtype) for name, value in found.items()}


def rows(n, d, seed=5):
    return torch.as_tensor(np.random.default_rng(seed).integers(-6, 7, (n, d)) / 4, dtype=torch.float32)
