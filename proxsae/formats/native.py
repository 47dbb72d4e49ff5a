"""What a saved autoencoder consists of: the model in data units, how it was asked for, what continues its training."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from proxsae.encoders import Amortized
from proxsae.formats.files import read_checkpoint, write_checkpoint
from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers import Regularizer, parse
from proxsae.regularizers.naming import checked_spelling
from proxsae.training.autoencoder import SparseAutoencoder


@dataclass(frozen=True)
class SavedSAE:
    """A fitted autoencoder.

    Attributes
    ----------
    model : SparseAutoencoder
        In the units of the data.
    regularizer : Regularizer or None
        As asked for.
    parameters : dict
        The other constructor parameters; JSON values.
    history : dict of str to ndarray
    n_iter : int
    training : dict of str to Tensor
        What :meth:`Trainer.state` returned, and the normalisation; empty if training is not to go on exactly.
    training_regularizer : Regularizer or None
        R in normalised units, with its steered weight.
    """

    model: SparseAutoencoder
    regularizer: Regularizer | None
    parameters: dict[str, Any]
    history: dict[str, Any]
    n_iter: int
    training: dict[str, Tensor] = field(default_factory=dict)
    training_regularizer: Regularizer | None = None


def write_sae(path: str | os.PathLike[str], saved: SavedSAE) -> None:
    """Write an autoencoder to one safetensors file, whole or not at all.

    Raises
    ------
    TypeError
        If a regularizer is a Python function of the user's.
    """
    encoder = saved.model.encoder
    tensors = {
        "encoder_weight": to_numpy(encoder.weight),
        "encoder_bias": to_numpy(encoder.bias),
        "components": to_numpy(saved.model.atoms),
        "intercept": to_numpy(saved.model.bias),
        **{f"history.{name}": values for name, values in saved.history.items()},
        **{f"training.{name}": to_numpy(values) for name, values in saved.training.items()},
    }
    texts: dict[str, str | None] = {}
    regularizers = {
        "fitted_regularizer": encoder.regularizer,
        "regularizer": saved.regularizer,
        "training_regularizer": saved.training_regularizer,
    }
    for name, regularizer in regularizers.items():
        texts[name], arrays = (None, {}) if regularizer is None else checked_spelling(regularizer)
        tensors |= {f"{name}.{key}": to_numpy(array) for key, array in arrays.items()}
    write_checkpoint(path, tensors, {**texts, "parameters": saved.parameters, "n_iter": saved.n_iter})


def read_sae(path: str | os.PathLike[str]) -> SavedSAE:
    """Return what :func:`write_sae` wrote, on the CPU.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, foreign or damaged; the sentence names the file and the field.
    """
    tensors, metadata = read_checkpoint(path)

    def group(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}

    def regularizer(name: str) -> Regularizer | None:
        return None if metadata[name] is None else parse(metadata[name], **group(name))

    try:
        names = ("encoder_weight", "encoder_bias", "components", "intercept")
        W, b_e, D, b = (torch.from_numpy(tensors[name]) for name in names)
        fitted = regularizer("fitted_regularizer")
        given, steered = regularizer("regularizer"), regularizer("training_regularizer")
        parameters, n_iter = metadata["parameters"], metadata["n_iter"]
    except KeyError as missing:
        raise ValueError(f"{path}: the field {missing} is missing") from None
    if D.ndim != 2 or W.shape != D.shape or b_e.shape != D.shape[:1] or b.shape != D.shape[1:] or fitted is None:
        raise ValueError(f'{path}: the shapes of "encoder_weight" and "components" do not fit each other')
    model = SparseAutoencoder(Amortized(fitted, W, b_e), D, b).eval()
    training = {name: torch.from_numpy(array) for name, array in group("training").items()}
    return SavedSAE(model, given, parameters, group("history"), n_iter, training, steered)
