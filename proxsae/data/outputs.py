"""Checks that an output does not overwrite an input of the same command."""

from __future__ import annotations

import os
from pathlib import Path

from proxsae.data.files import check_writable
from proxsae.data.shard import INDEX

_PAGES = (".html", ".csv")  # what is written beside a model, and again


def check_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Raise unless a file can be written at `path` without harm to the inputs; called before the work begins.

    Inputs are files or folders; names that are on no disk are ignored.

    Raises
    ------
    OSError
        If the file cannot be written, see :func:`proxsae.data.files.check_writable`.
    ValueError
        If it is an input, would take the place of a file in a folder that is one, or lies inside an activation store.
    """
    check_not_read(path, *inputs)
    check_writable(path)


def check_not_read(path: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Raise ValueError where a file or folder to be written is one of the inputs, or part of one."""
    target = Path(path).expanduser().resolve()
    for given in inputs:
        source = None if given is None else Path(given).expanduser().resolve()
        if source is None or not source.exists():
            continue
        if target.exists() and target.samefile(source):
            raise ValueError(f"'{path}' is read, so nothing can be written there: choose another name")
        if source not in target.parents:
            continue
        is_page = target.suffix in _PAGES or not target.is_file()
        if (source / INDEX).is_file() or not is_page:
            raise ValueError(f"'{path}' is inside '{given}', which is read, so nothing can be written there")
