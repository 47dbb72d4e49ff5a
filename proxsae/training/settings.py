"""The parameters of the estimator as a training reads them, checked against one another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import torch
from sklearn.utils import check_random_state

from proxsae.data.rows import Rows, torch_device
from proxsae.dictionary import Update
from proxsae.encoders import Encoder
from proxsae.encoders.base import encoder_of
from proxsae.regularizers import Cardinality, Regularizer, parse
from proxsae.training.alternating import checked_update, is_frozen
from proxsae.training.blocks import checked_sizes
from proxsae.training.losses import HierarchicalTopK, Matryoshka, checked_loss
from proxsae.training.sparsity import check_steerable

Asked = tuple[Regularizer, float | None]  # R in the units of the data and the target L0 that a model was fitted for
STEPS_DEPEND_ON = (
    *("regularizer", "n_components", "blocks", "target_l0", "skip_connection", "loss"),
    *("learning_rate", "batch_size", "dead_after", "max_norm_ratio"),
)


@dataclass(frozen=True)
class Settings:
    """The parameters of the estimator as they are at the time of a call, checked against one another."""

    regularizer: Regularizer  # in the units of the data
    encoder: Encoder  # its options
    skip_connection: bool
    loss: Matryoshka | HierarchicalTopK | None  # in place of the squared error
    is_frozen: bool  # the dictionary stays what it is
    update: Update | None  # how the dictionary moves between solved codes; None: by gradients
    n_components: int
    blocks: tuple[int, ...] | None  # sizes of the blocks of a crosscoder
    target_l0: float | None
    learning_rate: float
    batch_size: int
    dead_after: int
    max_norm_ratio: float | None
    device: torch.device
    seed: int
    random_state: Any  # from which the seed came
    verbose: bool
    checkpoint_every: int

    @property
    def asked(self) -> Asked:
        """R and the target L0 that a model is fitted for."""
        return self.regularizer, self.target_l0

    @property
    def has_intercept(self) -> bool:
        """Whether b is learned; otherwise it is 0."""
        return self.update is None or self.update.intercept

    @property
    def moves(self) -> Any:
        """How the dictionary moves, as `update` says it."""
        return self.update or ("frozen" if self.is_frozen else "gradient")

    @classmethod
    def of(cls, parameters: dict[str, Any], n_features: int) -> Settings:
        """Return the settings for data with so many features.

        Raises
        ------
        ValueError
            If parameters do not fit one another, in one sentence.
        """
        given = {field.name: parameters[field.name] for field in fields(cls) if field.name in parameters}
        n_components = 8 * n_features if given["n_components"] is None else int(given["n_components"])
        R = given["regularizer"]
        R = parse(R) if isinstance(R, str) else R
        encoder = encoder_of(given["encoder"])
        settings = cls(
            **{
                **given,
                "regularizer": Cardinality(max(1, min(32, n_components // 8))) if R is None else R,
                "n_components": n_components,
                "blocks": checked_sizes(given["blocks"]),
                "encoder": encoder,
                "loss": checked_loss(given["loss"], n_components),
                "is_frozen": is_frozen(given["update"], encoder),
                "update": checked_update(given["update"], encoder),
                "learning_rate": float(given["learning_rate"]),
                "device": torch_device(given["device"]),
                "seed": int(check_random_state(parameters["random_state"]).randint(2**31 - 1)),
                "verbose": bool(given["verbose"]),
            }
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ValueError where the parameters do not fit one another."""
        R = self.regularizer
        if isinstance(R, Cardinality) and R.k > self.n_components:
            raise ValueError(f"k must not exceed n_components: {R} with {self.n_components} components")
        R.check_width(self.n_components)
        if self.blocks is not None and self.update is not None:
            raise ValueError(f'update = {self.update} knows atoms of one block alone: for blocks take "gradient"')
        if self.loss is not None and self.update is not None:
            raise ValueError(
                f'{self.loss} is a loss of gradients, and update = {self.update} has none: take "gradient"'
            )
        if sentence := self.encoder.refuses(R):
            raise ValueError(sentence)
        if R.scope == "batch" and not isinstance(R, Cardinality):
            raise ValueError(
                'a fitted model codes each sample by itself, which at batch scope only Cardinality(k, "batch") and '
                f"its sums allow; got {R}"
            )
        if self.target_l0 is None:
            return
        check_steerable(R)
        if not self.target_l0 < self.n_components:
            raise ValueError(
                f"target_l0 must lie between 0 and n_components = {self.n_components}, got {self.target_l0}"
            )

    def check_rows(self, rows: Rows) -> None:
        """Raise ValueError where the parameters do not fit data with or without targets, or with weights."""
        if self.blocks is not None and sum(self.blocks) != rows.targets.shape[1]:
            raise ValueError(
                f"blocks = {list(self.blocks)} make up {sum(self.blocks)} features, and {rows.targets.name} has "
                f"{rows.targets.shape[1]}"
            )
        if rows.weights is not None and self.regularizer.scope == "batch":
            raise ValueError(
                f"{self.regularizer} shares non-zeros out among the rows of a batch, whatever their weight: those in "
                "sample_weight that are not 0 must be equal"
            )
        if rows.has_targets and self.encoder.is_tied:
            raise ValueError(
                f'{self.encoder!r} codes what it decodes, and cannot decode to targets Y: take encoder="amortized"'
            )
        if self.skip_connection and not rows.has_targets:
            raise ValueError("skip_connection is a matrix from X to targets, and none are given: fit(X, Y)")

    def differences(self, other: Settings) -> list[tuple[str, Any, Any]]:
        """Return each parameter on which the steps of a fit depend and that differs: its name and both values.

        A random_state that is no integer accepts any seed.
        """
        both = [(name, getattr(self, name), getattr(other, name)) for name in STEPS_DEPEND_ON]
        both.append(("update", self.moves, other.moves))
        different = [(name, a, b) for name, a, b in both if a != b]
        if (self.encoder.name, self.encoder.get_params()) != (other.encoder.name, other.encoder.get_params()):
            different.append(("encoder", self.encoder, other.encoder))
        if all(isinstance(settings.random_state, Integral) for settings in (self, other)) and self.seed != other.seed:
            different.append(("random_state", self.random_state, other.random_state))
        return different
