"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; the file written there takes the place of `path` when the block ends without an error.

    Folders are made as needed. A file that is replaced keeps its permissions, and a link still points where it did.
    A path that is no regular file, such as ``/dev/null`` or a pipe, is never replaced: the bytes are copied into it. So
    are those for ``/dev/stdout``, at the place where the standard output is.

    Raises
    ------
    OSError
        If the file cannot be written, for want of space or permission; the sentence names `path`.
    """
    target, folder, is_special = _where(path)
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
            if is_special:
                with _opened(target) as sink:
                    shutil.copyfileobj(stream, sink)
        if not is_special:
            temporary.replace(target)
    except (OSError, SafetensorError) as error:
        if "cannot be written" in str(error):
            raise  # of a file that is written inside the block
        raise OSError(f"'{path}' cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless a file can be written at `path`; called before the work whose end writes the file.

    Folders that are missing stay so until then, and a file that is there is left as it is.
    """
    target, folder, is_special = _where(path)
    try:
        if target.is_fifo():  # its reader would take what opens and closes it for the whole of what is written
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        elif is_special:
            with target.open("ab"):
                pass
        there = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        raise OSError(f"'{path}' cannot be written: {error.strerror}.") from error


def _where(path: str | os.PathLike[str]) -> tuple[Path, Path, bool]:
    """Return the file behind any links, the folder for the temporary file, and whether bytes are copied into the file.

    That is so for devices, pipes and what this process has open, as ``/dev/stdout`` is. They are opened by the given
    name: the target of such a link may have no path.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        raise IsADirectoryError(f"'{path}' cannot be written: it is a folder, a file name is needed.")
    if given.exists() and (_descriptor(given) is not None or not given.is_file()):
        return given, Path(tempfile.gettempdir()), True
    target = given.resolve()
    return target, target.parent, False


def _opened(path: Path) -> BinaryIO:
    """Open a device or a pipe; what this process has open, at the place where it is: a shell may write on after it."""
    number = _descriptor(path)
    return path.open("wb") if number is None else os.fdopen(os.dup(number), "wb")


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path names."""
    if str(path) in ("/dev/stdout", "/dev/stderr"):
        return 1 if path.name == "stdout" else 2
    match = re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", str(path))
    return int(match[1]) if match else None
