"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; the file written there takes the place of `path` when the block ends without an error.

    Folders are made as needed. A file that is replaced keeps its permissions, and a link still points where it did.

    Raises
    ------
    OSError
        If the file cannot be written, for want of space or permission, or since `path` is a device, a pipe or a folder;
        the sentence names `path`.
    """
    target = _where(path)
    folder = target.parent
    temporary = folder / f".{target.name}.{os.getpid()}.partial"
    try:
        if not folder.exists():  # else a file in its place would be "File exists", where "Not a directory" is meant
            folder.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = stat.S_IMODE((target if target.is_file() else temporary).stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # some libraries write files that only their owner may read
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        if "cannot be written" in str(error):
            raise  # of a file that is written inside the block
        raise OSError(f"'{path}' cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def crc32_of(path: Path) -> int:
    """Return the CRC-32 of the bytes of a file."""
    crc = 0
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            crc = zlib.crc32(part, crc)
    return crc


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless a file can be written at `path`; called before the work whose end writes the file.

    Folders that are missing stay so until then, and a file that is there is left as it is.
    """
    target = _where(path)
    try:
        there = next(one for one in target.parents if one.exists())
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        raise OSError(f"'{path}' cannot be written: {error.strerror}.") from error


def _where(path: str | os.PathLike[str]) -> Path:
    """Return the file behind any links, or raise OSError where there is something that is no regular file."""
    given = Path(path).expanduser()
    if given.is_dir():
        raise IsADirectoryError(f"'{path}' cannot be written: it is a folder, a file name is needed.")
    is_open = str(given).startswith(("/dev/std", "/dev/fd/", "/proc/"))  # a link to what a process writes to already
    if given.exists() and (is_open or not given.is_file()):
        raise OSError(f"'{path}' cannot be written: it is no regular file.")
    return given.resolve()
