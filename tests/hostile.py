"""Damaged and hostile input for everything that reads, and what a reader may answer: a result, or one sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 60)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def damaged_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of contents near `content`: bits flipped, cut, stuffed or overwritten."""
    places = st.integers(0, len(content) - 1)
    flips = st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=3).map(
        lambda flips: functools.reduce(
            lambda old, flip: old[: flip[0]] + bytes([old[flip[0]] ^ 1 << flip[1]]) + old[flip[0] + 1 :], flips, content
        )
    )
    cuts = places.map(lambda at: content[:at])
    stuffed = st.tuples(places, st.binary(max_size=8)).map(
        lambda pair: content[: pair[0]] + pair[1] + content[pair[0] :]
    )
    written = st.tuples(places, st.binary(max_size=8)).map(
        lambda pair: (content[: pair[0]] + pair[1] + content[pair[0] + len(pair[1]) :])[: len(content)]
    )
    return st.one_of(flips, cuts, stuffed, written)


def edit(data: Any, values: Any) -> None:
    """Replace, remove or add one value at any depth of a JSON object, in place."""
    while True:
        name = data.draw(st.sampled_from(sorted(values)))
        if isinstance(values[name], dict) and values[name] and data.draw(st.booleans()):
            values = values[name]
            continue
        break
    what = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if what == "remove":
        del values[name]
    elif what == "replace":
        values[name] = data.draw(JSON)
    else:
        values[data.draw(st.text(max_size=5))] = data.draw(JSON)


def answered(call: Callable[[], Any], *errors: type[Exception]) -> tuple[Any, str]:
    """Return what a call returns and no sentence, or None and the sentence of one of the errors that it may raise."""
    try:
        return call(), ""
    except errors as error:
        sentence = str(error)
    if not sentence or "\n" in sentence or len(sentence) > 3000:  # it names the classes of other tests
        raise AssertionError(f"this is not one sentence: {sentence!r}")
    return None, sentence
