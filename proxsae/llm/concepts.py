"""Concept axes: pairs of contexts that differ in one concept, and words whose odds tell the two sides apart.

An axis is a JSON file with the names of its sides, ``"a"`` and ``"b"``, the words ``"targets_a"`` and ``"targets_b"``,
and ``"templates"``: texts that hold one pair, ``"My {mother|father} was late because"``. Those of the package stand in
the folder ``axes``; the topics are subjects of articles of the embedded Wikipedia summaries.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxsae.llm.contexts import ids_of
from proxsae.llm.model import LanguageModel

__all__ = ["Axis", "read_axes", "target_ids"]

FOLDER = Path(__file__).parent / "axes"

_PAIR = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")


@dataclass(frozen=True)
class Axis:
    """Two sides of a concept.

    Attributes
    ----------
    name, a, b : str
    templates : tuple of (str, str)
        The context for either side.
    targets_a, targets_b : tuple of str
        Words that follow, with the space before them.
    """

    name: str
    a: str
    b: str
    templates: tuple[tuple[str, str], ...]
    targets_a: tuple[str, ...]
    targets_b: tuple[str, ...]


def read_axes(folder: str | Path = FOLDER) -> list[Axis]:
    """Return the axes of a folder, a JSON file each, by name.

    Raises
    ------
    ValueError
        If a file is not as described, or a context occurs twice in it, or there is no file.
    """
    found = [_read(path) for path in sorted(Path(folder).glob("*.json"))]
    if not found:
        raise ValueError(f"{folder} holds no axis: give a folder of .json files")
    return found


def _read(path: Path) -> Axis:
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        texts = held["templates"]
        pairs = [_PAIR.findall(text) for text in texts]
        wrong = next((text for text, pair in zip(texts, pairs, strict=True) if len(pair) != 1), None)
        if wrong is not None:
            raise ValueError(f"the template {wrong!r} must hold one pair such as {{he|she}}")
        sides = [(_PAIR.sub(r"\1", text), _PAIR.sub(r"\2", text)) for text in texts]
        contexts = [context for pair in sides for context in pair]
        if len(sides) < 4 or len(set(contexts)) < len(contexts):
            raise ValueError("at least 4 templates are needed, and no context may occur twice")
        words = {side: tuple(held[f"targets_{side}"]) for side in "ab"}
        if not words["a"] or not words["b"] or set(words["a"]) & set(words["b"]):
            raise ValueError("each side needs targets of its own")
        return Axis(path.stem, held["a"], held["b"], tuple(sides), words["a"], words["b"])
    except KeyError as error:
        raise ValueError(f"{path}: the field {error} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def target_ids(model: LanguageModel, axis: Axis) -> tuple[list[int], list[int], list[str]]:
    """Return the tokens that stand for the targets of either side, and the words that are more than one token.

    The first token stands for a word of several tokens.

    Raises
    ------
    ValueError
        If a token would stand for both sides.
    """
    ids = {word: ids_of(word, model.tokenizer) for word in (*axis.targets_a, *axis.targets_b)}
    a, b = ([ids[word][0] for word in words] for words in (axis.targets_a, axis.targets_b))
    if both := set(a) & set(b):
        words = [word for word in ids if ids[word][0] in both]
        raise ValueError(f"axis {axis.name!r}: {', '.join(map(repr, words))} begin with the same token")
    return sorted(set(a)), sorted(set(b)), [word for word, found in ids.items() if len(found) > 1]
