"""EleutherAI's sparsify: a folder with ``cfg.json`` and ``sae.safetensors``. Read as sparsify 1.3 reads it."""

from __future__ import annotations

from pathlib import Path

from proxsae.formats.configuration import JsonConfig
from proxsae.formats.parts import Activation, Parts, shifted
from proxsae.formats.registry import Format
from proxsae.formats.weights import safetensors_weights
from proxsae.formats.writing import write_configured

CONFIGURATION, WEIGHTS = "cfg.json", "sae.safetensors"


class Sparsify(Format):
    """TopK and groupmax, and the signed TopK of 2024 (``"signed": true``), which is AbsTopK; transcoders of each."""

    name = "sparsify"
    library = "sparsify"
    files = (CONFIGURATION, WEIGHTS)
    loads = 'from sparsify import SparseCoder\n\nsae = SparseCoder.load_from_disk("FOLDER")'
    writes = ("topk",)
    transcodes = skips = True

    def recognises(self, path: Path) -> bool:
        """Whether the folder has the two files."""
        return (path / WEIGHTS).is_file() and (path / CONFIGURATION).is_file()

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a folder."""
        config = JsonConfig.read(path / CONFIGURATION)
        transcodes, skips = config.flag("transcode", False), config.flag("skip_connection", False)
        d = config.integer("d_in")
        # 0 latents, as is usual there, means the expansion factor
        p = config.integer("num_latents") if config.get("num_latents") else d * config.integer("expansion_factor", 32)
        k, activation = config.integer("k", 32), self._activation(config)
        if k > p or (activation == "groupmax" and p % k):
            raise config.wrong("k", f"it is {k}, and there are {p} atoms")
        weights = safetensors_weights(path / WEIGHTS)
        W, intercept = weights.tensor("encoder.weight", p, d), weights.tensor("b_dec", d)
        bias = weights.tensor("encoder.bias", p)
        bias = bias if transcodes else shifted(bias, W, -intercept)
        skip = weights.tensor("W_skip", d, d).T.contiguous() if skips else None
        # x with a matrix to its own reconstruction is a transcoder from x to x
        is_transcoder = transcodes or skips
        atoms = weights.tensor("W_dec", p, d)
        return Parts(W, bias, atoms, intercept, activation, k, is_transcoder=is_transcoder, skip=skip)

    def check_written(self, parts: Parts) -> None:
        """Raise ValueError where the format has no place for the parts."""
        super().check_written(parts)
        if parts.weight.shape[1] != parts.atoms.shape[1]:
            widths = f"{parts.weight.shape[1]} features and {parts.atoms.shape[1]} targets"
            raise ValueError(f"sparsify has no place for a transcoder of two widths, and this one has {widths}")

    def write(self, path: Path, parts: Parts) -> None:
        """Write the folder."""
        n_components, n_features = parts.atoms.shape
        tensors = {
            "encoder.weight": parts.weight,
            "encoder.bias": parts.bias if parts.is_transcoder else parts.bias_of_centred,
            "W_dec": parts.atoms,
            "b_dec": parts.intercept,
        }
        if parts.skip is not None:
            tensors["W_skip"] = parts.skip.T
        config = {
            "activation": "topk",
            "expansion_factor": max(1, n_components // n_features),
            "normalize_decoder": False,  # asked in training alone
            "num_latents": n_components,
            "k": parts.k,
            "multi_topk": False,
            "skip_connection": parts.skip is not None,
            "transcode": parts.is_transcoder,
            "d_in": n_features,
        }
        write_configured(path / CONFIGURATION, config, path / WEIGHTS, tensors)

    @staticmethod
    def _activation(config: JsonConfig) -> Activation:
        activation = config.one_of("activation", ("topk", "groupmax"), "topk")
        if config.flag("signed", False):
            return "abstopk"
        return "groupmax" if activation == "groupmax" else "topk"
