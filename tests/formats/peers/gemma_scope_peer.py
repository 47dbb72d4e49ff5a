"""Gemma Scope: files as Google published them, read by SAELens."""

import json
from unittest.mock import patch

import numpy as np
import sae_lens
import torch
from parameters import parameters
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from safetensors.torch import save_file

NAME, FORMAT = f"Gemma by SAELens {sae_lens.__version__}", "gemma_scope"
OUT = {"0.25*L1": "double", "0.125*L0": "double", "0.25*L1 + NonNegative": "double"}
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


def first(place):
    def write(folder, d, p, dtype):
        path = folder / place / "width_16k" / "average_l0_6"
        path.mkdir(parents=True)
        values = parameters(d, p)
        np.savez(path / "params.npz", **{name: values[name].numpy() for name in NAMES})
        return path

    return write


def second(folder, d, p, dtype):
    path = folder / "resid_post" / "layer_7_width_16k_l0_small"
    path.mkdir(parents=True)
    values = parameters(d, p, dtype)
    save_file({name.replace("W", "w"): values[name] for name in NAMES}, path / "params.safetensors")
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "affine_connection": False}
    config |= {"hf_hook_point_in": "model.layers.7.output", "hf_hook_point_out": "model.layers.7.output"}
    (path / "config.json").write_text(json.dumps(config))
    return path


CASES = {"second release": second}
ONCE = {"first release": first("layer_7"), "first release, embeddings": first("embedding")}


@torch.no_grad()
def forward(path, X):
    """By the loaders of SAELens, with local files in place of the Hub's."""

    def local(repo_id=None, filename=None, subfolder=None, **_):
        return path / filename.rpartition("/")[2]

    is_first = (path / "params.npz").is_file()
    values = np.load(path / "params.npz")["W_enc"].shape if is_first else None
    with patch.object(loaders, "hf_hub_download", local):
        if is_first:
            folder = (
                "/".join(path.parts[-3:]) if path.parts[-2].startswith("width") else "layer_7/width_16k/average_l0_6"
            )
            overrides = {"d_in": values[0], "d_sae": values[1], "normalize_activations": "none"}
            config, state, _ = loaders.gemma_2_sae_huggingface_loader(
                "gemma-scope-2b-pt-res", folder, cfg_overrides=overrides
            )
        else:
            with patch.object(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes(path)):
                config, state, _ = loaders.gemma_3_sae_huggingface_loader("gemma-scope-2", f"resid_post/{path.name}")
    sae = SAE.from_dict({**loaders.handle_config_defaulting(config), "device": "cpu"})
    sae.load_state_dict({name: state[name].float() for name in NAMES})
    codes = sae.encode(X)
    return codes.numpy(), sae.decode(codes).numpy()


def shapes(path):
    from safetensors import safe_open

    with safe_open(path / "params.safetensors", framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
