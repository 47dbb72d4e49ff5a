"""Llama Scope: what its library wrote and computed in 2024 (lm_saes), and does today (llamascopium).

Neither is on a registry: github.com/OpenMOSS/Language-Model-SAEs.
"""

import json

import torch
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
from lm_saes.config import SAEConfig as FirstConfig
from lm_saes.sae import SparseAutoEncoder as FirstAutoEncoder
from parameters import parameters, real_parameters
from safetensors.torch import save_file

NAME, FORMAT = "llamascopium", "llama_scope"
OUT = {"0.25*L1": "double", "0.25*L1 + NonNegative": "double", "Cardinality(3)": "double"}
HOOK = "blocks.7.hook_resid_post"


def first(real=False, **options):
    def write(folder, d, p, dtype):
        values = (real_parameters if real else parameters)(d, p)
        config = FirstConfig(d_model=d, d_sae=p, hook_point_in=HOOK, **options)
        (folder / "checkpoints").mkdir(parents=True)
        config.save_hyperparameters(str(folder))
        state = {"encoder.weight": values["W_enc"].T, "encoder.bias": values["b_enc"]}
        state |= {"decoder.weight": values["W_dec"].T, "decoder.bias": values["b_dec"]}
        save_file({name: t.contiguous() for name, t in state.items()}, folder / "checkpoints" / "final.safetensors")

    return write


def later(real=False, **options):
    def write(folder, d, p, dtype):
        values = (real_parameters if real else parameters)(d, p)
        config = SAEConfig(d_model=d, expansion_factor=p / d, hook_point_in=HOOK, hook_point_out=HOOK, **options)
        model = SparseAutoEncoder(config)
        model.set_dataset_average_activation_norm({HOOK: 5.0})
        names = {"W_E": "W_enc", "b_E": "b_enc", "W_D": "W_dec", "b_D": "b_dec"}
        for ours, theirs in names.items():
            getattr(model, ours).data = values[theirs].clone()
        if config.act_fn == "jumprelu":
            model.activation_function.log_jumprelu_threshold.data = (values["threshold"].abs() + 0.25).log()
        folder.mkdir(parents=True)
        save_file(model.full_state_dict(), folder / "sae_weights.safetensors")  # as save_pretrained does
        config.save_hyperparameters(folder)

    return write


SCALED = {"norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 5.0, "out": 5.0}}
CASES = {}
ONCE = {
    "2024, jumprelu": first(
        real=True, act_fn="jumprelu", jump_relu_threshold=0.7, apply_decoder_bias_to_pre_encoder=False, **SCALED
    ),
    "2024, topk": first(real=True, act_fn="topk", top_k=3, **SCALED),
    "2024, relu of raw rows": first(norm_activation="none", sparsity_include_decoder_norm=False),
    "relu": later(act_fn="relu"),
    "jumprelu": later(real=True, act_fn="jumprelu"),
    "jumprelu of raw rows": later(act_fn="jumprelu", norm_activation="inference", sparsity_include_decoder_norm=False),
    "topk": later(real=True, act_fn="topk", top_k=3, sparsity_include_decoder_norm=False),
    "topk by norms": later(real=True, act_fn="topk", top_k=3),
    "relu, each row normalised": later(act_fn="relu", norm_activation="token-wise"),
}


@torch.no_grad()
def forward(folder, X):
    if (folder / "hyperparams.json").is_file():
        model = FirstAutoEncoder.from_pretrained(str(folder))
        codes = model.encode(X)
        return codes.numpy(), model.decode(codes).numpy()
    model = SparseAutoEncoder.from_local(str(folder))
    hook = model.cfg.hook_point_in
    batch, scales = model.normalize_activations({hook: X}, return_scale_factor=True)
    codes = model.encode(batch[hook])
    reconstruction = model.denormalize_activations({hook: model.decode(codes)}, scales)[hook]
    config = json.loads((folder / "config.json").read_text())
    if config["act_fn"] == "topk" and config["sparsity_include_decoder_norm"]:
        codes = codes * model.decoder_norm() / scales[hook]  # of unit atoms for raw rows, as we have them
    return codes.numpy(), reconstruction.numpy()
