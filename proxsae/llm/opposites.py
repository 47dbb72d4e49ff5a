"""The parts of a language model for measures of two directions: next tokens, the logit lens, words in contexts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from proxsae.data.store import ActivationStore
from proxsae.dictionary.antonyms import PairCode, pair_code
from proxsae.llm.contexts import ids_of
from proxsae.llm.generate import prompt_ids
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.metrics import codes_of

ANTONYMS = Path(__file__).parent / "antonyms.csv"

# A word is read at the end of each sentence.
CARRIERS = (
    "The word on the card was",
    "She wrote down the word",
    "The next entry in the dictionary is",
    "The teacher asked us about the meaning of",
    "In the crossword, the answer was",
    "They could not agree on a translation of",
    "He circled the word",
    "The poem ends with the word",
)


class Word(NamedTuple):
    """A word at the end of its carrier sentences."""

    rows: NDArray[np.float32]  # activations at its last token, (n_carriers, n_features)
    n_tokens: int


def read_pairs(path: str | Path = ANTONYMS) -> list[tuple[str, str]]:
    """Return the pairs of words of a CSV file: the first two columns, without a header.

    Raises
    ------
    ValueError
        If the file has no pair, or a line has fewer than two words.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        lines = [[cell.strip() for cell in line] for line in csv.reader(stream) if any(map(str.strip, line))]
    wrong = next((line for line in lines if len(line) < 2 or not line[0] or not line[1] or line[0] == line[1]), None)
    if wrong is not None:
        raise ValueError(f"{path}: the line {','.join(wrong)!r} is no pair of two words such as 'rise,fall'")
    if not lines:
        raise ValueError(f"{path} holds no pair of words")
    return [(line[0], line[1]) for line in lines]


def read_words(
    model: LanguageModel, site: Site | int | str, words: Sequence[str], *, bos: bool = True
) -> dict[str, Word]:
    """Return the activations of words at the end of eight neutral sentences, at the last token of each word.

    The sentences stand after the beginning-of-text token unless `bos` is false.
    """
    found = {}
    for word in dict.fromkeys(words):
        ids = [prompt_ids(model, f"{carrier} {word}", bos=bos) for carrier in CARRIERS]
        tokens = torch.zeros((len(ids), max(map(len, ids))), dtype=torch.long)  # what is right of a token is not seen
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = torch.tensor(one)
        last = torch.tensor([len(one) - 1 for one in ids])
        rows = model.read(tokens, site)[torch.arange(len(ids)), last]
        found[word] = Word(rows.float().cpu().numpy(), len(ids_of(f" {word}", model.tokenizer)))
    return found


def pair_codes(sae: Any, words: dict[str, Word], pairs: Sequence[tuple[str, str]]) -> list[PairCode]:
    """Return :func:`proxsae.dictionary.pair_code` of each pair of words."""
    codes = {word: codes_of(sae, read.rows) for word, read in words.items()}
    D = sae.components_
    return [pair_code(codes[a], codes[b], words[a].rows, words[b].rows, D) for a, b in pairs]


def shuffled_pairs(pairs: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """Return the pairs of the null hypothesis: each first word with the second word of another pair."""
    random = np.random.default_rng(seed)
    step = int(random.integers(1, max(2, len(pairs))))
    order = random.permutation(len(pairs))
    other = dict(zip(order.tolist(), np.roll(order, step).tolist(), strict=True))
    mixed = [(pairs[i][0], pairs[other[i]][1]) for i in range(len(pairs))]
    return [(a, b) for a, b in mixed if a != b]


def rows_with_next_token(
    store: ActivationStore, n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return the first rows of a store that have a token after them: their numbers, activations and next tokens."""
    rows = np.arange(min(n_rows, len(store)))
    contexts, positions = store.trace(rows)
    numbers, which = np.unique(contexts, return_inverse=True)
    tokens = np.array([store.tokens(int(number)) for number in numbers])
    has_next = positions + 1 < tokens.shape[1]
    rows, which, positions = rows[has_next], which[has_next], positions[has_next]
    return rows, np.asarray(store[rows], np.float32), tokens[which, positions + 1].astype(np.int64)


def logit_lens(model: LanguageModel) -> Callable[[Any], NDArray[np.float32]]:
    """Return the map from directions in the residual stream to logits: the final norm and the head, nothing between.

    The norm gives all directions the same length, so that their logits are comparable.
    """

    def lens(directions: Any) -> NDArray[np.float32]:
        rows = torch.from_numpy(np.asarray(directions, np.float32))[:, None]
        tokens = torch.zeros((len(rows), 1), dtype=torch.long)
        found: NDArray[np.float32] = model.logits(tokens, model.n_blocks, rows)[:, 0].float().cpu().numpy()
        return found

    return lens
