"""Norms of rows, and rows whose norm is far above the median: left out of a training, or warned of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proxsae.data.rows import Rows

LARGE_RATIO = 10.0  # a row of more than so many times the median norm is worth a warning


def ordinary(rows: Rows, max_norm_ratio: float | None, most: int) -> Rows:
    """Return the rows to train on, and warn of those that dominate squared errors.

    Parameters
    ----------
    rows : Rows
    max_norm_ratio : float or None
        Leave out the rows whose norm exceeds this many times the median; all rows are read once for it. None: none.
    most : int
        How many rows are looked at for the warning.

    Raises
    ------
    ValueError
        If no row would be left, which takes targets: each row is large, or what it is to decode to.
    """
    sample = rows.sample(most) if max_norm_ratio is None else rows.blocks()
    both = [_ratios(rows, sample)] + ([_ratios(rows.targets, sample)] if rows.has_targets else [])
    ratios = np.max(both, axis=0)
    if max_norm_ratio is not None:
        if not len(kept := np.flatnonzero(ratios <= max_norm_ratio)):
            raise ValueError(
                f"max_norm_ratio={max_norm_ratio:g} leaves no row: each, or its target, has a norm of more than "
                f"{max_norm_ratio:g} times the median; the smallest that leaves one is {ratios.min():.3g}"
            )
        return rows.taken(kept)
    if n_large := int((ratios > LARGE_RATIO).sum()):
        told = f"{n_large} of {len(ratios)} rows have a norm of more than {LARGE_RATIO:g} times the median"
        told += f" ({ratios.max():.3g} times at most) and dominate squared errors; max_norm_ratio={LARGE_RATIO:g}"
        warnings.warn(f"{told} leaves them out", stacklevel=7)
    return rows


def row_norms(x: Tensor) -> Tensor:
    """Return the norms of rows in float64, in range where the squares of their entries are not."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1).double()
    least = 1e4 * torch.finfo(x.dtype).tiny ** 0.5  # below, squares lose digits
    if len(rest := torch.nonzero(~((norms > least) & norms.isfinite()))[:, 0]):
        largest = torch.linalg.vector_norm(x[rest], ord=torch.inf, dim=-1, keepdim=True)
        units = torch.where(largest > 0, largest / (2 * torch.frexp(largest)[0]), 1.0)  # powers of two lose no bit
        norms[rest] = units[:, 0].double() * torch.linalg.vector_norm(x[rest] / units, dim=-1).double()
    return norms


def _ratios(rows: Rows, sample: list[Any]) -> Any:
    """Return the norms of rows over their median; zeros where that is zero, or beyond float64."""
    norms = torch.cat([row_norms(rows.read(some, torch.float64, torch.device("cpu"))) for some in sample]).numpy()
    median = float(np.median(norms))
    if rows.weights is not None:
        w = np.concatenate([rows.weights[some] for some in sample])
        low, high = (s * np.quantile(s * norms, 0.5, weights=w, method="inverted_cdf") for s in (1, -1))
        median = float(low + high) / 2  # of an even number of rows the mean of the middle two, as without weights
    return norms / median if 0 < median < np.inf else np.zeros_like(norms)
