"""dictionary_learning: what it writes, and what it computes."""

import contextlib
import io
import json
from importlib.metadata import version

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from parameters import parameters, real_parameters

NAME, FORMAT = f"dictionary_learning {version('dictionary-learning')}", "dictionary_learning"
OUT = {
    "0.25*L1 + NonNegative": "double",
    "0.25*L1": "double",
    "0.125*L0": "double",
    "AsymmetricL0(0.125, 0.5)": "double",
    "NonNegative + Cardinality(3)": "double",
    "Cardinality(3)": "double",
}


def save(make, names, real=False):
    """Write the state of a class with random parameters, and the configuration that its trainer writes."""

    def write(folder, d, p, dtype):
        model = make(d, p)
        values = (real_parameters if real else parameters)(d, p)
        for name, value in names.items():
            target = model
            *parents, last = name.split(".")
            for parent in parents:
                target = getattr(target, parent)
            value = values[value.removesuffix(".T")].T if value.endswith(".T") else values[value]
            with torch.no_grad():
                getattr(target, last).copy_(value)
        if hasattr(model, "k"):
            model.threshold.fill_(0.7)
        folder.mkdir(parents=True)
        torch.save(model.state_dict(), folder / "ae.pt")
        trainer = {"dict_class": type(model).__name__, "activation_dim": d, "dict_size": p, "k": 3, "layer": 7}
        config = {"trainer": {**trainer, "lm_name": "EleutherAI/pythia-70m"}, "buffer": {"ctx_len": 128}}
        (folder / "config.json").write_text(json.dumps(config))

    return write


LINEAR = {"encoder.weight": "W_enc.T", "encoder.bias": "b_enc", "decoder.weight": "W_dec.T"}
PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
GATED = {"encoder.weight": "W_enc.T", "decoder.weight": "W_dec.T", "decoder_bias": "b_dec", "r_mag": "r_mag"}
GATED |= {"gate_bias": "b_gate", "mag_bias": "b_mag"}
CASES = {}
ONCE = {
    "AutoEncoder": save(AutoEncoder, {**LINEAR, "bias": "b_dec"}, real=True),
    "AutoEncoderNew": save(AutoEncoderNew, {**LINEAR, "decoder.bias": "b_dec"}),
    "GatedAutoEncoder": save(GatedAutoEncoder, GATED, real=True),
    "JumpReluAutoEncoder": save(JumpReluAutoEncoder, {**PLAIN, "threshold": "threshold"}),
    "AutoEncoderTopK": save(lambda d, p: AutoEncoderTopK(d, p, 3), {**LINEAR, "b_dec": "b_dec"}, real=True),
    "BatchTopKSAE": save(lambda d, p: BatchTopKSAE(d, p, 3), {**LINEAR, "b_dec": "b_dec"}),
    "MatryoshkaBatchTopKSAE": save(lambda d, p: MatryoshkaBatchTopKSAE(d, p, 3, [p // 2, p - p // 2]), PLAIN),
}


@torch.no_grad()
def forward(folder, X):
    with contextlib.redirect_stdout(io.StringIO()):
        model, _ = load_dictionary(str(folder), "cpu")
    codes = model.encode(X)
    return codes.numpy(), model.decode(codes).numpy()
