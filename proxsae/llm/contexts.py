"""From documents to contexts: rows of token ids of one length, with a mask of what is text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxsae.formulas.integers import is_count

_PIECES_AT_ONCE = 64
_PIECE_CHARACTERS = 20_000


class Contexts(NamedTuple):
    """A batch of contexts, all arrays of shape (contexts, length)."""

    tokens: NDArray[np.int32]
    """Token ids."""
    is_text: NDArray[np.bool_]
    """False at special and excluded tokens and at padding."""
    is_padding: NDArray[np.bool_]
    """True behind the end of the text, in contexts that are shorter."""


class Packing(NamedTuple):
    """How documents become contexts."""

    bos: bool = True
    """Every context starts with the beginning-of-text token (the end-of-text token where there is none)."""
    separator: int | str | None = "eos"
    """The token that closes a document: "eos", "bos", an id, the text of one token, or None."""
    concatenate: bool = True
    """Documents follow one another and run on into the next context; else each begins a context of its own."""

    def non_defaults(self) -> dict[str, Any]:
        """Return the options that differ from the default, for the index of a store."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}


PACKING = Packing()


def pack(
    documents: Iterable[str | list[int]], tokenizer: Any, length: int, packing: Packing = PACKING
) -> Iterator[list[int]]:
    """Pack documents, texts or token ids, into contexts of `length` token ids.

    Only the last context may be shorter, or with ``concatenate=False`` the last context of each document. A text of
    more than 20,000 characters is tokenized in pieces, cut before a white space.
    """
    start, _ = boundary_tokens(tokenizer)
    head = [start] if packing.bos and start is not None else []
    tail = separator_ids(packing.separator, tokenizer)
    room = length - len(head)
    held: list[int] = []
    source = (piece for document in documents for piece in _pieces(document))
    while pieces := list(islice(source, _PIECES_AT_ONCE)):
        texts = [piece for piece, _ in pieces if isinstance(piece, str)]
        encoded = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else ())
        for piece, is_last in pieces:
            held += next(encoded) if isinstance(piece, str) else _checked_ids(piece, tokenizer)
            held += tail if is_last else []
            whole = len(held) // room * room
            for at in range(0, whole, room):
                yield head + held[at : at + room]
            held = held[whole:]
            if held and is_last and not packing.concatenate:
                yield head + held
                held = []
    if held:
        yield head + held


def separator_ids(separator: int | str | None, tokenizer: Any) -> list[int]:
    """Return the token that closes a document, as :class:`Packing` names it, or nothing."""
    start, end = boundary_tokens(tokenizer)
    ends: dict[int | str | None, int | None] = {None: None, "bos": start, "eos": end}
    if separator not in ends:
        return excluded_ids([separator], tokenizer, "separator")  # type: ignore[list-item]
    return [] if (token := ends[separator]) is None else [token]


def _checked_ids(ids: list[int], tokenizer: Any) -> list[int]:
    if ids and not 0 <= min(ids) <= max(ids) < len(tokenizer):
        raise ValueError(
            f"A document holds token ids from {min(ids)} to {max(ids)}; the tokenizer has {len(tokenizer)}."
        )
    return ids


def _pieces(text: str | list[int]) -> Iterator[tuple[str | list[int], bool]]:
    """Yield a document in pieces short enough for a tokenizer, each with a flag for the last piece."""
    if not isinstance(text, str):
        yield text, True
        return
    # half of a surrogate pair is no character, and tokenizers refuse the whole text for it
    text = text.encode("utf-8", "replace").decode()
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        limit = start + _PIECE_CHARACTERS
        cut = max(text.rfind(space, start + 1, limit) for space in " \n\t")
        cut = cut if cut > start else limit
        yield text[start:cut], False
        start = cut
    yield text[start:], True


def batches(
    packed: Iterator[list[int]], tokenizer: Any, length: int, batch_size: int, excluded: Sequence[int] = ()
) -> Iterator[Contexts]:
    """Group packed contexts into batches of `batch_size`; only the last may be smaller.

    Shorter contexts are padded on the right, which does not change what a causal model computes before the padding. The
    tokens of :func:`special_ids` and those in `excluded` are masked as no text.
    """
    no_text = np.array([*special_ids(tokenizer), *excluded], dtype=np.int32)
    while rows := list(islice(packed, batch_size)):
        tokens = np.full((len(rows), length), padding_id(tokenizer), dtype=np.int32)
        is_padding = np.ones((len(rows), length), dtype=bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
            is_padding[index, : len(row)] = False
        yield Contexts(tokens, ~is_padding & ~np.isin(tokens, no_text), is_padding)


def padding_id(tokenizer: Any) -> int:
    """Return the token id that pads shorter contexts."""
    _, end = boundary_tokens(tokenizer)
    return 0 if end is None else end


def special_ids(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer calls special, by role (``<s>``) or when added (headers of chat messages)."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(added | set(tokenizer.all_special_ids))


def left_out(tokenizer: Any, provenance: Mapping[str, Any]) -> list[int]:
    """Return the ids that the harvest of an autoencoder left out: special ones, and those that it was told to.

    Raises
    ------
    ValueError
        If the provenance, which is that of a file, holds no list of ids.
    """
    told = provenance.get("excluded_tokens") or []
    if not isinstance(told, list) or not all(type(token) is int and 0 <= token < 2**63 for token in told):
        raise ValueError(f"the field 'excluded_tokens' of the autoencoder must be a list of ids, got {told!r:.60}")
    return [*special_ids(tokenizer), *told]


def excluded_ids(tokens: Sequence[int | str], tokenizer: Any, name: str = "exclude_tokens") -> list[int]:
    """Return the ids of tokens given by their id or their text.

    Raises
    ------
    ValueError
        If a token is neither an id of the tokenizer nor the text of one token.
    """
    ids = set()
    if isinstance(tokens, str):
        raise ValueError(f"{name}={tokens!r} is one text; give a list of token ids or texts.")
    for token in tokens:
        found = ids_of(token, tokenizer) if isinstance(token, str) else [token]
        is_id = len(found) == 1 and isinstance(found[0], int | np.integer) and 0 <= found[0] < len(tokenizer)
        if not is_id or isinstance(token, bool):
            raise ValueError(
                f"{name} holds {token!r}, which is neither an id below {len(tokenizer)} nor the text of one "
                "token of the tokenizer."
            )
        ids.add(int(found[0]))
    return sorted(ids)


def ids_of(text: str, tokenizer: Any) -> list[int]:
    """Return the tokens of a prompt or another short text, without any special ones.

    Raises
    ------
    ValueError
        If the text holds half of a surrogate pair, on which tokenizers fail; it may stand for a byte that is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start + 1} of the text {text[:60]!r}"
        raise ValueError(f"{where} is a byte that is no UTF-8, or half of a surrogate pair") from None
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def boundary_tokens(tokenizer: Any) -> tuple[int | None, int | None]:
    """Return the tokens that begin a context and close a document, None where the tokenizer has neither."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return (end if start is None else start), (start if end is None else end)


def check_contexts(length: int, batch_size: int, n_tokens: int, model: Any) -> None:
    """Raise ValueError unless the sizes are positive, and the model has a tokenizer and reads contexts that long."""
    for name, value, least in (("context_length", length, 2), ("batch_size", batch_size, 1), ("n_tokens", n_tokens, 1)):
        if not is_count(value, least):
            raise ValueError(f"{name}={value!r} was given; an integer of at least {least} is allowed.")
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, so it cannot read text; give LanguageModel one.")
    if model.max_length and length > model.max_length:
        raise ValueError(
            f"context_length={length} was given, but {model.name} reads at most {model.max_length} tokens at once."
        )
