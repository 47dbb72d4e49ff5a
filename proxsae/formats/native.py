"""Our file format of a fitted autoencoder: the model in the units of the data, its parameters, and its training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from proxsae.dictionary import Update
from proxsae.dictionary.rules import UPDATES
from proxsae.encoders import Encoder
from proxsae.encoders.base import ENCODERS
from proxsae.formats.files import read_file, write_file
from proxsae.formulas.arrays import to_numpy
from proxsae.regularizers import Regularizer, parse
from proxsae.training.autoencoder import Autoencoder, fitted_autoencoder
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.losses import LOSSES, HierarchicalTopK, Matryoshka
from proxsae.training.state import TrainingState, regularizer_entries


def write(path: str | os.PathLike[str], sae: Any, *, with_training: bool) -> None:
    """Write a fitted estimator to one safetensors file, whole or not at all.

    Raises
    ------
    ValueError, TypeError
        If there is no training to go on with, or a regularizer is not read back from its text.
    OSError
        If the file cannot be written.
    """
    if with_training and sae._training is None:
        raise ValueError("there is no training to go on with: partial_fit keeps its state, fit and load do not")
    encoder = sae.encoder_
    fields: dict[str, Any] = {
        "components": sae.components_,
        "intercept": sae.intercept_,
        **({} if sae.skip_ is None else {"skip": sae.skip_}),
        "is_transcoder": int(sae.is_transcoder_),
        "blocks": asdict(sae.blocks_),
        "encoder": _as_json(encoder),
        **_under("encoder", encoder.tensors()),
        **regularizer_entries("fitted_regularizer", encoder.current_regularizer),
        **fit_fields(sae, sae._training.state_dict() if with_training else None),
    }
    write_fields(path, fields)


def fit_fields(sae: Any, training: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields of an estimator, all but its model, and of entries of the state of its training."""
    parameters = sae.get_params(deep=False)
    given = parameters.pop("regularizer")
    given = parse(given) if isinstance(given, str) else given
    parameters["checkpoint_dir"] = None  # a folder of this machine, for this one fit
    fields: dict[str, Any] = {
        "parameters": {name: _as_json(value) for name, value in parameters.items()},
        "provenance": sae.provenance_,
        "target_l0": sae._asked[1],
        **_under("history", sae.history_),
        **regularizer_entries("asked_regularizer", sae._asked[0]),
    }
    if hasattr(sae, "feature_names_in_"):
        fields["feature_names"] = list(sae.feature_names_in_)
    fields |= {"regularizer": None} if given is None else regularizer_entries("regularizer", given)
    if training is not None:
        fields |= _under("training", {name: value for name, value in training.items() if is_array(value)})
        training = {name: value for name, value in training.items() if not is_array(value)}
    return {**fields, "training": training}


def write_fields(path: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Write arrays and JSON values to one file, whole or not at all."""
    tensors = {name: to_numpy(value) for name, value in fields.items() if is_array(value)}
    write_file(path, tensors, {name: value for name, value in fields.items() if not is_array(value)})


def read(path: str | os.PathLike[str], cls: Any) -> Any:
    """Return the estimator of class `cls` that :func:`write` wrote, on the CPU.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, foreign or damaged; the sentence names the file and the field.
    """
    tensors, metadata = read_file(path)
    fields = Fields(path, tensors, metadata)
    R = fields.regularizer("fitted_regularizer")
    components, intercept = fields.tensor("components", 2), fields.tensor("intercept", 1)
    encoder = fields.built("encoder", lambda: fields.encoder("encoder", R))
    skip = fields.tensor("skip", 2) if "skip" in tensors else None
    is_transcoder = bool(fields.of("is_transcoder", int))
    blocks = fields.built("blocks", lambda: _blocks(fields.of("blocks", dict)))
    model = fields.built(
        "components",
        lambda: fitted_autoencoder(encoder, components, intercept, skip, is_transcoder=is_transcoder, blocks=blocks),
    )
    sae = fit_of(fields, cls, model)
    training = fields.of("training", dict, type(None))
    sae._training = None if training is None else fields.built("training", lambda: _training(fields, training, model))
    return sae


def fit_of(fields: Fields, cls: Any, model: Autoencoder | None) -> Any:
    """Return the estimator of class `cls` with the fields of :func:`fit_fields` and a model."""
    parameters = dict(fields.of("parameters", dict))
    for name, key, known in (("encoder", "kind", ENCODERS), ("update", "name", UPDATES), ("loss", "name", LOSSES)):
        if isinstance(parameters.get(name), dict):
            parameters[name] = fields.built(f"parameters.{name}", partial(_described, parameters[name], key, known))
    given = None if fields.of("regularizer", str, type(None)) is None else fields.regularizer("regularizer")

    def unfitted() -> Any:
        sae = cls(regularizer=given, **parameters)
        sae._validate_params()
        return sae

    sae = fields.built("parameters", unfitted)
    names = fields.names("feature_names")
    if names is not None:
        if model is not None and len(names) != model.encoder.n_features:
            sentence = f"it has {len(names)} names, and the encoder {model.encoder.n_features} features"
            raise fields.wrong("feature_names", sentence)
        sae.feature_names_in_ = np.array(names, object)
    asked = (fields.regularizer("asked_regularizer"), fields.of("target_l0", int, float, type(None)))
    return sae._set_fitted(model, asked, fields.history(), fields.of("provenance", dict))


class Fields:
    """The content of a file, read by name and type; each refusal names the file and the field."""

    def __init__(self, path: str | os.PathLike[str], tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
        self.path, self.tensors, self.metadata = path, tensors, metadata

    def wrong(self, field: str, sentence: object) -> ValueError:
        """Return the error to raise."""
        return ValueError(f"{self.path}: the field {field!r}: {sentence}")

    def of(self, field: str, *types: type) -> Any:
        """Return a JSON value of one of the types."""
        if field not in self.metadata:
            raise self.wrong(field, "it is missing")
        value = self.metadata[field]
        if not isinstance(value, types) or isinstance(value, bool):
            raise self.wrong(field, f"it is a {type(value).__name__}")
        return value

    def names(self, field: str) -> list[str] | None:
        """Return a list of texts, None where the file has no such field."""
        if field not in self.metadata:
            return None
        names: list[str] = self.of(field, list)
        if not all(isinstance(name, str) for name in names):
            raise self.wrong(field, "it holds something else than texts")
        return names

    def tensor(self, field: str, n_dimensions: int) -> torch.Tensor:
        """Return a finite floating tensor with so many dimensions."""
        array = self.tensors.get(field)
        if array is None or array.ndim != n_dimensions or str(array.dtype) not in ("float32", "float64"):
            raise self.wrong(field, f"needed is a float32 or float64 tensor with {n_dimensions} dimensions")
        if not np.isfinite(array).all():
            raise self.wrong(field, "it holds NaN or infinity")
        return torch.from_numpy(array)

    def group(self, prefix: str) -> dict[str, Any]:
        """Return the arrays whose names begin with `prefix.`, by the rest."""
        start = f"{prefix}."
        return {name.removeprefix(start): array for name, array in self.tensors.items() if name.startswith(start)}

    def regularizer(self, field: str) -> Regularizer:
        """Return the regularizer that a text and its arrays spell."""
        text = self.of(field, str)
        return self.built(field, lambda: parse(text, **self.group(field)))  # type: ignore[no-any-return]

    def encoder(self, field: str, R: Regularizer) -> Encoder:
        """Return the fitted encoder of a kind, options and tensors."""
        unfitted: Encoder = _described(self.of(field, dict), "kind", ENCODERS)
        tensors = {name: self.tensor(f"{field}.{name}", array.ndim) for name, array in self.group(field).items()}
        return type(unfitted).from_tensors(R, tensors, **unfitted.get_params())

    def history(self) -> dict[str, Any]:
        """Return the arrays of the history, of one length."""
        history = self.group("history")
        if any(array.ndim != 1 or array.dtype.kind not in "fi" for array in history.values()):
            raise self.wrong("history", "it holds something else than columns of numbers")
        if len({len(array) for array in history.values()}) > 1:
            raise self.wrong("history", "its columns have different lengths")
        steps = history.get("step", np.zeros(0))
        if history and not (steps.dtype.kind == "i" and len(steps) and (np.diff(steps, prepend=0) > 0).all()):
            raise self.wrong("history", "its column 'step' is missing, or holds something else than growing numbers")
        return history

    def built(self, field: str, build: Callable[[], Any]) -> Any:
        """Return what a function builds; its error becomes one of the field."""
        try:
            return build()
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            sentence = f"{error} is missing" if isinstance(error, KeyError) else error
            if str(error).startswith(f"{self.path}:"):
                raise
            raise self.wrong(field, sentence) from None


def _training(fields: Fields, values: dict[str, Any], model: Autoencoder) -> TrainingState:
    tensors = {name: torch.from_numpy(array) for name, array in fields.group("training").items()}
    training = TrainingState.from_state_dict({**values, **tensors})
    if training.model.atoms.shape != model.atoms.shape or training.model.atoms.dtype != model.atoms.dtype:
        raise ValueError("its atoms are not of the shape and dtype of 'components'")
    return training


def _as_json(value: Any) -> Any:
    if isinstance(value, Encoder):
        return {"kind": value.name, "options": value.get_params()}
    if isinstance(value, Update):
        return {"name": value.name, "options": asdict(value)}
    if isinstance(value, Matryoshka | HierarchicalTopK):
        return {"name": next(name for name, kind in LOSSES.items() if type(value) is kind), "options": asdict(value)}
    if isinstance(value, np.random.RandomState):
        return None  # the state of a generator is not a parameter
    return value.item() if isinstance(value, np.generic) else value


def _blocks(description: dict[str, Any]) -> FeatureBlocks:
    return FeatureBlocks(tuple(description["sizes"]), tuple(description["scales"]))


def _described(description: dict[str, Any], key: str, known: Mapping[str, Any]) -> Any:
    """Return the object of a known name, which stands under `key`, with its options."""
    if description.get(key) not in known:
        raise ValueError(f"unknown {key} {description.get(key)!r}; known are {', '.join(known)}")
    return known[description[key]](**description["options"])


def _under(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def is_array(value: Any) -> bool:
    """Whether a field is stored as a tensor."""
    return isinstance(value, torch.Tensor | np.ndarray)
