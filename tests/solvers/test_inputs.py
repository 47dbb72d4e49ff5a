"""What `solve` refuses, each in one sentence that says what was given and what is allowed."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csr_array, csr_matrix

from proxsae.regularizers import L1, parse
from proxsae.solvers import inputs, iterate, solve
from proxsae.solvers.methods import ALGORITHMS

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
        ({"D": torch.zeros(20, 12, dtype=torch.float64)}, TypeError, "X is NumPy, D is Torch on cpu"),
        ({"D": csr_array(np.zeros((20, 12)))}, TypeError, "D must be a dense array, got csr_array"),
        ({"X": np.zeros((8, 12), np.longdouble)}, TypeError, "X must be float64, .* got "),
        ({"X": csr_array(np.full((8, 12), np.inf))}, ValueError, "X must be finite"),
        ({"X": torch.ones(8, 12), "D": torch.ones(20, 12), "sparse_output": True}, TypeError, "needs NumPy input"),
        ({"X": torch.ones(8, 12).to_sparse()}, TypeError, "X must be a dense tensor, got torch.sparse_coo"),
        ({"X": torch.ones(8, 12), "D": torch.ones(20, 12).to_sparse_csr()}, TypeError, "D must be a dense tensor"),
        ({"X": np.zeros((8, 12), complex)}, TypeError, "X must hold real"),
        ({"X": np.zeros((8, 12), str)}, TypeError, "X must hold real"),
        ({"D": np.diag([1.0] * 11 + [1e-160])[:, :12]}, ValueError, "D has an atom of size 1e-160; .* scale D"),
        ({"D": np.full((20, 12), 1e155)}, ValueError, r"D has an atom of size 1e\+155; .* scale D"),
        ({"intercept": np.zeros(11)}, ValueError, r"intercept must have shape \(12,\), got \(11,\)"),
        ({"init": np.zeros((8, 19))}, ValueError, r"init must have shape .* \(8, 20\), got \(8, 19\)"),
        ({"init": np.full((8, 20), np.inf)}, ValueError, "init must be finite"),
        ({"R": "0.1*L7"}, ValueError, "unknown regularizer 'L7'"),
        ({"R": 0.1}, TypeError, "R must be a regularizer or text .* got float"),
        ({"R": np.ones(19) * L1()}, ValueError, "19 entries and the codes have 20"),
        ({"D": [[1.0, 2.0], [3.0]]}, ValueError, "D must be an array, got nested lists of different lengths"),
        ({"method": ["cd"]}, ValueError, r"method must be \"auto\", .* got \['cd'\]"),
        ({"method": "lars"}, ValueError, 'method must be "auto", "active_set", .*, got \'lars\''),
        ({"method": "fista", "R": "Cardinality(3)"}, ValueError, "'fista' needs a convex regularizer, and Cardinality"),
        ({"tol": -1.0}, ValueError, "tol must be a finite number >= 0"),
        ({"tol": np.nan}, ValueError, "tol must be a finite number >= 0"),
        ({"tol": "low"}, ValueError, "tol must be a finite number >= 0"),
        ({"max_iter": -1}, ValueError, "max_iter must be an integer >= 0"),
        ({"max_iter": 1.5}, ValueError, "max_iter must be an integer >= 0"),
        ({"gram_limit": -1}, ValueError, "gram_limit must be an integer >= 0, got -1"),
        ({"gram_limit": 1e4}, ValueError, "gram_limit must be an integer >= 0, got 10000.0"),
        ({"step": 0.0}, ValueError, r"step must be a number in \(0, 0\.25\]"),
        ({"step": 10.0}, ValueError, r"step must be a number in \(0, 0\.25\], .* got 10.0"),
        ({"step": "big"}, ValueError, "step must be a number in"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        solve(**(GOOD | change))
    assert "\n" not in str(caught.value)


SAME = [
    (np.float32, np.float64, np.float64),
    (np.float64, np.float32, np.float64),
    (np.float16, np.float32, np.float32),
    (np.float16, np.float16, np.float32),
    (np.float16, np.float64, np.float64),
    (">f8", np.float64, np.float64),
    (">f4", "<f4", np.float32),
    (np.int32, np.float32, np.float64),
]


@pytest.mark.parametrize(("of_X", "of_D", "of_codes"), SAME)
def test_dtypes_promote_as_in_numpy(of_X, of_D, of_codes):
    X, D = np.arange(24).reshape(4, 6) / 4, np.eye(8, 6)
    X = X.round() if np.issubdtype(np.dtype(of_X), np.integer) else X
    s = solve(X.astype(of_X), D.astype(of_D), "1.0*L1", intercept=np.ones(6, np.float16), init=np.zeros((4, 8), ">f4"))
    assert s.codes.dtype == of_codes
    assert s.codes.dtype.isnative
    np.testing.assert_allclose(s.codes, solve(X, D, "1.0*L1", intercept=np.ones(6)).codes, atol=1e-5)


@pytest.mark.parametrize(
    ("of_X", "of_D", "of_codes"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_tensor_dtypes_promote(of_X, of_D, of_codes):
    X, D = torch.arange(24.0).reshape(4, 6), torch.eye(8, 6)
    s = solve(X.to(of_X), D.to(of_D), "1.0*L1")
    assert s.codes.dtype == of_codes
    torch.testing.assert_close(s.codes.float(), solve(X, D, "1.0*L1").codes)


def test_sparse_input_and_output(monkeypatch):
    """The same codes; X and init are read in blocks, and dense codes of all samples never exist."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((11, 6)) * (rng.random((11, 6)) < 0.4)
    D = rng.standard_normal((9, 6))
    dense = solve(X, D, "0.5*L1")
    monkeypatch.setattr(iterate, "CACHE_ENTRIES", 27)
    monkeypatch.setattr(iterate, "MIN_ROWS", 3)  # three samples a block
    sparse = solve(csr_array(X), D, "0.5*L1", init=csr_array(0 * dense.codes), sparse_output=True)
    assert isinstance(sparse.codes, csr_matrix)
    np.testing.assert_allclose(sparse.codes.toarray(), dense.codes, atol=1e-12)
    np.testing.assert_allclose(sparse.objective, dense.objective, rtol=1e-12)
    again = solve(coo_array(X), D, "0.5*L1", init=sparse.codes, sparse_output=True)
    assert again.n_iter.max() <= 1
    np.testing.assert_allclose(again.codes.toarray(), dense.codes, atol=1e-12)
    assert (again.codes != sparse.codes).nnz == 0


class Rows:
    """Rows as a store gives them: sliced from disk, never as a whole."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.read = X, X.shape, X.dtype, []

    def __getitem__(self, part):
        self.read.append(part)
        return self.X[part].copy()

    def __array__(self, *_, **__):
        raise AssertionError("read as a whole")


@pytest.mark.parametrize("method", ["active_set", "fista"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_on_disk_are_read_block_by_block(method, dtype, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((11, 6)).astype(dtype), rng.standard_normal((9, 6)).astype(dtype)
    X.tofile(tmp_path / "rows")
    monkeypatch.setattr(iterate, "CACHE_ENTRIES", 27)
    monkeypatch.setattr(iterate, "MIN_ROWS", 3)
    monkeypatch.setattr(inputs, "CHUNK_ENTRIES", 27)
    stored = Rows(X)
    expected = solve(X, D, "0.5*L1", method=method)
    for rows in (stored, np.memmap(tmp_path / "rows", dtype, "r", shape=X.shape)):
        np.testing.assert_array_equal(solve(rows, D, "0.5*L1", method=method).codes, expected.codes)
    assert len(stored.read) == 4
    np.testing.assert_allclose(solve(Rows(X), D, "Cardinality(2)").codes, solve(X, D, "Cardinality(2)").codes)


def test_bad_rows_on_disk():
    X = np.ones((4, 3), np.float32)
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match="X must be finite"):
        solve(Rows(X), np.eye(3, dtype=np.float32), "L1")
    with pytest.raises(ValueError, match="float32 rows outside"):
        solve(Rows(np.full((4, 3), 1e30, np.float32)), np.eye(3, dtype=np.float32), "L1")
    with pytest.raises(TypeError, match="X must be float64"):
        solve(Rows(np.full((4, 3), 1j)), np.eye(3), "L1")


def test_integers_on_disk_become_float64(tmp_path):
    X, D = np.random.default_rng(0).integers(0, 200, (7, 5)).astype(np.uint8), np.eye(5, dtype=np.float32)
    X.tofile(tmp_path / "rows")
    expected = solve(X, D, "3.0*L1").codes
    for rows in (Rows(X), np.memmap(tmp_path / "rows", np.uint8, "r", shape=X.shape)):
        codes = solve(rows, D, "3.0*L1").codes
        assert codes.dtype == expected.dtype == np.float64
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("method", sorted(set(ALGORITHMS) - {"admm"}))
def test_read_only_arrays(method):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((4, 6)), rng.standard_normal((9, 6))
    R = "Cardinality(2)" if ALGORITHMS[method].refuses(parse("0.5*L1")) else "0.5*L1"
    expected = solve(X, D, R, method=method).codes
    for a in (X, D):
        a.flags.writeable = False
    np.testing.assert_array_equal(solve(X, D, R, method=method).codes, expected)


@pytest.mark.parametrize("R", ["0.5*L1", "0.1*L0", "Cardinality(2)", "0.5*GroupL2(3)"])
def test_arrays_in_the_order_of_columns(R):
    rng = np.random.default_rng(0)
    X, D = rng.standard_normal((4, 6)), rng.standard_normal((9, 6))
    first = solve(X, D, R)
    again = solve(*map(np.asfortranarray, (X, D)), R, init=np.asfortranarray(first.codes))
    np.testing.assert_allclose(again.codes, first.codes, atol=1e-12)


@pytest.mark.parametrize("method", ["fista", "cd", "active_set"])
def test_tensors_start_from_csr_codes(method):
    X, D = torch.eye(2), torch.eye(2)
    s = solve(X, D, "0.5*L1", init=csr_array(np.diag([0.5, 0.5])), method=method, max_iter=0)
    assert s.codes.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert s.converged.all()
