"""dictionary_learning: a folder with ``config.json`` and ``ae.pt``. Read as its ``load_dictionary`` reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxsae.formats.configuration import JsonConfig
from proxsae.formats.parts import Parts, gated, positive_part, shifted, with_unit_atoms
from proxsae.formats.registry import Format
from proxsae.formats.weights import Weights, torch_weights
from proxsae.formats.writing import write_configured

_BLOCK = re.compile(r"resid_post_layer_(\d{1,6})")  # as its demos name the output of a block
CONFIGURATION, WEIGHTS = "config.json", "ae.pt"
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
OF_BATCHES = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
OF_ACTIVATION = {"relu": "AutoEncoderNew", "topk": "AutoEncoderTopK", "jumprelu": "JumpReluAutoEncoder"}


class DictionaryLearning(Format):
    """All classes that ``load_dictionary`` takes; classes of batch scope use their threshold, as in inference there."""

    name = "dictionary_learning"
    library = "dictionary_learning"
    files = (CONFIGURATION, WEIGHTS)
    loads = 'from dictionary_learning.utils import load_dictionary\n\nsae, config = load_dictionary("FOLDER", "cpu")'
    writes = ("relu", "topk", "jumprelu")

    def recognises(self, path: Path) -> bool:
        """Whether `path` is a file ``ae.pt`` or the folder of one."""
        return path.name == WEIGHTS or (path / WEIGHTS).is_file()

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a folder, or of the folder of a file ``ae.pt``."""
        folder = path.parent if path.name == WEIGHTS else path
        config = JsonConfig.read(folder / CONFIGURATION)
        kind = config.one_of("trainer.dict_class", CLASSES)
        weights, _ = torch_weights(folder / WEIGHTS)
        matrices = weights.first("encoder.weight", "W_enc")
        if matrices == "W_enc":
            d, p = weights.shape("W_enc")
            W, D = weights.tensor("W_enc", d, p).T.contiguous(), weights.tensor("W_dec", p, d)
        else:
            p, d = weights.shape("encoder.weight")
            W, D = weights.tensor("encoder.weight", p, d), weights.tensor("decoder.weight", d, p).T.contiguous()
        for field, size in (("trainer.activation_dim", d), ("trainer.dict_size", p)):
            if config.integer(field, size) != size:
                raise config.wrong(field, f"it is {config.integer(field)}, and the matrices have {size}")
        provenance = {"model": config.get("trainer.lm_name"), "context_length": config.get("buffer.ctx_len")}
        if block := _BLOCK.fullmatch(str(config.get("trainer.submodule_name"))):
            provenance["site"] = f"block.{int(block[1]) + 1}"
        provenance = {name: value for name, value in provenance.items() if isinstance(value, str | int)}
        return _parts(kind, config, weights, W, D, provenance)

    def write(self, path: Path, parts: Parts) -> None:
        """Write the folder."""
        n_components, n_features = parts.atoms.shape
        trainer: dict[str, Any] = {
            "dict_class": OF_ACTIVATION[parts.activation],
            "activation_dim": n_features,
            "dict_size": n_components,
            "lm_name": parts.provenance.get("model"),
        }
        if parts.activation == "jumprelu":
            assert parts.threshold is not None
            values = {
                "W_enc": parts.weight.T,
                "b_enc": parts.bias,
                "W_dec": parts.atoms,
                "b_dec": parts.intercept,
                "threshold": parts.threshold,
            }
        elif parts.activation == "topk":
            trainer["k"] = parts.k
            values = {
                "encoder.weight": parts.weight,
                "encoder.bias": parts.bias_of_centred,
                "decoder.weight": parts.atoms.T,
                "b_dec": parts.intercept,
                "k": torch.tensor(parts.k, dtype=torch.int),
                "threshold": torch.tensor(-1.0),
            }
        else:
            values = {
                "encoder.weight": parts.weight,
                "encoder.bias": parts.bias,
                "decoder.weight": parts.atoms.T,
                "decoder.bias": parts.intercept,
            }
        told = parts.provenance
        if block := re.fullmatch(r"block\.([1-9]\d{0,5})", str(told.get("site"))):
            layer = int(block[1]) - 1
            trainer |= {"layer": layer, "submodule_name": f"resid_post_layer_{layer}"}
        buffer = {"ctx_len": told["context_length"]} if "context_length" in told else {}
        config = {"trainer": trainer, "buffer": buffer}
        write_configured(path / CONFIGURATION, config, path / WEIGHTS, values)


def _parts(kind: str, config: JsonConfig, weights: Weights, W: Tensor, D: Tensor, provenance: dict[str, Any]) -> Parts:
    p, d = W.shape
    if kind == "AutoEncoderNew":
        bias, intercept = weights.tensor("encoder.bias", p), weights.tensor("decoder.bias", d)
        return Parts(W, bias, D, intercept, "relu", provenance=provenance)
    if kind == "JumpReluAutoEncoder":
        threshold = positive_part(weights.tensor("threshold", p))
        bias, intercept = weights.tensor("b_enc", p), weights.tensor("b_dec", d)
        return Parts(W, bias, D, intercept, "jumprelu", threshold=threshold, provenance=provenance)
    # the others subtract the intercept from x first
    if kind == "GatedAutoEncoder":
        magnitude, intercept = weights.tensor("mag_bias", p), weights.tensor("decoder_bias", d)
        W, threshold = gated(W, weights.tensor("gate_bias", p), weights.tensor("r_mag", p), magnitude)
        bias = shifted(magnitude, W, -intercept)
        return Parts(W, bias, D, intercept, "jumprelu", threshold=positive_part(threshold), provenance=provenance)
    if kind == "AutoEncoder":
        intercept, bias = weights.tensor("bias", d), weights.tensor("encoder.bias", p)
        if not torch.allclose(norms := torch.linalg.vector_norm(D, dim=1), torch.ones_like(norms)):
            W, bias, D = with_unit_atoms(W, bias, D)  # as load_dictionary does for this class
        return Parts(W, shifted(bias, W, -intercept), D, intercept, "relu", provenance=provenance)
    intercept = weights.tensor("b_dec", d)
    bias = weights.tensor(weights.first("encoder.bias", "b_enc"), p)
    bias = shifted(bias, W, -intercept)
    k = _k(config, weights, p)
    if kind == "AutoEncoderTopK":
        return Parts(W, bias, D, intercept, "topk", k, provenance=provenance)
    threshold = positive_part(weights.tensor("threshold")).to(bias.dtype).expand(p).clone()  # -1 is for none
    return Parts(W, bias, D, intercept, "jumprelu", threshold=threshold, provenance=provenance)


def _k(config: JsonConfig, weights: Weights, n_components: int) -> int:
    k = config.integer("trainer.k")
    if "k" in weights and (stored := weights.integer("k")) != k:
        raise config.wrong("trainer.k", f"it is {k}, and that of the weights is {stored}")
    if k > n_components:
        raise config.wrong("trainer.k", f"it is {k}, and there are {n_components} atoms")
    return k
