r"""What splicing a sparse autoencoder into a language model costs it; each metric is defined here and nowhere else.

Let H be the cross-entropy of the model's next-token predictions in nats per token, over every prediction within a
context: of the model as it is (clean), with x replaced by :math:`\hat x` (spliced), and with x replaced by 0 (zero):

- ``loss_recovered`` :math:`= (H_{zero} - H_{spliced}) / (H_{zero} - H_{clean})`: 1 is perfect, 0 is no better than 0;
- ``kl`` :math:`= \mathrm{KL}(p_{clean} \,\|\, p_{spliced})`, its mean over the same predictions, in nats.

All sums are kept in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def loss_metrics(clean: float, spliced: float, zero: float, kl: float, n_predictions: int) -> dict[str, float]:
    """Return the cross-entropies, loss_recovered and kl from sums; nan where there is nothing to recover."""
    return {
        "cross_entropy_clean": clean / n_predictions,
        "cross_entropy_spliced": spliced / n_predictions,
        "cross_entropy_zero": zero / n_predictions,
        "loss_recovered": (zero - spliced) / (zero - clean) if zero != clean else float("nan"),
        "kl": kl / n_predictions,
    }


def cross_entropy_sum(log_probabilities: Tensor, targets: Tensor, is_target: Tensor) -> float:
    """Return the sum of -log p(target) over the predictions asked for, in nats.

    `log_probabilities` has shape (batch, length, n_vocabulary); `targets` and `is_target` have shape (batch, length).
    """
    picked = log_probabilities.gather(-1, targets[..., None])[..., 0]
    return -float(picked[is_target].double().sum())


def kl_sum(clean: Tensor, spliced: Tensor, is_target: Tensor) -> float:
    """Return the sum of KL(p_clean || p_spliced) over the predictions asked for, from log probabilities, in nats."""
    total = 0.0
    # a context at a time, since the terms are as many as the logits
    for log_p, log_q, wanted in zip(clean, spliced, is_target, strict=True):
        divergence = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        total += float(divergence[wanted].double().sum())
    return total
