"""Compare with the real libraries: what they write, read by us, and what we write, read by them.

    python tests/formats/peers/compare.py

prints a table and fails where an output differs by more than rounding. `make test-formats` runs it in an environment
that has the libraries.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from parameters import DTYPES, real_parameters, rows

from proxsae import ProxSAE
from proxsae.encoders import Amortized
from proxsae.formats import load, save
from proxsae.regularizers import parse

PEERS = ("saelens_peer", "sparsify_peer", "dictionary_learning_peer", "gemma_scope_peer")
FROM_SOURCE = ("openai_peer", "llama_scope_peer")  # on no registry: compared where their source is on the path
TOLERANCE = 2e-6  # of the largest number
D, P, N = 12, 40, 500


def difference(ours, theirs):
    """The largest difference over the largest number."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def compare(sae, theirs, X):
    """The largest differences of codes and of reconstructions, and the L0."""
    codes, reconstruction = theirs
    rows = sae.provenance_.get("normalised_rows")
    if rows == "layer_norm":
        mean, std = X.mean(1, keepdim=True), X.std(1, keepdim=True)
        X, reconstruction = (X - mean) / (std + 1e-5), (reconstruction - mean.numpy()) / std.numpy()
    elif rows == "unit_mean_square":
        scale = X.shape[1] ** 0.5 / X.norm(dim=1, keepdim=True)
        X, reconstruction = X * scale, reconstruction * scale.numpy()
    Z = sae.transform(X.numpy())
    ours = unfolded(Z.toarray(), codes.shape[1])
    return (  # codes in the order of their size, for twins may change places
        difference(np.sort(ours), np.sort(codes)),
        difference(sae.predict(X.numpy()), reconstruction),
        float((codes != 0).sum(1).mean()),
    )


def unfolded(Z, n_components):
    """Codes as the library has them: where a pair was folded, its two sides."""
    return Z if Z.shape[1] == n_components else np.hstack([np.maximum(Z, 0), np.maximum(-Z, 0)])


def inwards(peer, folder, X):
    """Yield a line for each file that the library writes."""
    cases = [(name, write, dtype) for name, write in peer.CASES.items() for dtype in DTYPES]
    cases += [(name, write, torch.float32) for name, write in getattr(peer, "ONCE", {}).items()]
    for name, write, dtype in cases:
        path = folder / f"{name}-{dtype}"
        written = write(path, D, P, dtype) or path
        yield name, str(dtype).removeprefix("torch."), "in", compare(load(written), peer.forward(written, X), X)


def outwards(peer, folder, X):
    """Yield a line for each model of ours that the library reads."""
    for text, signed in peer.OUT.items():
        values = real_parameters(D, P)
        encoder = Amortized.of(parse(text), values["W_enc"].T.contiguous(), values["b_enc"])
        sae = ProxSAE.from_parts(values["W_dec"], values["b_dec"], encoder)
        path = folder / f"{text}{getattr(peer, 'SUFFIX', '')}"
        save(sae, path, format=peer.FORMAT, signed=signed)
        theirs = peer.forward(path, X)
        yield text.strip(), f"float32 {signed}", "out", compare(sae, theirs, X)
        yield text.strip(), f"float32 {signed}", "back", compare(load(path), theirs, X)
        for way, forward in getattr(peer, "WITHOUT_FILES", {}).items():
            yield (
                text.strip(),
                f"float32 {signed}",
                way,
                compare(sae, forward(sae, path.with_name(f"{path.name}.ours"), signed, X), X),
            )


def peers():
    """The libraries that are here; those on a registry must be."""
    found = [importlib.import_module(name) for name in PEERS]
    for name in FROM_SOURCE:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def main():
    X, worst, wrong = rows(N, D), 0.0, []
    form = "{:26s} {:34s} {:16s} {:6s} {:>10s} {:>14s} {:>6s}"
    print(form.format("library", "architecture or R", "dtype", "way", "codes", "reconstruction", "L0"))
    for peer in peers():
        if hasattr(peer, "releases"):
            n_names, wrong = peer.releases()
            print(f"{peer.NAME}: {n_names} names of releases, {len(wrong)} of which lead to another place {wrong[:3]}")
        with tempfile.TemporaryDirectory() as folder:
            for lines in (inwards, outwards):
                for name, dtype, way, (codes, output, l0) in lines(peer, Path(folder), X):
                    print(form.format(peer.NAME, name, dtype, way, f"{codes:.1e}", f"{output:.1e}", f"{l0:.1f}"))
                    worst = max(worst, codes, output)
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return 0 if worst <= TOLERANCE and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
