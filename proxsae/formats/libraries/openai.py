"""OpenAI's sparse_autoencoder: a file of torch.save, such as ``resid_post_mlp_v5_32k/autoencoders/6.pt``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from proxsae.formats.files import one_line
from proxsae.formats.parts import Activation, Parts, shifted
from proxsae.formats.registry import Format
from proxsae.formats.weights import torch_weights
from proxsae.formats.writing import write_torch

AFTER: dict[Activation, str] = {"topk": "ReLU", "topk_without_relu": "Identity"}  # what follows TopK


class OpenAI(Format):
    """ReLU of raw rows, and TopK of rows that are normalised by layer norm; the library has no other combination."""

    name = "openai"
    library = "OpenAI's sparse_autoencoder"
    files = ()
    writes = ("relu", "topk", "topk_without_relu")
    rows = ("raw", "layer_norm")

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a Torch file, by its name or as the archive that such a file is."""
        return path.is_file() and (path.suffix == ".pt" or (path.suffix != ".npz" and zipfile.is_zipfile(path)))

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a file."""
        weights, values = torch_weights(path)
        p, d = weights.shape("encoder.weight")
        W, D = weights.tensor("encoder.weight", p, d), weights.tensor("decoder.weight", d, p).T.contiguous()
        intercept = weights.tensor("pre_bias", d)
        bias = shifted(weights.tensor("latent_bias", p), W, -intercept)
        name, settings = values.get("activation", "ReLU"), values.get("activation_state_dict", {})
        if name == "ReLU":
            return Parts(W, bias, D, intercept, "relu")
        if name != "TopK":
            raise weights.wrong("activation", f"it is {one_line(name)}, known are 'ReLU' and 'TopK'")
        settings = settings if isinstance(settings, dict) else {}
        k, after = settings.get("k"), settings.get("postact_fn")
        if type(k) is not int or not 1 <= k <= p:
            raise weights.wrong("activation_state_dict", f"k is {one_line(k)}, needed is an integer from 1 to {p}")
        if after not in AFTER.values():
            known = " and ".join(map(repr, AFTER.values()))
            raise weights.wrong("activation_state_dict", f"postact_fn is {one_line(after)}, known are {known}")
        activation: Activation = "topk" if after == AFTER["topk"] else "topk_without_relu"
        return Parts(W, bias, D, intercept, activation, k, rows="layer_norm")

    def write(self, path: Path, parts: Parts) -> None:
        """Write the file."""
        activation = parts.activation
        if parts.rows != ("layer_norm" if activation in AFTER else "raw"):
            raise ValueError(
                f"{self.library} has ReLU of raw rows and TopK of layer_norm, not {activation!r} of {parts.rows}"
            )
        values: dict[str, Any] = {
            "encoder.weight": parts.weight,
            "decoder.weight": parts.atoms.T,
            "pre_bias": parts.intercept,
            "latent_bias": parts.bias_of_centred,
            "stats_last_nonzero": torch.zeros(len(parts.atoms), dtype=torch.long),
            "latents_activation_frequency": torch.ones(len(parts.atoms)),
            "latents_mean_square": torch.zeros(len(parts.atoms)),
            "activation": "TopK" if activation in AFTER else "ReLU",
            "activation_state_dict": {"k": parts.k, "postact_fn": AFTER[activation]} if activation in AFTER else {},
        }
        write_torch(path, values)
