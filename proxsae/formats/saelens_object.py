"""A fitted model as an object of SAELens, which the loader of SAELens makes from the content of our file for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsae.formats.doubling import Signed
from proxsae.formats.registry import formats
from proxsae.formats.with_regularizer import stated_parts
from proxsae.formats.writing import copied_tensors

if TYPE_CHECKING:
    from torch import Tensor


def as_saelens(sae: Any, signed: Signed = "double") -> Any:
    """Return a fitted model as a ``sae_lens.SAE`` with the same codes and reconstructions up to rounding.

    Parameters
    ----------
    sae : ProxSAE
    signed : {"double", "native"}, default "double"
        As in :func:`proxsae.formats.save`: 2p atoms with non-negative codes, or AbsTopK.

    Returns
    -------
    sae_lens.SAE
        An object of the SAELens class for the architecture; ``cfg.metadata`` holds the provenance of the activations.

    Raises
    ------
    ImportError
        If SAELens is not installed.
    ValueError
        If SAELens has no such encoder or activation.
    """
    try:
        from sae_lens import SAE
    except ImportError as error:
        raise ImportError(f"as_saelens needs the package sae-lens, which cannot be imported: {error}") from None
    found = saelens_contents(sae, signed)
    return SAE.load_from_disk("", converter=lambda *_, **__: found)


def saelens_contents(sae: Any, signed: Signed) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of a SAE of SAELens, or raise ValueError."""
    from proxsae.formats.libraries.saelens import contents

    parts = stated_parts(sae, signed)
    formats()["saelens"].check_written(parts)
    config, tensors = contents(parts)
    return config, copied_tensors(tensors)
