"""What `solve` refuses, each in one sentence that says what was given and what is allowed."""

import numpy as np
import pytest
import torch

from proxsae.regularizers import L1
from proxsae.solvers import solve

GOOD = {"X": np.ones((8, 12)), "D": 2 * np.eye(20, 12), "R": "0.1*L1"}


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"X": np.zeros(12)}, ValueError, r"X must have shape \(n_samples, n_features\), got \(12,\)"),
        ({"D": np.zeros((20, 11))}, ValueError, r"n_features = 12 as in X .* got \(20, 11\)"),
        ({"D": np.zeros((0, 12))}, ValueError, r"at least one of each, got \(0, 12\)"),
        ({"D": np.zeros(12)}, ValueError, r"D must have shape"),
        ({"X": np.full((8, 12), np.nan)}, ValueError, "X must be finite"),
        ({"D": np.full((20, 12), np.inf)}, ValueError, "D must be finite"),
        ({"D": torch.zeros(20, 12, dtype=torch.float64)}, TypeError, "X is NumPy float64 on cpu, D is Torch float64"),
        ({"D": np.zeros((20, 12), np.float32)}, TypeError, "X is NumPy float64 on cpu, D is NumPy float32 on cpu"),
        ({"X": np.zeros((8, 12), np.float16)}, TypeError, "X must be float32 or float64, got float16"),
        ({"X": np.zeros((8, 12), complex)}, TypeError, "X must hold real"),
        ({"X": np.zeros((8, 12), str)}, TypeError, "X must hold real"),
        ({"intercept": np.zeros(11)}, ValueError, r"intercept must have shape \(12,\), got \(11,\)"),
        ({"init": np.zeros((8, 19))}, ValueError, r"init must have shape .* \(8, 20\), got \(8, 19\)"),
        ({"init": np.full((8, 20), np.inf)}, ValueError, "init must be finite"),
        ({"R": "0.1*L7"}, ValueError, "unknown regularizer 'L7'"),
        ({"R": 0.1}, TypeError, "R must be a regularizer or text .* got float"),
        ({"R": np.ones(19) * L1()}, ValueError, "19 entries and the codes have 20"),
        ({"method": "lars"}, ValueError, "method must be \"auto\", 'ista', 'fista', got 'lars'"),
        ({"method": "fista", "R": "Cardinality(3)"}, ValueError, "'fista' needs a convex regularizer, and Cardinality"),
        ({"tol": -1.0}, ValueError, "tol must be a finite number >= 0"),
        ({"tol": np.nan}, ValueError, "tol must be a finite number >= 0"),
        ({"tol": "low"}, ValueError, "tol must be a finite number >= 0"),
        ({"max_iter": -1}, ValueError, "max_iter must be an integer >= 0"),
        ({"max_iter": 1.5}, ValueError, "max_iter must be an integer >= 0"),
        ({"step": 0.0}, ValueError, r"step must be a number in \(0, 0\.25\]"),
        ({"step": 10.0}, ValueError, r"step must be a number in \(0, 0\.25\], .* got 10.0"),
        ({"step": "big"}, ValueError, "step must be a number in"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        solve(**(GOOD | change))
    assert "\n" not in str(caught.value)


def test_sparse_matrices_are_refused():
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match="X must"):
        solve(csr_array(np.eye(3)), np.eye(3), "L1")
