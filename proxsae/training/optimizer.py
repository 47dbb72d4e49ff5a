"""Adam along the unit spheres of the atoms: one pass over each matrix on CUDA, Torch's operations elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from proxsae.kernels.dispatch import on_cuda
from proxsae.kernels.memory import rows_at_once
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.blocks import FeatureBlocks


def adam(model: Autoencoder) -> torch.optim.Adam:
    r"""Return the optimizer of a model; :func:`move` sets its step size.

    The squared gradients of matrices are averaged over about 20 steps, since few samples move a row, and other samples
    once the rows around it have learned. Those of thresholds, biases and steps are averaged over 1,000 steps.

    The bias of an encoder is of the size of codes, while an entry of a row of W, which has about unit norm, is
    :math:`\sqrt{d}` times smaller for d features. The steps of the bias are therefore :math:`\sqrt{d}` times as long,
    except where R is scale-free, as a cardinality is: there the bias has no threshold to make up for.
    """
    matrices: list[Tensor] = []
    biases: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim > 1 and not name.endswith("threshold")
        (matrices if is_matrix else biases if name == "encoder.bias" else others).append(parameter)
    n_features = model.encoder.weight.shape[1] if biases and not model.encoder.regularizer.is_scale_free else 1
    groups: list[dict[str, Any]] = [
        {"params": matrices, "betas": (0.9, 0.95), "pace": 1.0, "is_of_matrices": True},
        {"params": biases, "pace": n_features**0.5, "is_of_matrices": False},
        {"params": others, "pace": 1.0, "is_of_matrices": False},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], fused=True)


@torch.no_grad()
def move(optimizer: torch.optim.Adam, atoms: Tensor, rate: float | Tensor, blocks: FeatureBlocks) -> None:
    """Do a step of size `rate`; the rows of `atoms` keep unit norm, and the radial part of their gradient is left out.

    With several blocks of features the norm is :meth:`proxsae.training.FeatureBlocks.norm`.

    The step overwrites the gradients. On a device the rate is a tensor there.
    """
    for group in optimizer.param_groups:
        group["lr"], group["capturable"] = group["pace"] * rate, atoms.is_cuda
        if group["is_of_matrices"] and on_cuda(atoms) and atoms.dtype == torch.float32:
            fused = (p for p in group["params"] if p is not atoms or len(blocks.sizes) == 1)
            for matrix in (p for p in fused if p.ndim == 2 and p.grad is not None):  # no stack, one matrix a layer
                _move_matrix(optimizer, matrix, rate, group, on_sphere=matrix is atoms)
    if atoms.grad is None:
        optimizer.step()
    else:
        size = rows_at_once(atoms)
        for gradient, part in zip(torch.split(atoms.grad, size), torch.split(atoms.detach(), size), strict=True):
            radial = (gradient * part).sum(1, keepdim=True)
            gradient.addcmul_(radial, blocks.slope(part), value=-1)
        optimizer.step()
        atoms.div_(blocks.norm(atoms))
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def moved_in_backward(
    optimizer: torch.optim.Adam, atoms: Tensor, rate: float | Tensor, blocks: FeatureBlocks
) -> Iterator[None]:
    """Do the step of :func:`move` within a backward pass, each parameter as soon as its gradient is whole.

    One gradient is then in memory at a time. This is for tensors in main memory and trainings by one process, where no
    gradient has to be summed over processes.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda _: move(optimizer, atoms, rate, blocks)) for p in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _move_matrix(
    optimizer: torch.optim.Adam, matrix: Tensor, rate: float | Tensor, group: dict[str, object], *, on_sphere: bool
) -> None:
    """Move one matrix by the Triton kernel, with the moments where Torch's own step would keep them."""
    from proxsae.kernels.triton_adam import adam_step

    moments = optimizer.state[matrix]
    if not moments:
        moments["step"] = torch.zeros((), dtype=torch.float32, device=matrix.device)
        moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(matrix), torch.zeros_like(matrix)
    moments["step"] += 1
    adam_step(
        matrix,
        matrix.grad,  # type: ignore[arg-type]
        moments["exp_avg"],
        moments["exp_avg_sq"],
        step=moments["step"],
        learning_rate=torch.as_tensor(rate, dtype=torch.float32, device=matrix.device),
        betas=group["betas"],  # type: ignore[arg-type]
        epsilon=group["eps"],  # type: ignore[arg-type]
        on_sphere=on_sphere,
    )
    matrix.grad = None
