"""The units of the training: data centred, unless b is to be 0, with mean norm sqrt(n_features)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.data.large_rows import row_norms
from proxsae.data.rows import Rows
from proxsae.formulas.arrays import name_of_dtype, to_numpy
from proxsae.regularizers import Regularizer

MAX_ROWS = 131_072  # looked at for the mean and the scale


@dataclass(frozen=True)
class Scaling:
    """x = scale x' + mean.

    Attributes
    ----------
    mean : Tensor of shape (n_features,)
    scale : float
    """

    mean: Tensor
    scale: float

    @classmethod
    def of(
        cls,
        rows: Rows,
        dtype: torch.dtype,
        device: torch.device,
        columns: slice = slice(None),
        *,
        is_centred: bool = True,
    ) -> Scaling:
        """Return the scaling that gives evenly spaced rows, or some columns, mean 0 and mean norm sqrt(n_columns).

        Rows are read block by block and summed in float64. Without `is_centred` nothing is subtracted.

        Raises
        ------
        ValueError
            If the scale is so large or small that numbers of the dtype could not be rescaled by it.
        """
        blocks = rows.sample(MAX_ROWS)
        weights = [rows.weights_of(block, torch.float64, device) for block in blocks]
        n_rows = sum(len(block) if w is None else float(w.sum()) for block, w in zip(blocks, weights, strict=True))
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)[columns]
        for block, w in zip(blocks, weights, strict=True):
            total += _sum(rows.read(block, dtype, device)[:, columns], w)
        mean = (total / n_rows if is_centred else torch.zeros_like(total)).to(dtype)
        norms, largest = 0.0, 0.0
        for block, w in zip(blocks, weights, strict=True):
            centred = rows.read(block, dtype, device)[:, columns] - mean
            norms += float(_sum(row_norms(centred), w))
            largest = max(largest, float(centred.abs().max()))
        limits = torch.finfo(dtype)
        if largest <= 4 * limits.eps * float(mean.abs().max()):  # all rows are equal, up to the rounding of their mean
            return cls(rows.read(blocks[0], dtype, device)[0, columns], 1.0)
        scale = norms / n_rows / len(mean) ** 0.5
        least, most = limits.tiny * 1e8, limits.max / 1e8  # room for the entries that are smaller or larger
        if not least < scale < most:
            raise ValueError(
                f"{rows.name} has entries of the order of {scale:.2g} about their mean; "
                f"{name_of_dtype(dtype)} can be rescaled from {least:.2g} to {most:.2g}: multiply "
                f"{rows.name} by a constant"
            )
        return cls(mean, scale)

    def normalised(self, x: Tensor) -> Tensor:
        """Return x' = (x - mean) / scale."""
        return (x - self.mean) / self.scale

    @property
    def inverse(self) -> Scaling:
        """The scaling that leads back: x' = x / scale - mean / scale."""
        return Scaling(-self.mean / self.scale, 1 / self.scale)

    def to(self, device: torch.device) -> Scaling:
        """Return the same scaling on a device."""
        return Scaling(self.mean.to(device), self.scale)

    def check_weights(self, name: str, R: Regularizer, dtype: torch.dtype, is_steered: bool) -> None:
        """Raise ValueError where a weight of R, or a learned threshold, leaves the dtype in the units of the training.

        Parameters
        ----------
        name : str
            The name of the data, for the message.
        R : Regularizer
            In the units of the data.
        is_steered : bool
            Whether the weight is found in the units of the training, and then written in those of the data.
        """
        limits, room = torch.finfo(dtype), 2.0**20
        there, back = R.rescaled(1 / self.scale), R.rescaled(self.scale)
        numbers = [value for term in (*there.terms, *(back.terms if is_steered else ())) for value in _weights(term)]
        numbers += [np.float64(self.scale) ** 2] if R.scope == "batch" else []  # the weight is a gain of batches
        sizes = abs(np.concatenate([np.ravel(number) for number in numbers])) if numbers else np.ones(1)
        if ((sizes > limits.max / room) | ((sizes < limits.tiny * room) & (sizes > 0))).any():
            raise ValueError(
                f"{name} has entries of the order of {self.scale:.1g} about their mean, for which the weight of {R} "
                f"leaves {name_of_dtype(dtype)}: multiply {name} by a constant, or give it in float64"
            )


def _sum(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weighted sum over rows, in float64."""
    return values.sum(0, dtype=torch.float64) if weights is None else weights @ values.double()


def _weights(term: Any) -> list[Any]:
    return [] if term.is_indicator else [to_numpy(term.weight)]
