"""Arrays for a page: one JSON document, with the numbers as compressed bytes beside it."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

_ALIGNMENT = 4
# The dtypes that JavaScript reads without a copy.
_TYPES = {"f": "float32", "u": "uint32", "i": "int32", "b": "int8"}


def packed(tree: Any) -> str:
    """Return dicts, lists, texts, numbers and NumPy arrays as one JSON text that holds no ``<``, ``>`` or ``&``.

    In place of an array the tree holds its type, the byte at which it begins and its length; the bytes of all, little
    endian, are compressed by gzip and written in base64. Floating-point numbers become float32, integers int32 or
    uint32, or stay int8.

    Raises
    ------
    ValueError
        If an integer does not fit.
    """
    parts: list[bytes] = []
    document = {"tree": _noted(tree, parts)}
    document["blob"] = base64.b64encode(gzip.compress(b"".join(parts), 6, mtime=0)).decode()
    text = json.dumps(document, allow_nan=False)
    for character in "<>&":  # inside of a script element nothing may look like a tag
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _noted(tree: Any, parts: list[bytes]) -> Any:
    if isinstance(tree, dict):
        return {name: _noted(value, parts) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_noted(value, parts) for value in tree]
    if not isinstance(tree, np.ndarray):
        return tree
    kind = "b" if tree.dtype == np.int8 else "f" if tree.dtype.kind == "f" else "i" if (tree < 0).any() else "u"
    numbers = tree.astype(np.dtype(_TYPES[kind]).newbyteorder("<"))
    if kind in "iu" and not np.array_equal(numbers, tree):
        raise ValueError(f"an integer of {np.abs(tree).max()} does not fit into 32 bits")
    content = numbers.tobytes()
    start = sum(map(len, parts))
    parts.append(content + bytes(-len(content) % _ALIGNMENT))
    return {"array": _TYPES[kind], "start": start, "length": tree.size}
