"""Converters for SAELens: functions by which its loader opens files of other libraries."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from proxsae.formats.convert import load
from proxsae.formats.doubling import Signed
from proxsae.formats.hub import PREFIX
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
        A file of ours, or whatever :func:`proxsae.formats.load` opens, ``"hf://owner/repository/path"`` included.
    device : str, default "cpu"
    cfg_overrides : dict, optional
        Fields of the configuration to replace, such as ``dtype``.
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


def saelens_hub_converter(
    repo_id: str,
    folder_name: str,
    device: str = "cpu",
    force_download: bool = False,
    cfg_overrides: dict[str, Any] | None = None,
    *,
    signed: Signed = "double",
) -> tuple[dict[str, Any], dict[str, Tensor], None]:
    """Open a place on the Hub in SAELens: ``SAE.from_pretrained(repository, path, converter=saelens_hub_converter)``.

    Parameters
    ----------
    repo_id : str
        ``"owner/repository"``.
    folder_name : str
        The file or folder in it, in whatever format :func:`proxsae.formats.load` opens; ``"."`` is all of it.
    device, cfg_overrides, signed
        As in :func:`saelens_converter`.
    force_download : bool, default False
        True is refused: files in the cache are used.

    Returns
    -------
    dict, dict of str to Tensor, None
        The configuration and the state of a SAE of SAELens; densities of features are not known.

    Raises
    ------
    FileNotFoundError, ValueError
        As in :func:`proxsae.formats.load`.
    """
    if force_download:
        raise ValueError("force_download is not for this converter: what is in the cache of the Hub is taken")
    inside = folder_name.strip("/")
    place = f"{PREFIX}{repo_id}" if inside in ("", ".") else f"{PREFIX}{repo_id}/{inside}"
    return *saelens_converter(place, device, cfg_overrides, signed=signed), None
