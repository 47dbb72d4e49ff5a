"""The formats of other libraries by name. A new one is one new file in `libraries` with one subclass of `Format`."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from proxsae.formats.parts import Activation, Parts, Rows

_FORMATS: dict[str, Format] = {}  # by name; a subclass enters itself


class Format(ABC):
    """A way to write a sparse autoencoder to files.

    Attributes
    ----------
    name : str
        The name for ``load`` and ``save``.
    library : str
        The library of the format, for messages.
    files : tuple of str
        The files that are read, relative to the folder of an autoencoder; none where it is one file of any name.
    written : tuple of str
        The files that :meth:`write` writes.
    writes : tuple of str
        The activations that :meth:`write` takes.
    rows : tuple of str
        The :attr:`Parts.rows` that the format takes.
    transcodes : bool
        Whether the format takes transcoders; those with a skip matrix only if `skips`.
    skips : bool
    loads : str
        The line of Python with which the library opens a folder, for the card.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    written: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[Activation, ...]]
    rows: ClassVar[tuple[Rows, ...]] = ("raw",)
    transcodes: ClassVar[bool] = False
    skips: ClassVar[bool] = False
    loads: ClassVar[str] = ""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.written = vars(cls).get("written", cls.files)
        _FORMATS[cls.name] = cls()

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether a file or folder looks like one of this format, by its names and the keys of its JSON."""

    @abstractmethod
    def read(self, path: Path) -> Parts:
        """Return the parts in a file or folder.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is missing, damaged or of a kind that :class:`Parts` cannot express; the sentence names the file
            and the field.
        """

    @abstractmethod
    def write(self, path: Path, parts: Parts) -> None:
        """Write the file or folder, with an activation of :attr:`writes`."""

    def check_written(self, parts: Parts) -> None:
        """Raise ValueError where the format has no place for the parts."""
        if parts.activation not in self.writes:
            has = ", ".join(self.writes)
            raise ValueError(f"{self.library} has no place for the activation {parts.activation!r}: it has {has}")
        if parts.k == 0:
            raise ValueError(f"{self.library} has no autoencoder whose codes are all zero, k = 0")
        if parts.is_transcoder and not self.transcodes:
            raise ValueError(f"{self.library} has no place for a transcoder, whose codes of x decode to something else")
        if parts.skip is not None and not self.skips:
            raise ValueError(f"{self.library} has no place for the skip matrix of a transcoder")
        if parts.rows not in self.rows:
            raise ValueError(f"{self.library} has no place for rows that are normalised first ({parts.rows!r})")


def formats() -> dict[str, Format]:
    """Return all formats by name."""
    from proxsae.formats import libraries

    for module in sorted(module.name for module in pkgutil.iter_modules(libraries.__path__)):
        importlib.import_module(f"{libraries.__name__}.{module}")
    return dict(_FORMATS)
