"""The page for users of scikit-learn: both sides of each row give the same numbers."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.decomposition import SparseCoder, sparse_encode
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, Ridge, orthogonal_mp

from proxsae import ProxSAE, solve
from proxsae.encoders import Solved
from proxsae.regularizers import L1, Cardinality, NonNegative, SquaredL2

PAGE = Path(__file__).parents[1] / "docs" / "from_scikit_learn.csv"
CLASSES = (SparseCoder, ElasticNet, Lasso, LinearRegression, Ridge, ProxSAE, Solved, L1, Cardinality, NonNegative)
NAMES = {one.__name__: one for one in (*CLASSES, SquaredL2, sparse_encode, orthogonal_mp, solve)} | {"np": np}


def rows():
    with PAGE.open(newline="") as file:
        return [tuple(cell.strip("`") for cell in row) for row in list(csv.reader(file))[1:]]


@pytest.mark.filterwarnings("ignore:.*converge")
@pytest.mark.parametrize(("theirs", "ours"), rows())
def test_both_give_the_same(theirs, ours):
    random = np.random.default_rng(0)
    D = random.normal(size=(30, 20))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    A = random.normal(size=(40, 15))
    given = {"X": random.normal(size=(6, 20)), "D": D, "A": A, "y": random.normal(size=40), "a": 0.1, "r": 0.7, "k": 4}
    expected, found = (eval(code, dict(NAMES), given) for code in (theirs, ours))
    found = found.toarray() if issparse(found) else found
    assert np.count_nonzero(expected)
    np.testing.assert_allclose(found, expected, atol=2e-3)
