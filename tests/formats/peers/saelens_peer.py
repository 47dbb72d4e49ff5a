"""SAELens: what it writes, and what it computes."""

import json
from functools import partial
from unittest.mock import patch

import sae_lens
import torch
from parameters import parameters, real_parameters
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory, get_repo_id_and_folder_name
from safetensors.torch import load_file, save_file

from proxsae.formats import saelens_converter, saelens_hub_converter
from proxsae.formats.releases import released

NAME, FORMAT = f"SAELens {sae_lens.__version__}", "saelens"

# Our regularizers that it must read, signed="native" only where it has them.
OUT = {
    "0.25*L1 + NonNegative": "double",
    "0.25*L1": "double",
    "0.125*L0 + NonNegative": "double",
    "0.125*L0": "double",
    "AsymmetricL0(0.125, 0.5)": "double",
    "0.25*L1 + 0.5*SquaredL2 + 0.1*L0": "double",
    "NonNegative + Cardinality(3)": "double",
    "Cardinality(3)": "double",
    "0.2*L1 + Cardinality(3)": "double",
    "Cardinality(3) ": "native",
}


def save(folder, architecture, values, dtype=torch.float32, **options):
    names = {
        "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
        "jumprelu": ("W_enc", "W_dec", "b_dec", "b_enc", "threshold"),
    }
    d, p = values["W_enc"].shape
    config = {"architecture": architecture, "d_in": d, "d_sae": p, "dtype": str(dtype).removeprefix("torch.")}
    metadata = {"model_name": "gpt2-small", "hook_name": "blocks.7.hook_resid_pre", "context_size": 128}
    sae = SAE.from_dict({**config, "metadata": metadata, **options})
    for name in names.get(architecture, ("W_enc", "W_dec", "b_dec", "b_enc")):
        getattr(sae, name).data = values[name].clone()
    sae.save_model(folder)


def architecture(name, real=False, **options):
    make = real_parameters if real else parameters
    return lambda folder, d, p, dtype: save(folder, name, make(d, p, dtype), dtype, **options)


def transcoder(name):
    """A transcoder to rows of another width."""

    def write(folder, d, p, dtype):
        values, of_targets = real_parameters(d, p, dtype), real_parameters(d + 1, p, dtype)
        config = {"architecture": name, "d_in": d, "d_sae": p, "d_out": d + 1, "apply_b_dec_to_input": False}
        metadata = {"hook_name": "blocks.7.mlp.hook_in", "hook_name_out": "blocks.7.hook_mlp_out"}
        sae = SAE.from_dict({**config, "dtype": str(dtype).removeprefix("torch."), "metadata": metadata})
        values |= {"W_dec": of_targets["W_dec"], "b_dec": of_targets["b_dec"], "W_skip": of_targets["W_enc"][:, :d]}
        for tensor in ("W_enc", "W_dec", "b_dec", "b_enc", "threshold", "W_skip"):
            if hasattr(sae, tensor):
                getattr(sae, tensor).data = values[tensor].clone()
        sae.save_model(folder)

    return write


TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def before_version_6(folder, d, p, dtype):
    """A TopK of version 5: other names, no version."""
    architecture("topk", real=True, k=3)(folder, d, p, dtype)
    config = json.loads((folder / "cfg.json").read_text())
    for name in ("metadata", "architecture", "k"):
        del config[name]
    config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "hook_point": "blocks.7.hook_resid_pre"}
    config |= {"normalize_activations": False, "model_name": "gpt2-small"}
    (folder / "cfg.json").write_text(json.dumps(config))


def batchtopk(folder, d, p, dtype):
    """A training of BatchTopK as it is saved for use: a JumpReLU."""
    batchtopk_training(folder, d, p, dtype, save="save_inference_model")


def batchtopk_training(folder, d, p, dtype, save="save_model"):
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=d, d_sae=p, k=3))
    for name, value in real_parameters(d, p, dtype).items():
        if name in ("W_enc", "W_dec", "b_dec", "b_enc"):
            getattr(sae, name).data = value.float()
    sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    getattr(sae, save)(folder)


def float32_rounded_when_read(folder, d, p, dtype):
    """Weights in float32 under a configuration that says bfloat16, in which the library then computes."""
    save(folder, "standard", real_parameters(d, p), torch.float32)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "dtype": "torch.bfloat16"}))


def log_threshold(folder, d, p, dtype):
    save(folder, "jumprelu", parameters(d, p, dtype), dtype)
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["log_threshold"] = (tensors.pop("threshold").abs() + 0.25).log()
    save_file(tensors, folder / "sae_weights.safetensors")


CASES = {
    "standard": architecture("standard"),
    "standard, b_dec not subtracted": architecture("standard", apply_b_dec_to_input=False),
    "jumprelu": architecture("jumprelu"),
    "gated": architecture("gated", real=True),  # a gate within rounding of zero may be decided differently
    "topk": architecture("topk", real=True, k=3),
    "topk by norms": architecture("topk", real=True, k=3, rescale_acts_by_decoder_norm=True),
    "abstopk": architecture("abstopk", real=True, k=3),
    "batchtopk, saved": batchtopk,
    **{name: transcoder(name) for name in TRANSCODERS},
}
ONCE = {  # whatever the dtype
    "topk of version 5": before_version_6,
    "rounded when read": float32_rounded_when_read,
    "batchtopk, in training": batchtopk_training,
}


@torch.no_grad()
def forward(folder, X):
    """Codes and reconstructions by the library, of its parameters as read, computed in float32."""
    config = json.loads((folder / "cfg.json").read_text())
    if config.get("architecture") == "batchtopk":  # what the library makes of it for use
        training = sae_lens.TrainingSAE.load_from_disk(folder)
        training.save_inference_model(folder / "inference")
        folder = folder / "inference"
    return outputs(SAE.load_from_disk(folder), X)


@torch.no_grad()
def outputs(sae, X):
    sae = sae.to(torch.float32)
    codes = sae.encode(X)
    decoded = sae(X) if sae.cfg.architecture() in TRANSCODERS else sae.decode(codes)
    return codes.numpy(), decoded.numpy()


def as_object(sae, path, signed, X):
    """By an object made of ours."""
    return outputs(sae.as_saelens(signed=signed), X)


def by_converter(sae, path, signed, X):
    """By its loader, of a file of ours."""
    sae.save(path)
    return outputs(SAE.load_from_disk(path, converter=partial(saelens_converter, signed=signed)), X)


def from_the_hub(sae, path, signed, X):
    """By its loader of the Hub, of a file of ours in a cache of that layout."""
    cache, commit = path.with_name(f"{path.name}.hub"), "0" * 40
    repository = cache / "models--owner--saes"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    sae.save(repository / "snapshots" / commit / "sae.safetensors")
    converter = partial(saelens_hub_converter, signed=signed)
    constants = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": True}
    with patch.multiple("huggingface_hub.constants", **constants):
        return outputs(SAE.from_pretrained("owner/saes", "sae.safetensors", converter=converter), X)


WITHOUT_FILES = {"object": as_object, "loader": by_converter, "hub": from_the_hub}


def releases():
    """How many names of its releases there are, and which of them we take to another place."""
    table = get_pretrained_saes_directory()
    names = [(release, sae_id) for release, one in table.items() for sae_id in one.saes_map]
    return len(names), [name for name in names if place_of(table[name[0]], "/".join(name)) != theirs_of(*name)]


def place_of(release, name):
    if "normalize_activations" in (release.config_overrides or {}):  # which is refused
        return theirs_of(*name.split("/", 1))
    return released(name).place


def theirs_of(release, sae_id):
    return "hf://" + "/".join(get_repo_id_and_folder_name(release, sae_id))
