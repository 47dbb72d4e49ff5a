"""The page of all atoms: a table to search, cards on demand, plots, and texts token by token."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from proxsae.data.store import ActivationStore
from proxsae.llm.model import LanguageModel, check_model
from proxsae.llm.opposites import logit_lens
from proxsae.llm.provenance import at_place_of
from proxsae.llm.sites import Site
from proxsae.metrics import check_fitted, codes_of
from proxsae.report.atoms import ANTIPODE, examples, firing, neighbours, pushed_tokens
from proxsae.report.examples import TokenPlaces
from proxsae.report.figures import training_curves
from proxsae.report.packing import packed
from proxsae.report.page import render
from proxsae.report.reading import Reading, read_places, read_text

N_EXAMPLES, WIDTH = 4, 12  # contexts a side, and tokens before and after the strongest
N_PUSHED, N_NEAREST, N_TEXTS = 6, 4, 5
UNDECODED, PART = "\ufffd", "\u00b7"  # what stands for bytes that are no character; for a part of a character
LONGEST_CHARACTER = 4  # bytes, and so tokens
Decode = Callable[[Sequence[int]], str]
_SCRIPTS = ("data", "plots", "atoms", "card", "table", "reading", "page")


def explorer_page(
    sae: Any,
    store: Any,
    model: LanguageModel,
    *,
    title: str,
    texts: Sequence[str] = (),
    is_live: bool = False,
    check_provenance: bool = True,
) -> str:
    """Return a page of a sparse autoencoder as HTML that needs nothing else.

    A table of all atoms, sorted and searched in the browser, with cards on demand; plots of density, L0 and cosines;
    and texts with the codes of each token.

    Parameters
    ----------
    sae : ProxSAE
    store : ActivationStore
        The store whose rows give the activity of atoms, and whose contexts are the examples. Of several sites, that of
        the autoencoder is used.
    model : LanguageModel
        The model that decodes tokens. Its head gives the tokens that an atom raises, where atoms write into the
        residual stream.
    title : str
    texts : sequence of str
        Texts to read as contexts of the store and show token by token; without texts, five contexts of the store.
    is_live : bool, default False
        Whether a :class:`PageServer` serves the page and answers texts.
    check_provenance : bool, default True
        Refuse an autoencoder that was fitted on another model or another place than those of the store, and a store of
        another model than `model`.

    Raises
    ------
    ValueError
        If the autoencoder comes from another place, does not fit the store or is for rows that are normalised first, or
        a text cannot be read.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of texts, got the text {texts!r}")
    check_fitted(sae)
    check_model(model)
    if not isinstance(store, ActivationStore):
        raise TypeError(f"store must be an ActivationStore, whose rows have tokens, got a {type(store).__name__}")
    store = at_place_of({"the autoencoder": sae}, store, model, check_provenance=check_provenance)
    hooks = list(store.sites)
    if not len(store):
        raise ValueError("the store has no row to show")
    readings = [read_text(model, sae, hooks, text, store.info) for text in texts]  # first: one may be refused
    codes, places = csr_array(codes_of(sae, store)), TokenPlaces(store)
    spread = np.unique(np.linspace(0, len(places.tokens) - 1, N_TEXTS).astype(int))
    readings = readings or read_places(places, codes, spread.tolist())
    lens = logit_lens(model) if writes_to_stream(sae, hooks, model) else None
    content = explorer_content(sae, codes, places, decoder(model), lens=lens, readings=readings)
    n_fires = (content["count"].reshape(-1, 2).sum(axis=1) > 0).sum()
    facts = {
        "Regularizer": str(sae.regularizer),
        "Activations": f"{store.info['model']}, {store.info['site']}, {len(store):,} tokens",
        "Atoms": f"{len(sae.components_):,}, of which {n_fires:,} fire; mean L0 {codes.nnz / codes.shape[0]:.1f}",
        "Antipodes": f"{100 * (content['lowest'] <= -ANTIPODE).mean():.1f} % of the atoms have one: another at a "
        f"cosine of at most -{ANTIPODE}",
    }
    script = "\n".join(_source(f"script/{name}.js") for name in _SCRIPTS)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        "explorer.html.jinja",
        title=title,
        facts=facts,
        curves=training_curves({title: sae.history_}) if sae.history_ else "",
        style=_source("explorer.css"),
        script=script,
        digest=digest,
        data=packed(content),
        is_live=is_live,
    )


def explorer_content(
    sae: Any,
    codes: csr_array,
    places: TokenPlaces,
    decode: Decode,
    *,
    lens: Callable[[Any], Any] | None,
    readings: Sequence[Reading],
) -> dict[str, Any]:
    """Return the content of the page as dicts, texts, numbers and arrays; (p, 2) arrays have z > 0 first."""
    columns = codes.tocsc()
    D = np.asarray(sae.components_)
    fires, found = firing(columns), examples(columns, places, N_EXAMPLES, WIDTH)
    near = neighbours(D, N_NEAREST, 100)
    pushed = np.zeros((len(D), 2, 0), dtype=np.int64) if lens is None else pushed_tokens(D, lens, N_PUSHED)
    at = places.contexts[found.row] * places.tokens.shape[1] + places.positions[found.row]
    vocabulary, (contexts, pushed) = _vocabulary(places.tokens, pushed)
    return {
        "n_atoms": len(D),
        "n_tokens": codes.shape[0],
        "signed": bool((codes.data < 0).any()),
        "antipode": ANTIPODE,
        "width": WIDTH,
        "context_length": places.tokens.shape[1],
        "vocabulary": [decode([token]) for token in vocabulary.tolist()],
        "contexts": contexts,
        "count": fires.counts,
        "strongest": fires.strongest,
        "clearness": fires.clearness,
        "histogram": fires.histogram,
        "example": np.where(found.row >= 0, at, -1),
        "example_z": found.z,
        "around": found.around,
        "pushed": pushed,
        "nearest": near.atom,
        "cosine": near.cosine,
        "lowest": near.lowest,
        "highest": near.highest,
        "plots": [_density_plot(fires.counts, codes.shape[0]), _l0_plot(codes), _cosine_plot(near.histogram)],
        "readings": [reading_content(reading, decode) for reading in readings],
    }


def reading_content(reading: Reading, decode: Decode) -> dict[str, Any]:
    """Return a text as the page shows it."""
    return {
        "tokens": _token_texts(reading.tokens.tolist(), decode),
        "is_read": reading.is_read.tolist(),
        "starts": reading.codes.indptr,
        "atoms": reading.codes.indices,
        "values": reading.codes.data,
    }


def _token_texts(tokens: list[int], decode: Decode) -> list[str]:
    """Return the text of each token; of several tokens that make one character the last has it, the others a dot."""
    texts: list[str] = []
    run: list[int] = []
    for token in tokens:
        run.append(token)
        while run and UNDECODED in (text := decode(run)):
            if text.endswith(UNDECODED) and text.count(UNDECODED) == 1 and len(run) < LONGEST_CHARACTER:
                break  # the next token may end the character
            texts.append(decode(run[:1]))
            run = run[1:]
        else:
            texts += ([PART] * (len(run) - 1) + [text]) if run else []
            run = []
    return texts + [decode([one]) for one in run]


def decoder(model: LanguageModel) -> Decode:
    """Return the map from token ids to their text."""
    return lambda tokens: str(model.tokenizer.decode(tokens))


def writes_to_stream(sae: Any, hooks: Sequence[str], model: LanguageModel) -> bool:
    """Whether atoms are directions in the residual stream, for which the logit lens is meaningful."""
    is_transcoder = getattr(sae, "is_transcoder_", False)
    written = (sae.provenance_.get("target_site") or "").split() if is_transcoder else hooks
    if len(written) != 1 or np.shape(sae.components_)[1] != model.n_features:
        return False
    return Site.of(written[0]).is_of_stream(model.model, model.blocks)


def _vocabulary(*tokens: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[np.int64]]]:
    """Return the tokens that occur, and arrays of their numbers among these."""
    present = np.unique(np.concatenate([part.reshape(-1) for part in tokens]))
    return present, [np.searchsorted(present, part) for part in tokens]


def _density_plot(count: NDArray[np.int64], n_tokens: int) -> dict[str, Any]:
    density = count.sum(axis=1) / n_tokens
    alive = density[density > 0]
    edges = np.logspace(np.log10(1 / n_tokens), 0, 41)
    edges[0] *= 1 - 1e-9  # one token of n counts
    counts = np.histogram(alive, bins=edges)[0]
    return {
        "title": "Density",
        "label": "share of tokens on which an atom fires",
        "note": f"{len(density) - len(alive):,} atoms never fire",
        "unit": "atoms",
        "is_log": True,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _l0_plot(codes: csr_array) -> dict[str, Any]:
    l0 = np.diff(codes.indptr)
    low, high = int(l0.min()), int(l0.max())
    width = -(-(high + 1) // 60)  # whole numbers a bar, so that none is counted by more bars than another
    edges = np.arange(0, high + width + 1, width) - 0.5
    return {
        "title": "L0",
        "label": "atoms that fire on a token",
        "note": f"mean {l0.mean():.1f}, from {low} to {high}",
        "unit": "tokens",
        "is_log": False,
        "edges": edges.tolist(),
        "counts": np.histogram(l0, bins=edges)[0].tolist(),
    }


def _cosine_plot(histogram: NDArray[np.int64]) -> dict[str, Any]:
    edges = np.linspace(-1, 1, len(histogram) + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    antipodes, twins = (int(histogram[side].sum()) for side in (middle < -ANTIPODE, middle > ANTIPODE))
    return {
        "title": "Cosines of atoms",
        "label": "cosine of two atoms",
        "note": f"{antipodes:,} pairs of antipodes (at most -{ANTIPODE}), {twins:,} of twins (at least {ANTIPODE})",
        "unit": "pairs",
        "is_log": False,
        "edges": edges.tolist(),
        "counts": histogram.tolist(),
        "marks": [-ANTIPODE, ANTIPODE],
    }


def _source(name: str) -> str:
    return files("proxsae.report").joinpath(name).read_text(encoding="utf-8")
