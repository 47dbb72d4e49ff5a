"""Harvest: from text through a language model, up to a site, into an activation store."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
from tqdm import tqdm

from proxsae.data.shard import StoreError
from proxsae.data.store import ActivationStore
from proxsae.data.writer import StoreWriter
from proxsae.llm.activations import Activations, activations, kept_rows, large_rows, measure
from proxsae.llm.contexts import Packing, batches, check_contexts, excluded_ids, pack, padding_id
from proxsae.llm.massive import MASSIVE_RATIO, Drop, check_drop, warn_of_large
from proxsae.llm.model import LanguageModel
from proxsae.llm.provenance import header
from proxsae.llm.sites import Site
from proxsae.llm.text import TextSource, documents, source_name

Hook = Site | int | str


def harvest(
    model: LanguageModel,
    text: TextSource = None,
    *,
    hook: Hook | Sequence[Hook] | None = None,
    block: Hook | None = None,
    n_tokens: int,
    out: str | os.PathLike[str],
    context_length: int = 128,
    batch_size: int = 16,
    dtype: str = "float32",
    drop: Drop = "auto",
    exclude_tokens: Sequence[int | str] = (),
    bos: bool = True,
    separator: int | str | None = "eos",
    concatenate: bool = True,
    split: str = "train",
    field: str = "text",
    seed: int | None = 0,
    resume: bool = True,
    verbose: bool | int = True,
) -> ActivationStore:
    """Write the activations at one or several places of a language model into an activation store, one row a token.

    The forward pass stops at the last place. Special tokens, padding and the positions of massive activations are left
    out, and ``store.info`` counts them.

    Parameters
    ----------
    model : LanguageModel
        From :func:`proxsae.llm.load_model`.
    text : str, path, iterable of str or of token ids, or None
        See :func:`proxsae.llm.text.documents`; None is the embedded Wikipedia summaries.
    hook : int, str, Site or a list of them
        Where to read: ``"mlp_out.15"``, the path of a module, or another place of :mod:`proxsae.llm.sites`. Several
        places are read in one pass and stand side by side in the rows: ``store.at("mlp_out.15")`` is the part of one
        place.
    block : int
        In place of `hook`: 15 is the residual stream after 15 blocks, ``hook="block.15"``.
    n_tokens : int
        Rows to store. If the text ends before, a warning says how many there are.
    out : str or path
        Folder of the store.
    context_length : int, default=128
        Tokens in a context, the first of which is the beginning-of-text token.
    batch_size : int, default=16
        Contexts in a forward pass.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        The dtype of the stored activations.
    drop : "auto", int or list of int, default="auto"
        The rows to leave out. "auto" measures the first 32 contexts; it drops each position whose median norm is more
        than 10 times the median norm of all tokens, and all single rows above 10 times the median of the rows kept. An
        integer k drops the first k positions, a list drops the positions in it; both keep large single rows, with a
        warning.
    exclude_tokens : sequence of int or str, default=()
        Tokens to leave out beside the special ones: their ids, or the text of one token each.
    bos, separator, concatenate : bool, int or str, bool
        Whether contexts start with the beginning-of-text token, which token closes a document ("eos", "bos", an id, the
        text of one token, or None), and whether documents run on into the next context or each document begins a new
        context.
    split : {"train", "heldout", "all"}, default="train"
        Which documents; :func:`proxsae.llm.evaluate` reads the held-out ones.
    field : str, default="text"
        Text field of ``.jsonl`` files and datasets.
    seed : int or None, default=0
        Seed of the order of documents; None keeps the order of the source.
    resume : bool, default=True
        Continue an interrupted harvest in `out`; the result is byte for byte that of a harvest without interruption. A
        complete harvest is returned as it is. In both cases the text is tokenized again and compared with the stored
        contexts. With False a store in `out` is an error; it is never overwritten.
    verbose : bool or int, default=True
        Show a progress bar with tokens/s (on a terminal only) and a closing line on the standard error stream.

    Returns
    -------
    ActivationStore

    Raises
    ------
    ValueError
        If an argument is outside what is allowed, the text holds no token to store, or activations are not finite.
    StoreError
        If `out` holds something else, or a harvest made with other arguments, other weights or another text.
    """
    sites = sites_of(model, hook, block)
    check_contexts(context_length, batch_size, n_tokens, model)
    check_drop(drop, context_length)
    excluded = excluded_ids(exclude_tokens, model.tokenizer)
    identity = header(
        model,
        sites,
        text,
        split=split,
        seed=seed,
        drop=drop,
        excluded=excluded,
        context_length=context_length,
        batch_size=batch_size,
        packing=(packing := Packing(bos, separator, concatenate)),
    )
    measured = {"dtype": dtype, "n_tokens": n_tokens, "complete": False}
    measured |= {"dropped_positions": [], "median_norm": 0.0, "median_norms": []}
    texts = documents(text, split=split, field=field, seed=seed)
    packed, padding = pack(texts, model.tokenizer, context_length, packing), padding_id(model.tokenizer)
    packed = chain(list(islice(packed, 1)), packed)  # a text or a separator that is refused leaves no folder
    with StoreWriter(out, identity | measured, resume=resume) as writer:
        if writer.index["complete"]:
            store = _complete(writer, packed, padding, n_tokens)
            if verbose:
                tqdm.write(f"{describe(store)}; complete already, nothing was run.", file=sys.stderr)
            return store
        if writer.rows > n_tokens:
            raise StoreError(f"'{out}' holds {writer.rows} rows already, so n_tokens={n_tokens} needs another folder.")
        writer.index["n_tokens"] = n_tokens
        _skip_done(packed, writer, padding)
        contexts = batches(packed, model.tokenizer, context_length, batch_size, excluded)
        stream = activations(model, sites, contexts)
        start, started = writer.rows, time.perf_counter()
        bar = tqdm(total=n_tokens, initial=start, unit="tok", desc="harvest", disable=None if verbose else True)
        with bar:
            if not writer.contexts:
                positions, medians, stream = measure(stream, drop)
                writer.index |= {"dropped_positions": positions, "median_norms": medians}
                writer.index["median_norm"] = medians[0] if medians else 0.0
            while writer.rows < n_tokens and (batch := next(stream, None)) is not None:
                bar.update(_add(writer, batch, n_tokens - writer.rows))
        if writer.rows == 0:
            raise ValueError(f"The text '{source_name(text)}' (split='{split}') gave no token to store.")
        store = writer.close()
        warn_of_large(store.info["large_kept"], len(store))
        if len(store) < n_tokens:
            warnings.warn(_ran_out(store, n_tokens), stacklevel=2)
        if verbose:
            speed = (len(store) - start) / (time.perf_counter() - started)
            tqdm.write(f"{describe(store)}; {speed:,.0f} tokens/s.", file=sys.stderr)
        return store


def sites_of(model: LanguageModel, hook: Hook | Sequence[Hook] | None, block: Hook | None = None) -> list[Site]:
    """Return the sites that `hook` or `block` names; raise ValueError unless one of the two is given, each site once.

    Several may be one text, as a store has them: ``"block.7 block.15"``.
    """
    if (hook is None) == (block is None):
        raise ValueError("give hook, such as 'mlp_out.15' or a list of places, or block, such as 15: one of the two.")
    given = block if hook is None else hook
    given = (given.split() or given) if isinstance(given, str) else given
    hooks = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    sites = [model.site(one) for one in hooks]  # type: ignore[arg-type]
    if not sites or len(set(sites)) < len(sites):
        raise ValueError(f"hook={given!r} was given; one place or several different ones are allowed.")
    return sites


def _add(writer: StoreWriter, batch: Activations, room: int) -> int:
    """Add the rows of a batch that are kept, at most `room`, and return their number."""
    positions, medians = writer.index["dropped_positions"], writer.index["median_norms"]
    kept = kept_rows(batch, positions, writer.index["drop"], medians)
    context, position = (where[:room] for where in np.nonzero(kept))
    dropped, tokens = ~kept & ~batch.contexts.is_padding, batch.contexts.tokens
    if len(context) == room:
        # what lies behind the last row stored does not count, neither as dropped nor as contexts
        dropped.reshape(-1)[context[-1] * kept.shape[1] + position[-1] :] = False
        tokens = tokens[: context[-1] + 1]
    by_position = dropped[:, positions].sum()
    dropped[:, positions] = False
    counts = {
        "dropped_by_position": int(by_position),
        "dropped_special": int((dropped & ~batch.contexts.is_text).sum()),
        "dropped_massive": int((dropped & batch.contexts.is_text).sum()),
        "large_kept": int(large_rows(batch, medians)[context, position].sum()),
    }
    writer.add(batch.rows[context, position], context, position, tokens, counts)
    return len(context)


def _skip_done(packed: Iterator[list[int]], writer: StoreWriter, padding: int) -> None:
    """Skip the contexts that are stored, after a check that each is still that of the text."""
    for number, stored in enumerate(writer.stored_contexts()):
        context = next(packed, [])
        if not context or stored.tolist() != context + [padding] * (len(stored) - len(context)):
            raise _other_text(writer, number)


def _other_text(writer: StoreWriter, number: int) -> StoreError:
    return StoreError(
        f"'{writer.path}' was begun with another text or tokenizer than '{writer.index['text']}' gives now "
        f"(context {number} differs); give another folder."
    )


def _complete(writer: StoreWriter, packed: Iterator[list[int]], padding: int, n_tokens: int) -> ActivationStore:
    """Return the store as it is, if it is that of the text."""
    store = ActivationStore(writer.path)
    if n_tokens not in (len(store), store.info["n_tokens"]):
        raise StoreError(
            f"'{writer.path}' holds a complete harvest of {len(store)} rows, so n_tokens={n_tokens} needs another "
            "folder."
        )
    _skip_done(packed, writer, padding)
    if len(store) < store.info["n_tokens"] and next(packed, None) is not None:  # the text ended there
        raise _other_text(writer, writer.contexts)
    if len(store) < n_tokens:
        warnings.warn(_ran_out(store, n_tokens), stacklevel=3)
    return store


def _ran_out(store: ActivationStore, n_tokens: int) -> str:
    return f"The text '{store.info['text']}' ended after {len(store)} of the {n_tokens} rows asked for."


def describe(store: ActivationStore) -> str:
    """Return one line on the rows of a store and the rows that were left out."""
    info = store.info
    large = f"{MASSIVE_RATIO:g} times the median norm of {', '.join(f'{norm:.4g}' for norm in info['median_norms'])}"
    kept = f"; kept: {info['large_kept']:,} longer than that" if info["large_kept"] else ""
    contexts = f"{info['contexts']:,} context{'' if info['contexts'] == 1 else 's'}"
    return (
        f"{len(store):,} rows of {store.shape[1]} features from {contexts} of {info['model']} at "
        f"'{info['site']}'; dropped: {info['dropped_by_position']:,} at positions {info['dropped_positions']}, "
        f"{info['dropped_special']:,} special or excluded tokens, {info['dropped_massive']:,} longer than "
        f"{large}{kept}"
    )
