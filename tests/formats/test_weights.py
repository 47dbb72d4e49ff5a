"""Tensors of strangers: what is not data, not whole or not of the size it says is refused before it is read."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hostile import answered
from safetensors.torch import save_file

from proxsae.formats.weights import npz_weights, safetensors_weights, torch_weights

GOOD = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def archive(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.fixture(params=["safetensors", "npz", "torch"])
def written(request, tmp_path):
    """A file of each kind, what reads it, and the file's path."""
    path = tmp_path / f"weights.{request.param}"
    if request.param == "safetensors":
        save_file(GOOD, path)
        return path, safetensors_weights
    if request.param == "npz":
        with path.open("wb") as stream:
            np.savez(stream, **{name: t.numpy() for name, t in GOOD.items()})
        return path, npz_weights
    torch.save(GOOD, path)
    return path, lambda path: torch_weights(path)[0]


def test_tensors_are_read(written):
    path, read = written
    weights = read(path)
    assert weights.shapes == {"a": (2, 3), "b": (3,)}
    assert "a" in weights
    assert torch.equal(weights.tensor("a", 2, 3), GOOD["a"])
    assert weights.first("c", "b") == "b"


def test_what_is_asked_for_must_be_there(written):
    path, read = written
    for name, shape, sentence in (
        ("c", (3,), "'c': it is missing; there are a, b"),
        ("b", (4,), r"'b': it has shape \(3,\), needed is \(4,\)"),
        ("b", (3, 1), r"'b': it has shape \(3,\), needed are 2 dimensions"),
    ):
        with pytest.raises(ValueError, match=sentence) as refusal:
            read(path).tensor(name, *shape)
        assert str(path) in str(refusal.value)


def test_every_truncation_is_one_sentence(written):
    path, read = written

    def read_all():
        weights = read(path)
        return weights.tensor("a", 2, 3), weights.tensor("b", 3)

    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=str(path)) as refusal:
            read_all()
        assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    for read in (safetensors_weights, npz_weights, torch_weights):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path} is a folder, needed is a file"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match=f"no file at {tmp_path / 'nothing'}"):
            read(tmp_path / "nothing")


def test_an_array_of_objects_is_never_unpickled(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return print, ("unpickled",)

    path = archive(tmp_path / "a.npz", a=npy(np.array([Hostile()], dtype=object)))
    with pytest.raises(ValueError, match=r"a\.npz is not a whole NumPy file: a\.npy holds object, needed are num"):
        npz_weights(path)
    assert "unpickled" not in capsys.readouterr().out


def test_a_hostile_torch_file_is_not_executed(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return print, ("unpickled",)

    torch.save({"a": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is not a whole Torch file: its pickle asks for print, and only"):
        torch_weights(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Hostile()))  # as before Torch 1.6
    with pytest.raises(ValueError, match=r"b\.pt is not a file of torch\.save in the format of Torch 1\.6 or later"):
        torch_weights(tmp_path / "b.pt")
    assert "unpickled" not in capsys.readouterr().out


def test_an_array_that_says_more_than_is_there_is_not_allocated(tmp_path):
    """10^13 numbers in a header of a hundred bytes."""
    content = npy(np.ones(3)).replace(b"(3,), }", b"(9999999999999,), }".ljust(7))
    header = content.index(b"\n") + 1
    length = header - 10
    content = content[:8] + length.to_bytes(2, "little") + content[10:]
    with pytest.raises(ValueError, match="which is not the size of shape"):
        npz_weights(archive(tmp_path / "a.npz", a=content))


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsae.data.memory.os.sysconf", lambda name: 1000)  # a megabyte
    path = archive(tmp_path / "a.npz", a=npy(np.zeros((300, 300))))
    assert path.stat().st_size < 2000
    with pytest.raises(ValueError, match=r"\(300, 300\) needs 0\.00144 GB, and this machine has 0\.001 GB"):
        npz_weights(path).tensor("a", 300, 300)


@pytest.mark.parametrize("dtype", ["V6000", "U2000", "M8[s]", "c8", "f4,f4"])
def test_an_array_of_no_numbers_is_refused_before_it_is_read(dtype, tmp_path):
    with pytest.raises(ValueError, match=r"a\.npy holds .*, needed are numbers of at most 8 bytes"):
        npz_weights(archive(tmp_path / "a.npz", a=npy(np.zeros(3, dtype))))


@pytest.mark.parametrize(("version", "length"), [(1, 60_000), (2, 2**20), (2, 2**32 - 1)])
def test_a_long_header_is_refused_before_it_is_read(version, length, tmp_path):
    content = b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 * version, "little") + bytes(2**20)
    with pytest.raises(ValueError, match=rf"file: a\.npy has a header of {length} bytes, at most 10000$"):
        npz_weights(archive(tmp_path / "a.npz", a=content))


def test_the_negative_of_a_stored_tensor_is_read(tmp_path):
    torch.save({"a": torch._neg_view(torch.ones(3))}, tmp_path / "a.pt")
    tensor = torch_weights(tmp_path / "a.pt")[0].tensor("a", 3)
    np.testing.assert_array_equal(tensor.numpy(), -np.ones(3))


def test_a_tensor_whose_numbers_are_not_all_stored_is_refused(tmp_path):
    for name, tensor in (
        ("expanded", torch.ones(1).expand(10**12)),
        ("sparse", torch.eye(3).to_sparse()),
        ("meta", torch.empty(3, device="meta")),
    ):
        torch.save({"a": tensor}, tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: the field 'a': it is not a plain tensor|{name} is not a whole"):
            torch_weights(tmp_path / name)


def test_a_torch_file_holds_a_dict(tmp_path):
    torch.save([torch.ones(3)], tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds a list, needed is a dict of tensors"):
        torch_weights(tmp_path / "a.pt")


def test_a_compressed_torch_file_is_refused(tmp_path):
    torch.save(GOOD, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for entry in source.infolist():
            out.writestr(entry.filename, source.read(entry.filename))
    with pytest.raises(ValueError, match=r"b\.pt is not a whole Torch file: .* is compressed"):
        torch_weights(tmp_path / "b.pt")


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_arrays_of_any_order_and_precision_are_numbers(tmp_path, dtype):
    values = np.linspace(-1, 1, 6).astype(dtype)
    weights = npz_weights(archive(tmp_path / "a.npz", a=npy(values)))
    assert np.array_equal(weights.tensor("a", 6).numpy(), values.astype("f8" if dtype == "<f8" else "f4"))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_what_is_no_floating_number_is_refused(tmp_path, dtype):
    save_file({"a": torch.ones(3).to(dtype)}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"'a': it holds .*, needed are floating numbers"):
        safetensors_weights(tmp_path / "a").tensor("a", 3)


def test_an_integer_is_one(tmp_path):
    save_file({"k": torch.tensor(3), "x": torch.tensor(3.0), "v": torch.ones(1, dtype=torch.int)}, tmp_path / "a")
    weights = safetensors_weights(tmp_path / "a")
    assert weights.integer("k") == 3
    for name in ("x", "v"):
        with pytest.raises(ValueError, match=f"'{name}'"):
            weights.integer(name)


def test_a_bit_of_the_end_of_a_torch_file(tmp_path):
    """There the directory of the zip file is, of which Python raises errors of several types."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    content = path.read_bytes()
    for bit in range(8 * (len(content) - 100), 8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        _, sentence = answered(lambda: torch_weights(path), ValueError)
        assert not sentence or str(path) in sentence
