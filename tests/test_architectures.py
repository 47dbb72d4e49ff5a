"""Every line of the table of docs/architectures.rst runs, and is what its row says."""

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import proxsae.regularizers
from proxsae import ProxSAE
from proxsae.encoders import Solved, Unrolled
from proxsae.training import HierarchicalTopK, Matryoshka

DOCS = Path(__file__).parent.parent / "docs"
ROWS = list(csv.DictReader((DOCS / "architectures.csv").open(encoding="utf-8")))
P = 32


@pytest.fixture(scope="module")
def names():
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 8)).astype(np.float32)

    def quick(R, n_components, **options):
        return ProxSAE(R, n_components, n_steps=5, batch_size=64, random_state=0, **options)

    found = {name: getattr(proxsae.regularizers, name) for name in proxsae.regularizers.__all__}
    found |= {"ProxSAE": quick, "Solved": Solved, "Unrolled": Unrolled, "np": np, "p": P}
    found |= {"Matryoshka": Matryoshka, "HierarchicalTopK": HierarchicalTopK}
    found |= {"X": X, "Y": random.normal(size=(200, 5)), "D": random.normal(size=(P, 8))}
    (loop,) = [text for text in re.findall(r"(?:^   .*\n|^\n)+", page(), flags=re.M) if "def annealed" in text]
    source = "\n".join(line[3:] for line in loop[loop.index("   def annealed") :].splitlines())
    exec(source, found)
    return found | {"annealed": partial(found["annealed"], n_steps=40)}


def page():
    return (DOCS / "architectures.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Architecture"])
@pytest.mark.filterwarnings("ignore:the weight of R is that of the last step", "ignore:.*of 32 atoms were used by none")
def test_the_line_runs(row, names):
    sae = eval(row["Code"], names)
    Z = sae.transform(names["X"])
    assert Z.shape == (200, P)
    assert Z.nnz > 0
    assert np.isfinite(sae.predict(names["X"])).all()
    largest = re.search(r"Cardinality\((\d+)\)", row["Code"])
    if largest and "Group" not in row["Code"]:
        assert np.diff(Z.indptr).max() <= int(largest[1])
    if "target_l0" in row["Code"]:
        assert Z.nnz / 200 == pytest.approx(4, rel=0.2)
    if "GroupCardinality" in row["Code"]:
        groups = np.zeros((P, 8))
        groups[np.arange(P), np.arange(P) // 4] = 1
        assert ((Z.toarray() != 0) @ groups > 0).sum(1).max() <= 2
    if "Simplex" in row["Code"]:
        np.testing.assert_allclose(Z.sum(1), 3, rtol=1e-4)
    if "NonNegative" in row["Code"]:
        assert Z.data.min() >= 0
    if "frozen" in row["Code"]:
        unit = names["D"] / np.linalg.norm(names["D"], axis=1, keepdims=True)
        np.testing.assert_allclose(sae.components_, unit, atol=1e-6)
    if "AsymmetricL0" in row["Code"]:
        R = sae.regularizer_
        assert np.ptp(R.positive) > 0
        assert np.ptp(np.asarray(R.negative) / np.asarray(R.positive)) > 1e-3
