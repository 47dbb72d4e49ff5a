"""Gemma Scope: ``params.npz``, and ``params.safetensors`` with ``config.json`` of its second release; JumpReLU."""

from __future__ import annotations

import math
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from proxsae.formats.configuration import JsonConfig
from proxsae.formats.parts import Parts, positive_part
from proxsae.formats.registry import Format
from proxsae.formats.weights import Weights, npz_weights, safetensors_weights
from proxsae.formats.writing import WRITTEN_BY_US, write_npz

_BLOCK = re.compile(r"model\.layers\.(\d{1,6})\.output")
CONFIGURATION, FIRST, SECOND = "config.json", "params.npz", "params.safetensors"
# of published folders, whose files do not say it: google/gemma-scope-2b-pt-transcoders/layer_7/width_16k/average_l0_6
_FIRST_PLACE = r"width_[^/]+/average_l0_[^/]+"
_EMBEDDING = re.compile(rf".*/embedding/{_FIRST_PLACE}")
_TRANSCODER = re.compile(
    rf".*/[^/]*transcoders?(/snapshots/[^/]+)?/layer_\d+/{_FIRST_PLACE}"
    r"|.*/transcoder(_all)?/layer_\d+_width_[^/]+"
)


class GemmaScope(Format):
    """JumpReLU of x itself, from which the intercept is not subtracted."""

    name = "gemma_scope"
    library = "Gemma Scope"
    files = (FIRST, SECOND, CONFIGURATION)
    written = (FIRST,)
    writes = ("relu", "jumprelu")

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a file of one of the two names, or the folder of one."""
        return path.name in (FIRST, SECOND) or any((path / name).is_file() for name in (FIRST, SECOND))

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a file or folder; a published one tells embeddings and transcoders by its name."""
        folder = path.parent if path.name in (FIRST, SECOND) else path
        provenance: dict[str, Any] = {}
        place = Path(os.path.abspath(folder)).as_posix()  # noqa: PTH100 - links stay, ".." goes
        if path.name != SECOND and (folder / FIRST).is_file():
            weights = npz_weights(folder / FIRST)
            with zipfile.ZipFile(folder / FIRST) as archive:
                place = "" if archive.comment == WRITTEN_BY_US else place  # in whatever folder, rows are raw
        else:
            weights, config = safetensors_weights(folder / SECOND), JsonConfig.read(folder / CONFIGURATION)
            provenance = _checked(config)
        parts = _parts(weights, provenance, is_transcoder=_TRANSCODER.fullmatch(place) is not None)
        if not _EMBEDDING.fullmatch(place):
            return parts
        scale = math.sqrt(parts.atoms.shape[1])  # those were trained on rows divided by it; b stays, as in SAELens
        return replace(parts, weight=parts.weight / scale, atoms=parts.atoms * scale)

    def write(self, path: Path, parts: Parts) -> None:
        """Write ``params.npz`` into the folder; ReLU is JumpReLU with thresholds of 0."""
        threshold = torch.zeros_like(parts.bias) if parts.threshold is None else parts.threshold
        tensors = {
            "W_enc": parts.weight.T,
            "b_enc": parts.bias,
            "W_dec": parts.atoms,
            "b_dec": parts.intercept,
            "threshold": threshold,
        }
        write_npz(path / FIRST, tensors)


def _parts(weights: Weights, provenance: dict[str, Any], *, is_transcoder: bool) -> Parts:
    encoder, decoder = weights.first("W_enc", "w_enc"), weights.first("W_dec", "w_dec")
    d, p = weights.shape(encoder)
    skips = "affine_skip_connection" in weights
    is_transcoder = is_transcoder or skips or "target_hook" in provenance
    n_targets = weights.shape(decoder)[1] if is_transcoder else d
    return Parts(
        weights.tensor(encoder, d, p).T.contiguous(),
        weights.tensor("b_enc", p),
        weights.tensor(decoder, p, n_targets),
        weights.tensor("b_dec", n_targets),
        "jumprelu",
        threshold=positive_part(weights.tensor("threshold", p)),
        provenance=provenance,
        is_transcoder=is_transcoder,
        skip=weights.tensor("affine_skip_connection", d, n_targets) if skips else None,
    )


def _checked(config: JsonConfig) -> dict[str, Any]:
    """Return what a configuration of the second release says of the activations."""
    config.one_of("architecture", ("jump_relu",))
    place, other = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    found = {"model": config.get("model_name"), "hook": place}
    if isinstance(place, str) and (block := _BLOCK.fullmatch(place)):
        found["site"] = f"block.{int(block[1]) + 1}"
    found |= {"target_hook": other} if other != place else {}
    return {name: value for name, value in found.items() if isinstance(value, str)}
