"""Arrays of strangers: mapped, or one sentence that names the file; and the dtype of data frames."""

import numpy as np
import pandas
import pytest
import torch
from hostile import answered, damaged_bytes
from hypothesis import given
from hypothesis import strategies as st

from proxsae.data.rows import mapped, rows_of


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    for number, dtype in enumerate(("<f4", ">f8", "<f2", "<i8")):
        np.save(folder / f"{number}.npy", np.arange(12).reshape(4, 3).astype(dtype))
    return sorted(folder.iterdir())


def test_it_is_the_array(files):
    for path in files:
        np.testing.assert_array_equal(mapped(path), np.arange(12).reshape(4, 3))


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::UserWarning")  # of NumPy, on a header of Python 2
@given(st.data())
def test_a_damaged_array_is_mapped_or_refused(files, tmp_path_factory, data):
    content = data.draw(st.sampled_from(files)).read_bytes()
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(
        data.draw(
            st.one_of(damaged_bytes(content), damaged_bytes(content[:128]).map(lambda head: head + content[128:]))
        )
    )
    X, sentence = answered(lambda: mapped(path), ValueError)
    assert "fuzzed.npy" in sentence if sentence else X.nbytes <= len(content)


@pytest.mark.parametrize("content", [b"", b"abc", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_what_is_no_array(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy' is not a whole \.npy array of numbers: "):
        mapped(tmp_path / "a.npy")


def test_objects_are_never_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects in dtype"):
        mapped(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="no file at"):
        mapped(tmp_path / "b.npy")


class Frame:
    """A data frame of polars, whose dtypes have no name."""

    shape, columns, dtypes = (4, 3), ["a", "b", "c"], ["Float32"] * 3

    def __array__(self, dtype=None, copy=None):
        return np.ones(self.shape, dtype or np.float32)


class Table:
    """A table of pyarrow, which has columns and no dtypes."""

    shape, columns = (4, 3), ["a", "b", "c"]

    def __array__(self, dtype=None, copy=None):
        return np.ones(self.shape, dtype or np.float64)


@pytest.mark.parametrize(
    ("frame", "dtype"),
    [
        (Frame(), torch.float32),
        (Table(), torch.float64),
        (pandas.DataFrame(np.ones((4, 3)), dtype="Float32"), torch.float32),
        (pandas.DataFrame(np.ones((4, 3)), dtype="Float64"), torch.float64),
        (pandas.DataFrame({"a": np.ones(4, np.float32), "b": np.ones(4)}), torch.float64),
    ],
)
def test_a_frame_keeps_its_dtype(frame, dtype):
    assert rows_of(frame, "X").dtype == dtype


def test_a_column_of_a_frame_is_no_matrix():
    with pytest.raises(ValueError, match=r"2D|2-dimensional"):
        rows_of(pandas.Series(np.ones(4)), "X")
