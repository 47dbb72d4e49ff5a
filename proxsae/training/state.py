"""All that the next training step depends on: what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.dictionary import Statistics
from proxsae.encoders import Encoder
from proxsae.encoders.base import ENCODERS
from proxsae.regularizers import Regularizer, parse
from proxsae.regularizers.naming import checked_spelling
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.blocks import FeatureBlocks
from proxsae.training.optimizer import adam
from proxsae.training.scaling import Scaling
from proxsae.training.sparsity import WeightControl

NUMBERS = ("seed", "n_steps", "n_done", "order_seed", "n_drawn", "n_halvings")


@dataclass
class TrainingState:
    """A training between two steps. Killed and taken up from its :meth:`state_dict`, it goes on as if never stopped.

    Attributes
    ----------
    model : Autoencoder
        In normalised units; its encoder holds R with its steered weight.
    inputs, targets : Scaling
        From normalised to raw data.
    given : Regularizer
        R as asked for, in the units of the data.
    optimizer : Adam
    seed : int
        All randomness of the training follows from it.
    n_steps : int or None
        Length of the schedule; None: no end in sight.
    n_done : int
        Steps done.
    n_halvings : int
        How often the step size has been halved after a divergence.
    order_seed, n_drawn : int
        The order of the rows of the present data, and how many of them have been drawn.
    data : str or None
        Checksum of the rows of a fit that writes checkpoints.
    init : str or None
        Checksum of the init of such a fit.
    control : WeightControl or None
        Steers the weight of R.
    prices : float64 Tensor of shape (n_proxes,) or None
        At batch scope: the least gain of a non-zero in each prox of the encoder, averaged over the last
        batches, and at the end of a fit of rows that of many.
    statistics : Statistics or None
        Where solved codes and steps of the dictionary alternate: sums over the samples so far.
    """

    model: Autoencoder
    inputs: Scaling
    targets: Scaling
    given: Regularizer
    optimizer: torch.optim.Adam
    seed: int
    n_steps: int | None = None
    n_done: int = 0
    order_seed: int = 0
    n_drawn: int = 0
    data: str | None = None
    init: str | None = None
    control: WeightControl | None = None
    prices: Tensor | None = None
    statistics: Statistics | None = None
    n_halvings: int = 0

    @classmethod
    def start(
        cls,
        model: Autoencoder,
        inputs: Scaling,
        given: Regularizer,
        *,
        targets: Scaling | None = None,
        seed: int = 0,
        n_steps: int | None = None,
        target_l0: float | None = None,
    ) -> TrainingState:
        """Return the state before the first step; targets have the scaling of the inputs where none is given."""
        control = None if target_l0 is None else WeightControl(target_l0)
        return cls(
            model,
            inputs,
            inputs if targets is None else targets,
            given,
            adam(model),
            seed,
            n_steps,
            order_seed=seed,
            control=control,
        )

    def new_data(self) -> None:
        """Begin a new order of rows, for data from which no row has been drawn."""
        self.order_seed, self.n_drawn = self.seed + self.n_done, 0

    def replace_encoder(self, encoder: Encoder) -> None:
        """Put another encoder in place; parameters of the same name and shape keep their moments."""
        before = {name: (p.shape, self.optimizer.state[p]) for name, p in self.model.named_parameters()}
        self.model.use(encoder.to(self.model.atoms.device))
        self.optimizer = adam(self.model)
        for name, parameter in self.model.named_parameters():
            shape, moments = before.get(name, (None, {}))
            if moments and shape == parameter.shape:
                self.optimizer.state[parameter] = moments

    def forget_moments(self) -> None:
        """Free the moments of Adam, two thirds of the memory: no step of it follows."""
        self.optimizer.state.clear()

    def to(self, device: torch.device) -> TrainingState:
        """Move everything to a device, in place."""
        self.model.to(device)
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        self.prices = None if self.prices is None else self.prices.to(device)
        for moments in self.optimizer.state.values():
            for name, value in moments.items():
                moments[name] = value.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return everything as a flat dict of tensors, numbers and texts; floats keep all their bits."""
        encoder = self.model.encoder
        state: dict[str, Any] = {f"encoder.{name}": tensor for name, tensor in encoder.tensors().items()}
        state |= {"encoder": encoder.name, "encoder_options": encoder.get_params()}
        state |= {"atoms": self.model.atoms.detach(), "bias": self.model.bias.detach()}
        state |= {"is_transcoder": self.model.is_transcoder}
        state |= {"block_sizes": list(self.model.blocks.sizes), "block_scales": list(self.model.blocks.scales)}
        state |= {} if self.model.skip is None else {"skip": self.model.skip.detach()}
        state |= {"unused_for": self.model.unused_for}
        for name, parameter in self.model.named_parameters():
            state |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        for name, scaling in (("inputs", self.inputs), ("targets", self.targets)):
            state |= {f"{name}_mean": scaling.mean, f"{name}_scale": scaling.scale}
        for name, R in (("given", self.given), ("regularizer", encoder.regularizer)):
            state |= regularizer_entries(name, R)
        state |= {"target_l0": None, "is_met": False}
        if self.control is not None:
            state |= {"target_l0": self.control.target, "is_met": self.control.is_met}
        state |= {name: getattr(self, name) for name in (*NUMBERS, "data", "init")}
        if self.statistics is not None:
            sums = self.statistics._asdict().items()
            state |= {f"statistics.{name}": torch.as_tensor(value, dtype=torch.float64) for name, value in sums}
        return state if self.prices is None else {**state, "prices": self.prices}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], kinds: Mapping[str, type[Encoder]] = ENCODERS) -> TrainingState:
        """Return the training that gave :meth:`state_dict`, on the CPU; its encoder is of one of the kinds.

        Raises
        ------
        KeyError, ValueError
            If an entry is missing or does not fit the others.
        """
        _check_numbers(state)
        given, R = (parse(state[name], **_group(state, name)) for name in ("given", "regularizer"))
        encoder_type = kinds[state["encoder"]]
        encoder = encoder_type.from_tensors(R, _group(state, "encoder"), **state["encoder_options"])
        skip = state["skip"].clone() if "skip" in state else None
        is_transcoder = bool(state["is_transcoder"])
        atoms, bias = state["atoms"].clone(), state["bias"].clone()
        blocks = FeatureBlocks(tuple(state["block_sizes"]), tuple(state["block_scales"]))
        model = Autoencoder(encoder, atoms, bias, skip, is_transcoder=is_transcoder, blocks=blocks).cpu().train()
        model.unused_for.copy_(state["unused_for"])
        if not is_finite(state):
            raise ValueError("a tensor holds NaN or infinity")
        optimizer = adam(model)
        for name, parameter in model.named_parameters():
            moments = _group(state, f"adam.{name}")
            shapes = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
            if moments and {key: tuple(value.shape) for key, value in moments.items()} != shapes:
                raise ValueError(f"the moments of {name!r} are not {shapes}")
            dtypes = {"step": torch.float32, "exp_avg": parameter.dtype, "exp_avg_sq": parameter.dtype}
            if any(value.dtype != dtypes[key] for key, value in moments.items()):
                raise ValueError(f"the moments of {name!r} are not of the dtypes {dtypes}")
            if any(bool((moments[key] < 0).any()) for key in ("step", "exp_avg_sq") if moments):
                raise ValueError(f"the second moment or the step of {name!r} is negative")
            optimizer.state[parameter] = {key: value.cpu() for key, value in moments.items()}
        inputs, targets = (
            Scaling(state[f"{name}_mean"].cpu(), state[f"{name}_scale"]) for name in ("inputs", "targets")
        )
        if targets.mean.shape != model.bias.shape or inputs.mean.ndim != 1:
            raise ValueError("the means of the data do not have the shape of a row")
        if skip is not None and skip.shape != (*inputs.mean.shape, *targets.mean.shape):
            raise ValueError(f"the skip matrix has shape {tuple(skip.shape)}")
        if any(scaling.mean.dtype != model.bias.dtype for scaling in (inputs, targets)):
            raise ValueError(f"the means of the data are not of the dtype {model.bias.dtype}")
        model(torch.zeros_like(inputs.mean)[None], torch.zeros_like(targets.mean)[None])  # raises where they do not fit
        numbers = {name: state[name] for name in NUMBERS}
        training = cls(model, inputs, targets, given, optimizer, **numbers, data=state["data"], init=state["init"])
        if state["target_l0"] is not None:
            training.control = WeightControl(state["target_l0"])
            training.control.is_met = state["is_met"]
        if sums := _group(state, "statistics"):
            training.statistics = checked_sums(sums, *model.atoms.shape)
        if "prices" in state and given.scope == "batch":
            training.prices = state["prices"].cpu().clone()
            wanted = encoder.encode(torch.zeros_like(inputs.mean)[None]).prices
            if wanted is None or training.prices.shape != wanted.shape or bool((training.prices < 0).any()):
                raise ValueError("the prices of the batches are not one number >= 0 for each prox of the encoder")
        return training


def is_finite(state: Mapping[str, Any]) -> bool:
    """Whether no tensor of a state holds NaN or infinity."""
    return all(bool(torch.isfinite(value).all()) for value in state.values() if isinstance(value, Tensor))


def checked_sums(sums: Mapping[str, Tensor], n_components: int, n_features: int) -> Statistics:
    """Return the sums that a state holds, or raise ValueError where they are not those of such a dictionary."""
    zeros = Statistics.zeros(n_components, n_features)._asdict()
    for name, zero in zeros.items():
        if name not in sums or tuple(sums[name].shape) != np.shape(zero) or sums[name].dtype != torch.float64:
            raise ValueError(f"the sums {name!r} are missing or not float64 of shape {np.shape(zero)}")
    read: dict[str, Any] = {name: sums[name].numpy() for name in zeros}
    read |= {name: float(value) for name, value in read.items() if value.ndim == 0}
    return Statistics(**read)


def _check_numbers(state: Mapping[str, Any]) -> None:
    """Raise ValueError unless the numbers of a state are those of a training."""

    def is_whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63

    def is_positive(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

    conditions: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(set(NUMBERS) - {"n_steps"}, is_whole),
        "n_steps": lambda value: value is None or (is_whole(value) and value > 0),
        **dict.fromkeys(("inputs_scale", "targets_scale"), is_positive),
        "target_l0": lambda value: value is None or is_positive(value),
        "is_met": lambda value: isinstance(value, bool),
    }
    for name in ("data", "init"):
        if not isinstance(state[name], str | None):
            raise ValueError(f"{name} is not a text")
    for name, holds in conditions.items():
        if not holds(state[name]):
            raise ValueError(f"{name} = {str(state[name])[:40]} is not a number that a training has")


def regularizer_entries(name: str, R: Regularizer) -> dict[str, Any]:
    """Return the text of R under `name` and its arrays as tensors under `name.key`; raise where R has no text."""
    text, arrays = checked_spelling(R)
    return {name: text, **{f"{name}.{key}": torch.as_tensor(array) for key, array in arrays.items()}}


def _group(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Return copies of the tensors whose names begin with `prefix.`, by the rest of the name."""
    names = [name for name in state if name.startswith(f"{prefix}.")]
    return {name.removeprefix(f"{prefix}."): state[name].clone() for name in names}
