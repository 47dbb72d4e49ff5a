"""Untrusted JSON beside the tensors of other libraries, read by name and type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proxsae.formats.files import check_file, one_line

MAX_BYTES = 2**24  # a configuration has a few thousand
_REQUIRED = object()


class JsonConfig:
    """The values of a JSON object; a refusal names the file and the field. ``"a.b"`` is b in the object a.

    Parameters
    ----------
    path : path
        The file that the values come from.
    values : dict
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    @classmethod
    def read(cls, path: Path) -> JsonConfig:
        """Return the content of a JSON file.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not a JSON object.
        """
        check_file(path)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {MAX_BYTES} for a configuration")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {one_line(str(error))}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} is not a JSON object, it is a {type(values).__name__}")
        return cls(path, values)

    def wrong(self, field: str, sentence: object) -> ValueError:
        """Return the error to raise."""
        return ValueError(f"{self.path}: the field {field!r}: {sentence}")

    def get(self, field: str) -> Any:
        """Return a value, None where there is none."""
        found: Any = self.values
        for name in field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def text(self, field: str, default: Any = _REQUIRED) -> str:
        """Return a text."""
        return self._of(field, str, "a text", default)  # type: ignore[no-any-return]

    def one_of(self, field: str, allowed: tuple[str, ...], default: Any = _REQUIRED) -> str:
        """Return a text that is one of those."""
        value = self.text(field, default)
        if value not in allowed:
            raise self.wrong(field, f"it is {one_line(value)!r}, known are {', '.join(map(repr, allowed))}")
        return value

    def integer(self, field: str, default: Any = _REQUIRED) -> int:
        """Return an integer from 1 to 2^63."""
        value: int = self._of(field, int, "an integer", default)
        if value < 1:
            raise self.wrong(field, f"it is {one_line(value)}, needed is at least 1")
        if value > 2**63:
            raise self.wrong(field, f"it is {one_line(value)}, needed is at most 2^63")
        return value

    def number(self, field: str, default: Any = _REQUIRED) -> float:
        """Return a finite number."""
        value = self._of(field, (int, float), "a number", default)
        if not abs(value) < 1e300:
            raise self.wrong(field, f"it is {one_line(value)}, needed is a finite number")
        return float(value)

    def flag(self, field: str, default: Any = _REQUIRED) -> bool:
        """Return true or false."""
        return self._of(field, bool, "true or false", default)  # type: ignore[no-any-return]

    def _of(self, field: str, types: Any, kind: str, default: Any) -> Any:
        value = self.get(field)
        if value is None and default is not _REQUIRED:
            return default
        if value is None:
            raise self.wrong(field, "it is missing")
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise self.wrong(field, f"it is {one_line(value)}, needed is {kind}")
        return value
