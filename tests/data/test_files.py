"""Files are written whole or not at all, and what is no regular file is refused."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from proxsae.data.files import check_writable, replacing


def _write(path, content=b"new"):
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def test_a_file_is_written_and_nothing_else(tmp_path):
    _write(tmp_path / "deep" / "a", b"old")
    _write(tmp_path / "deep" / "a")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "deep").iterdir()] == [("a", b"new")]


def test_an_error_leaves_what_was_there(tmp_path):
    _write(tmp_path / "a", b"old")

    def fail():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_permissions_are_those_of_any_file_and_stay(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a") as temporary:
        save_file({"x": np.ones(3)}, temporary)
    assert load_file(tmp_path / "a")["x"].sum() == 3
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "a").chmod(0o640)
    _write(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_still_points_where_it_did(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store" / "a")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "store" / "a").read_bytes() == b"new"


@pytest.mark.parametrize("path", [os.devnull, "/dev/stdout", "/dev/fd/1", "pipe"])
def test_what_is_no_regular_file_is_refused_and_stays(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    before = Path(path).stat()
    for write in (check_writable, _write):
        with pytest.raises(OSError, match=f"^'{path}' cannot be written: it is no regular file\\.$"):
            write(path)
    assert os.path.samestat(Path(path).stat(), before)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    _write(tmp_path / "a", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("proxsae.data.files.os.fsync", full)
    with pytest.raises(OSError, match=r"^'.*/a' cannot be written: No space left on device\.$"):
        _write(tmp_path / "a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_a_full_disk_met_by_safetensors_is_one_sentence(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^'.*/a' cannot be written: "), replacing(tmp_path / "a") as temporary:
            save_file({"x": np.ones(1000)}, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_known_before(tmp_path):
    check_writable(tmp_path / "new" / "a")
    assert list(tmp_path.iterdir()) == []  # no empty folder is left of a work that is refused then
    for wrong in (tmp_path, tmp_path / "file" / "a"):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="cannot be written: "):
            check_writable(wrong)
        with pytest.raises(OSError, match="cannot be written: "):
            _write(wrong)


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match=r"a/b' cannot be written: Not a directory\."):
        _write(tmp_path / "a" / "b")
