"""A fitted model as an object for the evaluations of SAEBench; it needs neither SAEBench nor SAELens.

SAEBench counts a code as active where it is positive. Signed codes are therefore written as pairs of non-negative
codes, z = max(z, 0) - max(-z, 0), with the atoms [D; -D]. This is exact for every R and every encoder.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from proxsae.encoders import Amortized
from proxsae.formats.doubling import check_one_block
from proxsae.formats.files import one_line
from proxsae.formats.largest_values import LargestValues
from proxsae.formats.parts import with_unit_atoms
from proxsae.formats.places import hook_in


@dataclass
class SAEBenchConfig:
    """The configuration that SAEBench reads from a sparse autoencoder.

    Attributes
    ----------
    model_name, hook_name : str
        The names of the model and the hook in TransformerLens.
    hook_layer : int
        Number of the block, counted from 0.
    """

    model_name: str
    hook_name: str
    hook_layer: int
    d_in: int
    d_sae: int
    architecture: str
    dtype: str
    device: str
    context_size: int
    training_tokens: int
    prepend_bos: bool
    hook_head_index: int | None = None
    normalize_activations: str = "none"
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


class SAEBenchSAE(nn.Module):
    """A sparse autoencoder with non-negative codes of unit atoms, as SAEBench takes it; see :func:`as_saebench`.

    Attributes
    ----------
    cfg : SAEBenchConfig
    W_enc : Parameter of shape (d_in, d_sae)
        The matrix of the encoder where it has one, else the transpose of `W_dec`.
    b_enc : Parameter of shape (d_sae,)
    W_dec : Parameter of shape (d_sae, d_in)
    b_dec : Parameter of shape (d_in,)
    """

    def __init__(self, sae: Any, cfg: SAEBenchConfig) -> None:
        super().__init__()
        self.cfg = cfg
        atoms, encoder = torch.as_tensor(sae.components_), copy.deepcopy(sae.encoder_)
        is_matrix = isinstance(encoder, Amortized | LargestValues)
        weight = encoder.weight.detach().cpu() if is_matrix else atoms
        bias = encoder.bias.detach().cpu() if is_matrix else torch.zeros_like(atoms[:, 0])
        self._norms, self._computes_in = torch.linalg.vector_norm(atoms, dim=1), atoms.dtype
        weight, bias, atoms = with_unit_atoms(weight, bias, atoms)
        self._encoder = [encoder]  # no submodule, for thresholds are not to be rounded where the rest is
        self._is_signed = cfg.d_sae == 2 * len(atoms)
        signs = (1, -1) if self._is_signed else (1,)
        self.W_enc = nn.Parameter(torch.cat([sign * weight for sign in signs]).T.contiguous())
        self.b_enc = nn.Parameter(torch.cat([sign * bias for sign in signs]))
        self.W_dec = nn.Parameter(torch.cat([sign * atoms for sign in signs]))
        self.b_dec = nn.Parameter(torch.as_tensor(sae.intercept_).clone())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters and the codes, which are computed in the dtype of the fitted model."""
        return self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of x, (..., d_in), as a dense (..., d_sae) tensor."""
        encoder = self._encoder[0].to(x.device)
        self._norms = self._norms.to(x.device)
        z = self._norms * encoder(x.reshape(-1, x.shape[-1]).to(self._computes_in))
        z = torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=-1) if self._is_signed else z
        return z.reshape(*x.shape[:-1], self.cfg.d_sae).to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction Z D + b."""
        return z @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of x."""
        return self.decode(self.encode(x))


def as_saebench(sae: Any, model_name: str | None = None, hook_name: str | None = None) -> SAEBenchSAE:
    """Return a fitted model as an object for ``run_eval(config, [("name", object)], ...)`` of SAEBench.

    R and the encoder may be of any kind. Codes are for unit atoms. Signed codes are pairs of non-negative codes of the
    atoms [D; -D], because SAEBench takes a negative code for an inactive one.

    Parameters
    ----------
    sae : ProxSAE or SAEWithoutProx
    model_name : str, optional
        The name of the language model in TransformerLens, or a folder. None: the name in ``provenance_``.
    hook_name : str, optional
        The name of the hook in TransformerLens, ``"blocks.14.hook_resid_post"``. None: the place in ``provenance_``.

    Raises
    ------
    ValueError
        If the model or the place is not known, or the model is a transcoder, a crosscoder or for rows that are
        normalised first.
    """
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted

    if isinstance(sae, BaseEstimator):
        check_is_fitted(sae)
    told = sae.provenance_
    if sae.is_transcoder_:
        raise ValueError("SAEBench puts reconstructions where the activations are, and codes of a transcoder have none")
    check_one_block(sae)
    if rows := told.get("normalised_rows"):
        raise ValueError(f"SAEBench gives raw activations, and this model is for rows normalised first ({rows!r})")
    model_name, hook_name = model_name or told.get("model"), hook_name or hook_in(told)
    if model_name is None or hook_name is None:
        raise ValueError(
            "SAEBench needs the language model and the place in it, which provenance_ does not say: give model_name "
            'and hook_name, such as "gpt2" and "blocks.6.hook_resid_post"'
        )
    number = next((part for part in hook_name.split(".") if part.isdecimal()), None)
    if number is None:
        raise ValueError(f"SAEBench needs the number of a block in hook_name, and {hook_name!r} has none")
    R: Any = getattr(sae, "regularizer_", None)
    activation, (p, n_features) = sae.encoder_ if R is None else R, sae.components_.shape
    cfg = SAEBenchConfig(
        model_name=model_name,
        hook_name=hook_name,
        hook_layer=int(number),
        d_in=n_features,
        d_sae=p if getattr(activation, "is_nonnegative", False) else 2 * p,
        architecture=one_line(f"proxsae {type(activation).__name__ if R is None else R}"),
        dtype=str(sae.components_.dtype),
        device="cpu",
        context_size=told.get("context_length", 128),
        training_tokens=told.get("tokens_seen", -1),
        prepend_bos=told.get("bos", True),
    )
    return SAEBenchSAE(sae, cfg)
