"""EleutherAI's sparsify: what it writes, and what it computes. The signed TopK of 2024 is written out here."""

import json
from importlib.metadata import version

import torch
from parameters import real_parameters
from sparsify import SparseCoder, SparseCoderConfig

NAME, FORMAT = f"sparsify {version('eai-sparsify')}", "sparsify"
OUT = {"NonNegative + Cardinality(3)": "double", "Cardinality(3)": "double", "0.2*L1 + Cardinality(3)": "double"}


def save(folder, d, p, dtype, **options):
    values = real_parameters(d, p, dtype)
    coder = SparseCoder(d, SparseCoderConfig(k=4, **{"num_latents": p, **options}), dtype=dtype)
    coder.encoder.weight.data, coder.encoder.bias.data = values["W_enc"].T.contiguous(), values["b_enc"]
    coder.W_dec.data, coder.b_dec.data = values["W_dec"], values["b_dec"]
    if coder.W_skip is not None:
        coder.W_skip.data = values["W_enc"][:, :d].contiguous()
    coder.save_to_disk(folder)


def signed(folder, d, p, dtype):
    save(folder, d, p, dtype)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "signed": True}))


def transcoder(**options):
    return lambda folder, d, p, dtype: save(folder, d, p, dtype, **options)


CASES = {
    "topk": save,
    "transcode": transcoder(transcode=True),
    "skip": transcoder(skip_connection=True),
    "skip transcode": transcoder(transcode=True, skip_connection=True),
}
ONCE = {
    "topk, atoms by expansion": lambda folder, d, p, dtype: save(
        folder, d, 4 * d, dtype, num_latents=0, expansion_factor=4
    ),
    "groupmax": lambda folder, d, p, dtype: save(folder, d, 4 * d, dtype, num_latents=4 * d, activation="groupmax"),
    "signed topk of 2024": signed,
}


@torch.no_grad()
def forward(folder, X):
    coder = SparseCoder.load_from_disk(folder).float()
    if json.loads((folder / "cfg.json").read_text()).get("signed"):  # SAE of August 2024, commit a48257e of the library
        u = coder.encoder(X - coder.b_dec)
        indices = u.abs().topk(coder.cfg.k, sorted=False).indices
        acts = u.gather(-1, indices)
    else:
        acts, indices, _ = coder.encode(X)
    codes = torch.zeros(len(X), coder.num_latents).scatter_(-1, indices, acts)
    outputs = coder.decode(acts, indices)
    return codes.numpy(), (outputs if coder.W_skip is None else outputs + X @ coder.W_skip.mT).numpy()
