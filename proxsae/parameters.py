"""The parameters of the estimator for scikit-learn: what is allowed, and what is inside R, encoder and update."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import is_dataclass
from numbers import Integral, Real
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from proxsae.regularizers import Regularizer, parse
from proxsae.regularizers.settings import settings_of, with_settings

CONSTRAINTS: dict[str, Any] = {
    "regularizer": [Regularizer, str, None],
    "n_components": [Interval(Integral, 1, None, closed="left"), None],
    "encoder": "no_validation",  # encoder_of says what is allowed
    "update": "no_validation",  # checked_update says what is allowed
    "loss": "no_validation",  # checked_loss says what is allowed
    "skip_connection": ["boolean"],
    "blocks": "no_validation",  # checked_sizes says what is allowed
    "target_l0": [Interval(Real, 0, None, closed="neither"), None],
    "n_steps": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "dead_after": [Interval(Integral, 1, None, closed="left")],
    "max_norm_ratio": [Interval(Real, 1, None, closed="neither"), None],
    "sparse_output": ["boolean"],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "checkpoint_dir": [str, os.PathLike, None],
    "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
}


class WithRegularizer(BaseEstimator):  # type: ignore[misc]
    """An estimator in which searches can set numbers of R, ``regularizer__weight``, and options of its parts."""

    regularizer: Regularizer | str | None
    encoder: Any
    update: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep` also those of R and of the update, such as ``regularizer__weight``."""
        R = self.regularizer
        if deep and isinstance(R, str):
            with suppress(ValueError):  # what the text says is checked by fit
                R = parse(R)
        of_R = settings_of(R) if deep and isinstance(R, Regularizer) else {}
        is_update = is_dataclass(self.update) and not isinstance(self.update, type)
        of_update = vars(self.update) if deep and is_update else {}
        return {
            **super().get_params(deep),
            **{f"regularizer__{name}": value for name, value in of_R.items()},
            **{f"update__{name}": value for name, value in of_update.items()},
        }

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters; ``regularizer__weight=0.3`` replaces R by one of that weight."""
        of_R, of_encoder, of_update = (_taken_out(parameters, name) for name in ("regularizer", "encoder", "update"))
        super().set_params(**parameters)
        if of_R:
            R = parse(self.regularizer) if isinstance(self.regularizer, str) else self.regularizer
            if R is None:
                raise ValueError(f"{', '.join(of_R)} cannot be set inside R, since regularizer is None")
            self.regularizer = with_settings(R, **of_R)
        if of_encoder:
            from proxsae.encoders.base import encoder_of

            self.encoder = encoder_of(self.encoder).set_params(**of_encoder)
        if of_update:
            from proxsae.dictionary.rules import with_options

            self.update = with_options(self.update, **of_update)
        return self


def _taken_out(parameters: dict[str, Any], whole: str) -> dict[str, Any]:
    """Take the parameters ``whole__name`` out of all, and return them by name."""
    inner = [name for name in parameters if name.startswith(f"{whole}__")]
    return {name.removeprefix(f"{whole}__"): parameters.pop(name) for name in inner}
