"""Texts with the codes of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from proxsae.llm.contexts import left_out
from proxsae.llm.generate import prompt_ids
from proxsae.llm.harvest import Hook, sites_of
from proxsae.llm.massive import MASSIVE_RATIO
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import check_raw_rows
from proxsae.metrics import codes_of
from proxsae.report.examples import TokenPlaces

LONGEST = 1024  # tokens of a text


class Reading(NamedTuple):
    """A text, token by token."""

    tokens: NDArray[np.int64]
    is_read: NDArray[np.bool_]  # False at special and excluded tokens and massive activations, which have no codes
    codes: csr_array  # (n_tokens, n_components)


def read_text(
    model: LanguageModel,
    sae: Any,
    hook: Hook | Sequence[Hook],
    text: str,
    harvest: Mapping[str, Any] | None = None,
) -> Reading:
    """Return the codes of each token of a text, read as a context of a harvest.

    It stands after the beginning-of-text token where contexts of the harvest did. Tokens that the harvest left out have
    no codes.

    Parameters
    ----------
    model : LanguageModel
    sae : ProxSAE
    hook : int, str, Site or a list of them
        Where, as in :func:`proxsae.llm.harvest`; of a crosscoder several.
    text : str
        At most 1,024 tokens, or as many as the model reads, where these are fewer.
    harvest : mapping, optional
        ``store.info`` of the harvest; by default what the autoencoder says of its own.

    Raises
    ------
    ValueError
        If the text is too long or has no token, or the autoencoder is for rows that are normalised first.
    """
    check_raw_rows(sae, "the autoencoder")
    if not text.strip():
        raise ValueError("the text is empty")
    harvest = (getattr(sae, "provenance_", None) or {}) if harvest is None else harvest
    ids = np.array(prompt_ids(model, text, bos=harvest.get("bos") is not False), dtype=np.int64)
    limit = min(LONGEST, model.max_length or LONGEST)
    if len(ids) > limit:
        raise ValueError(f"the text has {len(ids):,} tokens; at most {limit:,} can be read at once")
    read = model.read_all(torch.from_numpy(ids[None]), sites_of(model, hook, None))
    parts = [part[0].float().cpu().numpy() for part in read]
    norms = np.array([np.linalg.norm(part, axis=1) for part in parts])
    usual = harvest.get("median_norms") or np.median(norms, axis=1)
    is_massive = norms > MASSIVE_RATIO * np.reshape(usual, (-1, 1))
    is_read = ~np.isin(ids, left_out(model.tokenizer, harvest)) & ~is_massive.any(axis=0)
    rows = np.concatenate(parts, axis=1)
    if not is_read.any():
        raise ValueError("every token of the text is special, excluded or of a massive activation, so none has codes")
    return Reading(ids, is_read, _placed(csr_array(codes_of(sae, rows[is_read])), np.flatnonzero(is_read), len(ids)))


def read_places(places: TokenPlaces, codes: Any, contexts: Sequence[int]) -> list[Reading]:
    """Return contexts of a store, given by their line in ``places.tokens``, with the codes of their rows."""
    found = []
    for line in contexts:
        rows = places.row_at[line]
        is_read = rows >= 0
        of_rows = csr_array(codes[rows[is_read]])
        found.append(Reading(places.tokens[line], is_read, _placed(of_rows, np.flatnonzero(is_read), len(rows))))
    return found


def _placed(codes: csr_array, lines: NDArray[np.int64], n: int) -> csr_array:
    """Return the codes with their rows at these lines of n; the others are empty."""
    counts = np.zeros(n, dtype=np.int64)
    counts[lines] = np.diff(codes.indptr)
    return csr_array((codes.data, codes.indices, np.r_[0, np.cumsum(counts)]), shape=(n, codes.shape[1]))
