"""What SAELens calls a converter: how its loader opens files that are not its own."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from proxsae.formats.convert import load
from proxsae.formats.doubling import Signed
from proxsae.formats.saelens_object import saelens_contents


def saelens_converter(
    path: str | os.PathLike[str],
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    signed: Signed = "double",
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Open a file of proxsae in SAELens: ``SAE.load_from_disk(path, converter=saelens_converter)``.

    Parameters
    ----------
    path : path
        A file of ours, or whatever :func:`proxsae.formats.load` opens.
    device : str, default "cpu"
    cfg_overrides : dict, optional
        Fields of the configuration that SAELens wants otherwise, such as ``dtype``.
    signed : {"double", "native"}, default "double"
        As in :func:`proxsae.formats.save`; ``partial(saelens_converter, signed="native")`` is a converter too.

    Returns
    -------
    dict, dict of str to Tensor
        The configuration and the state of a SAE of SAELens.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or damaged, or SAELens has no such encoder or activation.
    """
    config, tensors = saelens_contents(load(path), signed)
    config |= {"device": device, **(cfg_overrides or {})}
    dtype = getattr(torch, str(config["dtype"]).removeprefix("torch."))
    return config, {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
