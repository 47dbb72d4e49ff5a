"""Files are written whole or not at all, and what is no regular file stays what it is."""

import errno
import os
import stat
import subprocess
import sys
import threading
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


def test_a_device_is_not_replaced():
    null = Path(os.devnull)
    before = null.stat()
    check_writable(null)
    _write(null)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert null.stat().st_ino == before.st_ino


@pytest.mark.parametrize(("mode", "before"), [("ab", b"before, "), ("wb", b"")])
def test_the_standard_output_is_written_where_it_is(mode, before, tmp_path):
    code = "from proxsae.data.files import replacing\nwith replacing('/dev/stdout') as file: file.write_bytes(b'after')"
    (tmp_path / "all").write_bytes(b"before, ")
    with (tmp_path / "all").open(mode) as shared:
        subprocess.run([sys.executable, "-c", code], stdout=shared, check=True)
        shared.write(b", and more")
    assert (tmp_path / "all").read_bytes() == before + b"after, and more"


def test_a_pipe_gets_the_bytes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    _write(tmp_path / "pipe")
    reader.join(timeout=10)
    assert read == [b"new"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_pipe_is_not_opened_before_the_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    check_writable(tmp_path / "pipe")
    _write(tmp_path / "pipe")
    reader.join(timeout=10)
    assert read == [b"new"]


def test_a_pipe_without_a_place_is_written_by_its_link():
    source, sink = os.pipe()
    link = Path(f"/dev/fd/{sink}")  # what the shell gives for >(command)
    if not link.exists():
        pytest.skip("no /dev/fd on this machine")
    check_writable(link)
    _write(link)
    os.close(sink)
    with os.fdopen(source, "rb") as stream:
        assert stream.read() == b"new"


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
