"""Labels of the tokens of an activation store that need no annotation, and the topics of documents."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxsae.llm.contexts import PACKING, boundary_tokens, padding_id, separator_ids

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore

TITLE = 64  # tokens among which the title of a document ends
Bits = NDArray[np.bool_]

# Of a token's text.
SPELLINGS: dict[str, Callable[[str], bool]] = {
    "begins a word": lambda text: text[:1].isspace() and text.strip()[:1].isalpha(),
    "capitalised": lambda text: text.strip()[:1].isupper(),
    "has a digit": lambda text: any(character.isdigit() for character in text),
    "is punctuation": lambda text: bool(text.strip()) and all(c in string.punctuation for c in text.strip()),
}
# Of the text of the token before.
FOLLOWS: dict[str, Callable[[str], bool]] = {
    "after a comma": lambda text: text.rstrip().endswith(","),
    "after a full stop": lambda text: text.rstrip().endswith("."),
    "after a bracket": lambda text: text.rstrip().endswith("("),
    "after a digit": lambda text: text.rstrip()[-1:].isdigit(),
}
POSITION = "in the first half of its context"


class Documents(NamedTuple):
    """The documents of a store's rows."""

    of_row: NDArray[np.intp]
    """Which document each row belongs to."""
    title: dict[int, str]
    """What stands before the first blank line; of documents whose beginning is in the store."""


def token_properties(store: ActivationStore, rows: NDArray[np.intp], tokenizer: Any) -> dict[str, Bits]:
    """Return for each property a mask of the rows: properties of spelling, the token before, and position."""
    contexts, positions = store.trace(rows)
    tokens = {int(context): store.tokens(int(context)) for context in np.unique(contexts)}
    here = np.array([tokens[int(c)][p] for c, p in zip(contexts, positions, strict=True)])
    before = np.array([tokens[int(c)][max(p - 1, 0)] for c, p in zip(contexts, positions, strict=True)])
    found = {name: _holds(test, here, tokenizer) for name, test in SPELLINGS.items()}
    found |= {name: _holds(test, before, tokenizer) & (positions > 0) for name, test in FOLLOWS.items()}
    return {**found, POSITION: positions < store.info["context_length"] // 2}


def _holds(test: Callable[[str], bool], tokens: NDArray[Any], tokenizer: Any) -> Bits:
    """Return whether the text of each token passes a test, which is called once for each distinct token."""
    different, place = np.unique(tokens, return_inverse=True)
    return np.array([test(str(tokenizer.decode([int(token)]))) for token in different], dtype=bool)[place]


def documents_of(store: ActivationStore, tokenizer: Any) -> Documents | None:
    """Return the documents of all rows: in the contexts the separator of the harvest closes each, or padding does.

    Where no separator does, a document that fills its last context runs together with the next. Where neither does, no
    document can be told from the next: None.
    """
    closing = separator_ids(store.info.get("separator", PACKING.separator), tokenizer)
    is_concatenated = store.info.get("concatenate", PACKING.concatenate)
    if not closing and is_concatenated:
        return None
    contexts, positions = store.trace(np.arange(len(store)))
    first, last = int(contexts[0]), int(contexts[-1])
    tokens = np.stack([store.tokens(context) for context in range(first, last + 1)])
    has_start = store.info.get("bos", PACKING.bos) and boundary_tokens(tokenizer)[0] is not None
    head = 1 if has_start else 0  # of every context, and of no document
    is_padding = np.logical_and.accumulate(tokens[:, ::-1] == padding_id(tokenizer), axis=1)[:, ::-1]
    text, is_padding = (array[:, head:].reshape(-1) for array in (tokens, is_padding))
    is_end = np.isin(text, closing) | (is_padding & (not is_concatenated))  # else only the last context is padded
    number = np.cumsum(np.concatenate([[0], is_end]))[:-1]  # an end belongs to what it closes
    place = (contexts - first) * (tokens.shape[1] - head) + positions - head
    ends = np.append(np.flatnonzero(is_end), len(text))
    title = {}
    for document in np.unique(number[place]):
        if document or first == 0:  # that of a part of a store may have begun before
            begin = ends[document - 1] + 1 if document else 0
            opening = str(tokenizer.decode(text[begin : min(begin + TITLE, ends[document])].tolist()))
            title[int(document)] = opening.split("\n\n")[0].strip()
    return Documents(number[place], title)


def topics(documents: Documents, topic_of: Mapping[str, str] | None = None) -> dict[int, str]:
    """Return the topic of each document that has one.

    Parameters
    ----------
    documents : Documents
    topic_of : mapping of str to str, optional
        From title to topic; by default that of the embedded Wikipedia summaries, without "Uncategorized".
    """
    known = _wikipedia_topics() if topic_of is None else topic_of
    return {document: known[title] for document, title in documents.title.items() if title in known}


def _wikipedia_topics() -> dict[str, str]:
    from proxsae.llm.text import embedded_summaries

    path = embedded_summaries()
    articles = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    return {a["title"]: a["topic"] for a in articles.values() if a["topic"] != "Uncategorized"}
