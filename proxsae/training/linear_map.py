"""The best linear map from inputs to targets: what a transcoder starts from, and what it has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from proxsae.data.rows import Rows
from proxsae.training.scaling import MAX_ROWS, Scaling

RIDGE = 1e-6  # of the mean squared singular value, where inputs are linearly dependent


def linear_map(rows: Rows, inputs: Scaling, targets: Scaling) -> Tensor:
    r"""Return A of shape (n_features, n_targets) that minimises :math:`\sum w \|y - x A\|^2` over normalised rows.

    The sum is over evenly spaced rows, in float64, with a ridge so small that it matters for linearly dependent inputs
    alone.
    """
    dtype, device = inputs.mean.dtype, inputs.mean.device
    n_features, n_targets = rows.shape[1], rows.targets.shape[1]
    gram = torch.zeros(n_features, n_features, dtype=torch.float64, device=device)
    cross = torch.zeros(n_features, n_targets, dtype=torch.float64, device=device)
    for block in rows.sample(MAX_ROWS):
        x = inputs.normalised(rows.read(block, dtype, device)).double()
        y = targets.normalised(rows.targets.read(block, dtype, device)).double()
        w = rows.weights_of(block, torch.float64, device)
        weighted = x if w is None else w[:, None] * x
        gram += weighted.T @ x
        cross += weighted.T @ y
    ridge = RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    gram.diagonal().add_(ridge)
    A: Tensor = torch.linalg.solve(gram, cross)
    return A.to(dtype).contiguous()  # as a file holds it: products round by the order of the numbers in memory
