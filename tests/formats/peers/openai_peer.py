"""OpenAI's sparse_autoencoder (github.com/openai/sparse_autoencoder, on no registry): what it writes and computes."""

import torch
from parameters import parameters, real_parameters
from sparse_autoencoder.model import Autoencoder, TopK

NAME, FORMAT, SUFFIX = "OpenAI", "openai", ".pt"
OUT = {"0.25*L1 + NonNegative": "double", "0.25*L1": "double"}


def save(folder, values, **options):
    d, p = values["W_enc"].shape
    model = Autoencoder(p, d, **options)
    model.encoder.weight.data, model.latent_bias.data = values["W_enc"].T.contiguous(), values["b_enc"]
    model.decoder.weight.data, model.pre_bias.data = values["W_dec"].T.contiguous(), values["b_dec"]
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "6.pt")
    return folder / "6.pt"


CASES = {}
ONCE = {
    "ReLU": lambda folder, d, p, dtype: save(folder, parameters(d, p)),
    "TopK": lambda folder, d, p, dtype: save(folder, real_parameters(d, p), activation=TopK(3), normalize=True),
    "TopK without ReLU": lambda folder, d, p, dtype: save(
        folder, real_parameters(d, p), activation=TopK(p // 2 + 1, torch.nn.Identity()), normalize=True
    ),
}


@torch.no_grad()
def forward(path, X):
    state = torch.load(path, weights_only=True)
    model = Autoencoder.from_state_dict(state, strict=False)  # it writes "activation.k" too, which strict refuses
    codes, info = model.encode(X)
    return codes.numpy(), model.decode(codes, info).numpy()
