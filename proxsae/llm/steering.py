"""Steering: continuations of a language model with codes of a sparse autoencoder set by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from proxsae.formats.places import is_side_by_side
from proxsae.formulas.integers import is_count
from proxsae.llm.contexts import left_out
from proxsae.llm.generate import Continuation, generate
from proxsae.llm.massive import MASSIVE_RATIO
from proxsae.llm.model import LanguageModel, check_model
from proxsae.llm.provenance import check_same_place, no_place
from proxsae.llm.sites import Site
from proxsae.metrics import check_features, check_fitted, codes_of

Mode = Literal["clamp", "add"]
_LARGEST = float(np.finfo(np.float32).max)


def steer(
    model: LanguageModel,
    sae: Any,
    edits: Mapping[int, float],
    prompt: str,
    *,
    mode: Mode = "clamp",
    n_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    block: Site | int | str | None = None,
    check_provenance: bool = True,
) -> Continuation:
    """Continue a prompt while codes of a sparse autoencoder are set by hand, see :func:`steered`.

    Parameters
    ----------
    model, sae, edits, mode, block, check_provenance
        As in :func:`steered`; without edits, ``{}``, the model continues by itself.
    prompt, n_tokens, temperature, seed
        As in :func:`proxsae.llm.generate`.

    Returns
    -------
    Continuation
        Its ``text``, ``tokens`` and their ``log_probabilities`` in the steered model.

    Raises
    ------
    ValueError
        As :func:`steered` and :func:`proxsae.llm.generate` do.
    """
    with steered(model, sae, edits, mode=mode, block=block, check_provenance=check_provenance):
        return generate(model, prompt, n_tokens=n_tokens, temperature=temperature, seed=seed)


@contextmanager
def steered(
    model: LanguageModel,
    sae: Any,
    edits: Mapping[int, float],
    *,
    mode: Mode = "clamp",
    block: Site | int | str | None = None,
    check_provenance: bool = True,
) -> Iterator[None]:
    r"""Within this context the model runs with codes of a sparse autoencoder set by hand; afterwards it is as it was.

    With the codes z of the activations x at the site, the rest of the model sees

    .. math:: x + (z' - z) D,

    where z' is z except for the codes that `edits` names. The part of x that the autoencoder does not explain stays, so
    that without an edit, or with one that sets a code to its present value, nothing changes. All tokens are edited
    except those that :func:`proxsae.llm.harvest` would leave out: special and excluded tokens, and rows of more than 10
    times the median norm of the store.

    Parameters
    ----------
    model : LanguageModel
    sae : ProxSAE
        With ``transform``, ``components_`` and, where `block` is None, ``provenance_``.
    edits : dict of int to float
        Atom to value, in the units of the codes. Any number is allowed, a negative one also where codes are >= 0.
    mode : {"clamp", "add"}, default="clamp"
        z'_i is the value, or z_i plus the value.
    block : int, str or Site, optional
        The site; None is that on which the autoencoder was fitted.
    check_provenance : bool, default=True
        Refuse an autoencoder that was fitted on another model or another site.

    Raises
    ------
    ValueError
        If an argument is not as described, or the autoencoder does not fit the model or says nothing of its site.
    """
    site = site_of(model, sae, block, check_provenance=check_provenance)
    atoms, values = checked_edits(edits, len(sae.components_), mode)
    D = np.asarray(sae.components_)[atoms]
    provenance = getattr(sae, "provenance_", None) or {}
    limit = MASSIVE_RATIO * provenance.get("median_norm", float("inf"))
    unread = torch.tensor(left_out(model.tokenizer, provenance) if model.tokenizer else [], device=model.device)
    tokens: list[Tensor] = []

    def note_tokens(_module: Any, args: Any, kwargs: Any) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        tokens[:] = [] if given is None else [given]

    def replace(x: Tensor) -> Tensor:
        edited = x.float().norm(dim=-1) <= limit
        if tokens and tokens[0].shape == edited.shape:
            edited &= ~torch.isin(tokens[0], unread)
        if not atoms or not edited.any():
            return x
        rows = x[edited].float()
        with np.errstate(over="ignore", invalid="ignore"):  # which the logits will show
            change = torch.from_numpy(code_changes(codes_of(sae, rows.cpu().numpy()), atoms, values, mode) @ D)
        out = x.clone()
        out[edited] = (rows + change.to(rows)).to(x.dtype)
        return out

    handle = model.model.register_forward_pre_hook(note_tokens, with_kwargs=True)
    try:
        with model.replaced(site, replace):
            yield
    finally:
        handle.remove()


def code_changes(codes: csr_matrix, atoms: list[int], values: NDArray[np.float32], mode: Mode) -> NDArray[np.float32]:
    """Return z' - z at the atoms, shape (n_samples, n_atoms)."""
    if mode == "add":
        return np.broadcast_to(values, (codes.shape[0], len(atoms)))
    z: NDArray[np.float32] = codes[:, atoms].toarray().astype(np.float32)
    return values - z


def site_of(model: LanguageModel, sae: Any, block: Site | int | str | None, *, check_provenance: bool = True) -> Site:
    """Return the site at which an autoencoder is to be used, that of its harvest for None, if it fits there."""
    check_model(model)
    check_fitted(sae)
    check_one_place(sae)
    provenance = getattr(sae, "provenance_", None) or {}
    where = provenance.get("site") if block is None else block
    if where is None:
        raise no_place(sae, "the autoencoder", "block")
    if block is None and is_side_by_side(where):
        raise ValueError(f"the autoencoder is of {where!r} side by side, so no edit of one place follows")
    if rows := provenance.get("normalised_rows"):
        raise ValueError(f"the autoencoder is for rows that are normalised first ({rows}), so no edit of x follows")
    site = model.site(where)
    if check_provenance:
        check_same_place(sae, model, site, "sae")
    check_features(sae, model.width(site), f"'{site}' of {model.name}")
    return site


def check_one_place(sae: Any) -> None:
    """Raise ValueError for a transcoder or a crosscoder, whose atoms are not of the one place that it reads."""
    if getattr(sae, "is_transcoder_", False):
        raise ValueError("the model is a transcoder, whose atoms are not activations of the place that it reads")
    if len(sae.blocks_.sizes if hasattr(sae, "blocks_") else ()) > 1:
        raise ValueError("the model is a crosscoder, whose atoms are of several places, so no edit of one follows")


def checked_edits(edits: Mapping[Any, Any], n_atoms: int, mode: str) -> tuple[list[int], NDArray[np.float32]]:
    """Return atoms and values, or raise ValueError."""
    if mode not in ("clamp", "add"):
        raise ValueError(f'mode must be "clamp" or "add", got {mode!r}')
    if not isinstance(edits, Mapping):
        raise ValueError(f"edits must be a dict from atom to value, such as {{12: 80.0}}, got {type(edits).__name__}")
    for atom, value in edits.items():
        if not is_count(atom, 0) or atom >= n_atoms:
            raise ValueError(f"atom {atom!r} was given; the autoencoder has atoms 0 to {n_atoms - 1}")
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not abs(value) <= _LARGEST:
            raise ValueError(
                f"atom {atom} was given the value {value!r}; a finite number is needed, which float32 holds"
            )
    return [int(atom) for atom in edits], np.array(list(edits.values()), np.float32)
