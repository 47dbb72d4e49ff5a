"""Llama Scope, and what OpenMOSS's library (lm-saes, now llamascopium) writes since.

The first release is ``hyperparams.json`` with ``checkpoints/final.safetensors``; later ones ``config.json`` with
``sae_weights.safetensors``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxsae.formats.configuration import JsonConfig
from proxsae.formats.parts import Activation, Parts, Rows, shifted, with_unit_atoms
from proxsae.formats.places import UNKNOWN, hook_in, known_hook, site_of
from proxsae.formats.registry import Format
from proxsae.formats.weights import Weights, safetensors_weights
from proxsae.formats.writing import write_configured

FIRST, FIRST_WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
LATER, LATER_WEIGHTS = "config.json", "sae_weights.safetensors"
ACTIVATIONS = ("relu", "topk", "jumprelu")
THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
ROWS: dict[str, Rows] = {
    "token-wise": "unit_mean_square",
    "dataset-wise": "raw",  # by a factor that is the same for all rows, which is folded
    "inference": "raw",
    "none": "raw",
}


class LlamaScope(Format):
    """ReLU, JumpReLU and TopK; the scale of the data set is folded into the weights.

    Codes are in the units of the library. In the first release these are the units of raw rows, with unit atoms; in
    later ones those of rows scaled to a mean norm of sqrt(d), where TopK has unit atoms.
    """

    name = "llama_scope"
    library = "llamascopium"
    files = (FIRST, FIRST_WEIGHTS, LATER, LATER_WEIGHTS)
    written = (LATER, LATER_WEIGHTS)
    writes = ("relu", "topk")

    def recognises(self, path: Path) -> bool:
        """Whether the folder has the two files of a release."""
        pairs = ((FIRST, FIRST_WEIGHTS), (LATER, LATER_WEIGHTS))
        return any(all((path / name).is_file() for name in pair) for pair in pairs)

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a folder."""
        is_first = (path / FIRST).is_file()
        config = JsonConfig.read(path / (FIRST if is_first else LATER))
        weights = safetensors_weights(path / (FIRST_WEIGHTS if is_first else LATER_WEIGHTS))
        _check_autoencoder(config)
        return (_first if is_first else _later)(config, weights)

    def write(self, path: Path, parts: Parts) -> None:
        """Write the folder of a later release."""
        n_components, n_features = parts.atoms.shape
        hook = str(hook_in(parts.provenance) or UNKNOWN)
        config: dict[str, Any] = {
            "sae_type": "sae",
            "d_model": n_features,
            "expansion_factor": _factor(n_components, n_features),
            "hook_point_in": hook,
            "hook_point_out": hook,
            "use_decoder_bias": True,
            "act_fn": parts.activation,
            "norm_activation": "inference",
            "sparsity_include_decoder_norm": False,
            "top_k": 50 if parts.k is None else parts.k,
        }
        one = torch.ones((), dtype=parts.bias.dtype)
        tensors = {
            "W_E": parts.weight.T,
            "b_E": parts.bias,
            "W_D": parts.atoms,
            "b_D": parts.intercept,
            f"dataset_average_activation_norm.{hook}": one,
        }
        write_configured(path / LATER, config, path / LATER_WEIGHTS, tensors)


@dataclass
class _Model:
    """z = activation(x W^T + b_e), of which D and b make the reconstruction."""

    W: Tensor
    bias: Tensor
    D: Tensor
    intercept: Tensor

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.W, self.bias, self.D, self.intercept


def _first(config: JsonConfig, weights: Weights) -> Parts:
    d = config.integer("d_model")
    p = config.integer("d_sae") if config.get("d_sae") is not None else d * config.integer("expansion_factor")
    model = _of_linear(config, weights, d, p)
    norm = config.one_of("norm_activation", tuple(ROWS), "token-wise")
    if norm == "dataset-wise":
        factor = math.sqrt(d) / _average_norm(config, weights)
        model.bias, model.intercept = model.bias / factor, model.intercept / factor
    if config.flag("sparsity_include_decoder_norm", True):
        model.W, model.bias, model.D = with_unit_atoms(model.W, model.bias, model.D)
    if config.flag("apply_decoder_bias_to_pre_encoder", True):
        model.bias = shifted(model.bias, model.W, -model.intercept)
    activation: Activation = config.one_of("act_fn", ACTIVATIONS, "relu")  # type: ignore[assignment]
    cut = config.number("jump_relu_threshold", 0.0)
    if cut < 0:
        raise config.wrong("jump_relu_threshold", f"it is {cut}, needed is a number >= 0")
    k, threshold = None, None
    if activation == "topk" and cut > 0:  # of a training; its library and SAELens take the threshold
        activation = "jumprelu"
    if activation == "jumprelu":
        threshold = torch.full_like(model.bias, cut)
    elif activation == "topk":
        k = _k(config, p)
    return Parts(*model.all, activation, k, threshold, ROWS[norm], provenance=_provenance(config))


def _later(config: JsonConfig, weights: Weights) -> Parts:
    d = config.integer("d_model")
    factor = config.number("expansion_factor")
    if not 1 <= d * factor < 2**63:
        raise config.wrong("expansion_factor", f"it is {factor}, which of {d} features is no number of atoms")
    p = int(d * factor)
    if "W_E" in weights:
        has_bias = config.flag("use_decoder_bias", True)
        model = _Model(
            weights.tensor("W_E", d, p).T.contiguous(),
            weights.tensor("b_E", p),
            weights.tensor("W_D", p, d),
            weights.tensor("b_D", d) if has_bias else torch.zeros(d),
        )
    else:
        model = _of_linear(config, weights, d, p)
    norm = config.one_of("norm_activation", tuple(ROWS), "dataset-wise")
    if norm == "dataset-wise":
        factor = math.sqrt(d) / _average_norm(config, weights)
        model.W, model.D, model.intercept = factor * model.W, model.D / factor, model.intercept / factor
    else:
        factor = 1.0
    activation: Activation = config.one_of("act_fn", ACTIVATIONS, "relu")  # type: ignore[assignment]
    by_norms = config.flag("sparsity_include_decoder_norm", True)
    k, threshold = None, None
    if activation == "topk":
        k = _k(config, p)
        if by_norms:
            model.W, model.bias, model.D = with_unit_atoms(model.W, model.bias, model.D)
    elif activation == "jumprelu":
        threshold = weights.tensor(weights.first(*THRESHOLDS), p).exp()
        if by_norms:  # in the units of the training, where the atoms were longer by the factor
            norms = factor * torch.linalg.vector_norm(model.D, dim=1)
            threshold = threshold / torch.where(norms > 0, norms, 1.0)
    return Parts(*model.all, activation, k, threshold, ROWS[norm], provenance=_provenance(config))


def _of_linear(config: JsonConfig, weights: Weights, d: int, p: int) -> _Model:
    has_bias = config.flag("use_decoder_bias", True)
    return _Model(
        weights.tensor("encoder.weight", p, d),
        weights.tensor("encoder.bias", p),
        weights.tensor("decoder.weight", d, p).T.contiguous(),
        weights.tensor("decoder.bias", d) if has_bias else torch.zeros(d),
    )


def _average_norm(config: JsonConfig, weights: Weights) -> float:
    """Return the mean norm of the rows of the training, which the first release has beside the weights."""
    field = "dataset_average_activation_norm"
    if config.get(f"{field}.in") is not None:
        norm = config.number(f"{field}.in")
    else:
        norm = float(weights.tensor(f"{field}.{config.text('hook_point_in')}"))
    if not norm > 0:
        raise config.wrong(field, f"it is {norm}, needed is a positive number")
    return norm


def _check_autoencoder(config: JsonConfig) -> None:
    """Raise ValueError for what is not an autoencoder with one matrix."""
    config.one_of("sae_type", ("sae",), "sae")
    place, other = config.get("hook_point_in"), config.get("hook_point_out")
    if other is not None and other != place:
        raise config.wrong("hook_point_out", "codes of one place decode to another, and ProxSAE holds autoencoders")
    if config.flag("use_glu_encoder", False):
        raise config.wrong("use_glu_encoder", "an encoder of two matrices is not a prox")


def _k(config: JsonConfig, n_components: int) -> int:
    k = config.integer("top_k", 50)
    if k > n_components:
        raise config.wrong("top_k", f"it is {k}, and there are {n_components} atoms")
    return k


def _factor(n_components: int, n_features: int) -> float:
    """Return the factor whose product with n_features, rounded down, is n_components."""
    factor = n_components / n_features
    return factor if int(n_features * factor) == n_components else math.nextafter(factor, math.inf)


def _provenance(config: JsonConfig) -> dict[str, Any]:
    if (hook := known_hook(config.get("hook_point_in"))) is None:
        return {}
    return {"hook": hook} | ({} if (site := site_of(hook)) is None else {"site": site})
