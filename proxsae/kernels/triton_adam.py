"""Adam's step on a CUDA device in one pass over a matrix, with rows kept on the unit sphere where asked."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: Tensor,
    learning_rate: Tensor,
    betas: tuple[float, float],
    epsilon: float,
    on_sphere: bool,
) -> None:
    r"""Move the rows of a matrix, in place, by :math:`-\eta\,\hat m / (\sqrt{\hat v} + \epsilon)`.

    Parameters
    ----------
    parameter, gradient, mean, square : Tensor of shape (p, d)
        Tensors of one dtype; the last two are the running means m of g and v of g squared. All but the gradient are
        contiguous and updated in place.
    step : Tensor of shape ()
        The number of this step, from 1, on the device.
    learning_rate : Tensor of shape ()
        eta, on the device.
    on_sphere : bool
        The rows have unit norm: the radial part of the gradient is left out, and the norm restored after the step.

    Raises
    ------
    ValueError
        If a tensor that is updated in place is not contiguous row by row.
    """
    if not all(tensor.is_contiguous() for tensor in (parameter, mean, square)):
        raise ValueError(f"a matrix and its moments must be contiguous, got strides {parameter.stride()}")
    p, d = parameter.shape
    block = max(16, triton.next_power_of_2(d))
    _adam_rows[(p,)](
        parameter,
        gradient.contiguous(),
        mean,
        square,
        step,
        d,
        learning_rate,
        *betas,
        epsilon,
        SPHERE=on_sphere,
        BLOCK=block,
        num_warps=min(16, max(1, block // 256)),
    )


@triton.jit
def _adam_rows(
    parameter,
    gradient,
    mean,
    square,
    step,
    d,
    learning_rate,
    beta,
    beta_square,
    epsilon,
    SPHERE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    at = row * d + c
    p = tl.load(parameter + at, mask=c < d, other=0.0)
    g = tl.load(gradient + at, mask=c < d, other=0.0)
    m = tl.load(mean + at, mask=c < d, other=0.0)
    v = tl.load(square + at, mask=c < d, other=0.0)
    n = tl.load(step)
    rate = tl.load(learning_rate) / (1.0 - tl.exp2(n * tl.log2(beta)))
    correction = tl.rsqrt(1.0 - tl.exp2(n * tl.log2(beta_square)))
    if SPHERE:
        g -= tl.sum(g * p) * p
    m += (1.0 - beta) * (g - m)
    v = beta_square * v + (1.0 - beta_square) * g * g
    p -= rate * m / (tl.sqrt(v) * correction + epsilon)
    if SPHERE:
        p = p / tl.sqrt(tl.sum(p * p))
    tl.store(parameter + at, p, mask=c < d)
    tl.store(mean + at, m, mask=c < d)
    tl.store(square + at, v, mask=c < d)
