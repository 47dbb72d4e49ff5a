"""SAELens: a folder with ``cfg.json`` and ``sae_weights.safetensors``. Read as SAELens 6.54 reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxsae.formats.configuration import JsonConfig
from proxsae.formats.files import one_line
from proxsae.formats.parts import Activation, Parts, Rows, gated, positive_part, shifted, with_unit_atoms
from proxsae.formats.places import hook_in, known_hook, site_of
from proxsae.formats.registry import Format
from proxsae.formats.weights import Weights, safetensors_weights
from proxsae.formats.writing import write_configured
from proxsae.formulas.arrays import dtype_name

CONFIGURATION, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"  # whose conventions are written; a file without a version is read by those before 6.0
DTYPES = ("float16", "bfloat16", "float32", "float64")
OF_ACTIVATION = {"relu": "standard", "topk": "topk", "abstopk": "abstopk", "jumprelu": "jumprelu"}
REGULARIZER = "proxsae_regularizer"  # in the metadata, of what we write
OF_BATCHES = ("batchtopk", "matryoshka_batchtopk")  # of trainings; SAELens itself saves them as jumprelu
TENSORS = {
    "standard": {"b_enc"},
    "topk": {"b_enc"},
    "abstopk": {"b_enc"},
    "jumprelu": {"b_enc", "threshold"},
    "gated": {"b_gate", "r_mag", "b_mag"},
    **{name: {"b_enc", "topk_threshold"} for name in OF_BATCHES},
    "transcoder": {"b_enc"},
    "skip_transcoder": {"b_enc", "W_skip"},
    "jumprelu_transcoder": {"b_enc", "threshold"},
    "jumprelu_skip_transcoder": {"b_enc", "threshold", "W_skip"},
}
ROWS: dict[str, Rows] = {
    "none": "raw",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "unit_mean_square",
    "expected_average_only_in": "raw",
    "covariance_whitening": "raw",
}
UNFOLDED = ("expected_average_only_in", "covariance_whitening")  # of trainings, before they are folded
REFUSED = {
    "temporal": "its codes depend on other tokens, and those of a prox on one row alone",
    "matching_pursuit": "it has no encoder, its codes are found one atom after another",
}


class SAELens(Format):
    """Standard, topk, abstopk, jumprelu and gated, the trainings of batchtopk, and transcoders."""

    name = "saelens"
    library = "SAELens"
    files = (CONFIGURATION, WEIGHTS)
    loads = 'from sae_lens import SAE\n\nsae = SAE.load_from_disk("FOLDER")'
    writes = ("relu", "topk", "abstopk", "jumprelu")
    rows = ("raw", "layer_norm", "unit_mean_square")
    transcodes = skips = True

    def recognises(self, path: Path) -> bool:
        """Whether the folder has weights of that name, and no configuration of another library."""
        return (path / WEIGHTS).is_file() and (path / CONFIGURATION).is_file()

    def read(self, path: Path) -> Parts:
        """Return the autoencoder of a folder."""
        config = _renamed(JsonConfig.read(path / CONFIGURATION))
        architecture = config.text("architecture")
        if architecture in REFUSED:
            raise config.wrong("architecture", f"{architecture!r} cannot be read: {REFUSED[architecture]}")
        config.one_of("architecture", tuple(TENSORS))
        weights = safetensors_weights(path / WEIGHTS)
        _check_names(weights, architecture)
        reader = _Reader(config, weights)
        return reader.parts(architecture)

    def write(self, path: Path, parts: Parts) -> None:
        """Write the folder."""
        config, tensors = contents(parts)
        write_configured(path / CONFIGURATION, config, path / WEIGHTS, tensors)

    def check_written(self, parts: Parts) -> None:
        """Raise ValueError where the format has no place for the parts."""
        super().check_written(parts)
        if parts.is_transcoder and parts.activation not in ("relu", "jumprelu"):
            raise ValueError(f"SAELens has no place for a transcoder of {parts.activation!r}: it has relu, jumprelu")


def contents(parts: Parts) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of a SAE of SAELens."""
    n_components, n_features = parts.weight.shape
    config: dict[str, Any] = {
        "architecture": _architecture(parts),
        "d_in": n_features,
        "d_sae": n_components,
        "dtype": dtype_name(parts.atoms),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": next(name for name, rows in ROWS.items() if rows == parts.rows),
        "reshape_activations": "none",
        "metadata": _metadata(parts),
    }
    tensors = {
        "W_enc": parts.weight.T,
        "b_enc": parts.bias,
        "W_dec": parts.atoms,
        "b_dec": parts.intercept,
    }
    if parts.is_transcoder:
        config["d_out"] = parts.atoms.shape[1]
    if parts.skip is not None:
        tensors["W_skip"] = parts.skip.T
    if parts.activation in ("topk", "abstopk"):
        config |= {"k": parts.k, "rescale_acts_by_decoder_norm": False}
    if parts.threshold is not None:
        tensors["threshold"] = parts.threshold
    return config, tensors


def _architecture(parts: Parts) -> str:
    if not parts.is_transcoder:
        return OF_ACTIVATION[parts.activation]
    names = ("jumprelu" if parts.activation == "jumprelu" else "", "skip" if parts.skip is not None else "")
    return "_".join([*filter(None, names), "transcoder"])


class _Reader:
    """The tensors of one folder, in the precision in which SAELens computes with them."""

    def __init__(self, config: JsonConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.d, self.p = config.integer("d_in"), config.integer("d_sae")
        dtype = config.text("dtype", "float32").removeprefix("torch.")
        if dtype not in DTYPES:
            raise config.wrong("dtype", f"it is {one_line(dtype)!r}, known are {', '.join(DTYPES)}")
        self.dtype: torch.dtype = getattr(torch, dtype)
        normalised = config.one_of("normalize_activations", tuple(ROWS), "none")
        self.rows = ROWS[normalised]
        self.unscaled = normalised if normalised in UNFOLDED else None

    def vector(self, name: str) -> Tensor:
        return self.weights.tensor(name, self.p, dtype=self.dtype)

    def parts(self, architecture: str) -> Parts:
        is_transcoder = architecture.endswith("transcoder")
        n_targets = self.config.integer("d_out") if is_transcoder else self.d
        W = self.weights.tensor("W_enc", self.d, self.p, dtype=self.dtype).T.contiguous()
        D = self.weights.tensor("W_dec", self.p, n_targets, dtype=self.dtype)
        intercept = self.weights.tensor("b_dec", n_targets, dtype=self.dtype)
        skip = None
        if "W_skip" in TENSORS[architecture]:
            skip = self.weights.tensor("W_skip", n_targets, self.d, dtype=self.dtype).T.contiguous()
        bias = self.vector("b_mag" if architecture == "gated" else "b_enc")
        activation: Activation = "jumprelu"
        k, threshold = None, None
        if architecture == "gated":
            W, threshold = gated(W, self.vector("b_gate"), self.vector("r_mag"), bias)
        elif architecture.startswith("jumprelu"):
            threshold = self.vector("threshold") if "threshold" in self.weights else self.vector("log_threshold").exp()
        elif architecture in OF_BATCHES:
            threshold = self.weights.tensor("topk_threshold").to(bias.dtype).expand(self.p).clone()
        elif architecture == "standard" or is_transcoder:
            activation = "relu"
        else:
            activation = "topk" if architecture == "topk" else "abstopk"
            k = self.config.integer("k", 100)
            if k > self.p:
                raise self.config.wrong("k", f"it is {k}, and there are {self.p} atoms")
        # in inference the norms are a choice of the file, trainings of batches have them by default
        if self.config.flag("rescale_acts_by_decoder_norm", architecture in OF_BATCHES) and architecture != "standard":
            W, bias, D = with_unit_atoms(W, bias, D)
        if self.config.flag("apply_b_dec_to_input", not is_transcoder):
            if is_transcoder:
                raise self.config.wrong("apply_b_dec_to_input", "it is true, which no transcoder has")
            bias = shifted(bias, W, -intercept)
        return Parts(
            W,
            bias,
            D,
            intercept,
            activation,
            k,
            None if threshold is None else positive_part(threshold),
            self.rows,
            self.unscaled,
            _provenance(self.config),
            self.config.text(f"metadata.{REGULARIZER}", "") or None,
            is_transcoder,
            skip,
        )


def _check_names(weights: Weights, architecture: str) -> None:
    """Raise ValueError for tensors of another architecture, as SAELens does."""
    known = {"W_enc", "W_dec", "b_dec", *TENSORS[architecture]}
    known |= {"log_threshold"} if architecture == "jumprelu" else set()
    if "scaling_factor" in weights:
        factor = weights.tensor("scaling_factor", *weights.shape("scaling_factor", 1))
        if not torch.allclose(factor, torch.ones_like(factor)):
            raise weights.wrong("scaling_factor", "it scales the codes, which SAELens reads no longer")
        known.add("scaling_factor")
    if unknown := sorted(set(weights.shapes) - known):
        raise weights.wrong(unknown[0], f"a SAE of architecture {architecture!r} has no such tensor")


def _renamed(config: JsonConfig) -> JsonConfig:
    """Return a configuration of any version with the names of 6.0."""
    version = config.text("sae_lens_version", "") or config.text("metadata.sae_lens_version", "")
    major = version.partition(".")[0]
    if version and not major.isdecimal():
        raise config.wrong("sae_lens_version", f"it is {one_line(version)!r}, needed is one such as {VERSION}")
    if version and int(major) >= 6:
        return config
    names = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    values = {names.get(name, name): value for name, value in config.values.items()}
    values = {"architecture": "standard", **values, "metadata": values}
    if isinstance(normalised := values.get("normalize_activations"), bool):
        values["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    old = JsonConfig(config.path, values)
    if old.get("activation_fn") == "topk" and old.get("activation_fn_kwargs.k") is not None:
        values |= {"architecture": "topk", "k": old.get("activation_fn_kwargs.k")}
    return old


def _metadata(parts: Parts) -> dict[str, Any]:
    told, hook = parts.provenance, hook_in(parts.provenance)
    found = {
        "model_name": told.get("model"),
        "hook_name": hook,
        "hook_name_out": hook_in(told, "target_"),
        "context_size": told.get("context_length"),
        "dataset_path": told.get("text"),
        "training_tokens": told.get("tokens_seen"),
        REGULARIZER: parts.regularizer,
    }
    if hook is not None:
        found["prepend_bos"] = told.get("bos", True)  # SAEBench insists on it
    known = {name: value for name, value in found.items() if value is not None}
    if "weights" in told:  # a harvest of ours, which says of the packing what is not our default
        told = {"separator": "eos", "concatenate": True, **told}
    if "separator" in told:
        known["sequence_separator_token"] = told["separator"]  # None is one
    if "concatenate" in told:
        known["disable_concat_sequences"] = not told["concatenate"]
    return {"sae_lens_version": VERSION, "sae_lens_training_version": None, "training_library": "proxsae", **known}


def _provenance(config: JsonConfig) -> dict[str, Any]:
    model = config.get("metadata.model_name")
    hook, other = (known_hook(config.get(f"metadata.{name}")) for name in ("hook_name", "hook_name_out"))
    found = {
        "model": model,
        "site": None if hook is None else site_of(hook, model),
        "target_site": None if other is None else site_of(other, model),
        "hook": hook,
        "target_hook": other,
        "context_length": config.get("metadata.context_size"),
        "text": config.get("metadata.dataset_path"),
        "tokens_seen": config.get("metadata.training_tokens"),
        "bos": False if config.get("metadata.prepend_bos") is False else None,
    }
    known = {name: value for name, value in found.items() if isinstance(value, str | int)}
    metadata = config.get("metadata") if isinstance(config.get("metadata"), dict) else {}
    separator = metadata.get("sequence_separator_token", "sep")
    if separator is None or (type(separator) in (int, str) and separator != "sep"):  # which is no text of a token
        known["separator"] = separator
    if isinstance(apart := metadata.get("disable_concat_sequences"), bool):
        known["concatenate"] = not apart
    return known
