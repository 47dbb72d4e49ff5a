"""One training step after another: the objective, its gradient, unit atoms, dead atoms, the weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from proxsae.encoders import Codes
from proxsae.encoders.amortized import separable_part
from proxsae.kernels.sparse import LinearAt, Pattern, Product
from proxsae.kernels.top_k import row_support
from proxsae.training.autoencoder import SparseAutoencoder
from proxsae.training.sparsity import WeightControl


class Trainer:
    r"""Minimises the mean over samples of :math:`\frac12 \|x - z D - b\|^2 + R(z)` over W, b_e, D, b by Adam.

    The atoms keep unit norm: the radial part of their gradient is removed before the step, and they are renormalised
    after it. Atoms that no sample has used for `dead_after` samples are trained to reconstruct the residual with their
    `aux_k` largest pre-activations in modulus (AuxK), with weight `aux_weight`.

    Parameters
    ----------
    model : SparseAutoencoder
        In the units of the normalised data (centred, mean norm sqrt(n_features)).
    learning_rate : float
        Peak step size of Adam.
    n_steps : int or None
        Length of the run: the step size rises linearly over the first `warmup` share and falls linearly to zero over
        the last `decay` share. None: constant after 100 steps, for data that keeps coming.
    target_l0 : float or None
        Steer the weight of R to this mean number of non-zeros.
    dead_after : int
        Samples without use after which an atom counts as dead.

    References
    ----------
    Bricken et al. (2023), Towards monosemanticity (unit atoms); Gao et al. (2024), Scaling and evaluating sparse
    autoencoders, arXiv:2406.04093 (AuxK).
    """

    def __init__(
        self,
        model: SparseAutoencoder,
        *,
        learning_rate: float,
        n_steps: int | None,
        target_l0: float | None = None,
        warmup: float = 0.05,
        decay: float = 0.25,
        aux_k: int | None = None,
        aux_weight: float = 1 / 32,
        dead_after: int = 100_000,
    ) -> None:
        self.model = model.train()
        self.learning_rate, self.n_steps, self.warmup, self.decay = learning_rate, n_steps, warmup, decay
        self.aux_k = max(1, model.atoms.shape[1] // 2) if aux_k is None else aux_k
        self.aux_weight, self.dead_after = aux_weight, dead_after
        self.control = None if target_l0 is None else WeightControl(target_l0)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
        self.n_done = 0
        self.unused_for = torch.zeros(len(model.atoms), dtype=torch.int64, device=model.atoms.device)
        self.smallest_gain: float | None = None  # at batch scope: the gain that a code must exceed, as BatchTopK infers

    def step(self, x: Tensor) -> dict[str, float]:
        """Do one step on a batch of normalised samples and return its record.

        Returns
        -------
        dict
            ``loss``, ``fvu`` (residual over centred sum of squares of the batch), ``l0``, ``dead`` (fraction of atoms),
            ``learning_rate``.

        Raises
        ------
        FloatingPointError
            If the loss is NaN or infinite, naming the step.
        """
        model, encoder = self.model, self.model.encoder
        if self.control is not None and self.n_done == 0:
            self.control.meet(encoder, x[:1024])
        with torch.no_grad():
            u = encoder.pre_activation(x)
        codes, penalty = encoder.penalized_codes(x, u)
        residual = x - codes.decode(model.atoms) - model.bias
        squared_error = residual.square().sum() / len(x)
        loss = 0.5 * squared_error + penalty + self._auxiliary_loss(x, u, residual)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.n_done + 1}; try a smaller learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._update()

        l0 = codes.mean_l0
        self.unused_for += len(x)
        self.unused_for[codes.active_atoms] = 0
        if self.control is not None:
            self.control.update(encoder, l0)
        if encoder.regularizer.scope == "batch":
            self._follow_smallest_gain(u, codes)
        self.n_done += 1
        return {
            "loss": loss.item(),
            "fvu": squared_error.item() * len(x) / max(x.square().sum().item(), 1e-30),
            "l0": l0,
            "dead": self.dead.float().mean().item(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, but for the regularizer of the encoder."""
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            state |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        gain = math.nan if self.smallest_gain is None else self.smallest_gain
        numbers = torch.tensor([self.n_done, gain], dtype=torch.float64)
        return state | {"unused_for": self.unused_for, "numbers": numbers}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the training where :meth:`state` was asked for."""
        self.model.load_state_dict({name: state[f"model.{name}"] for name in self.model.state_dict()})
        for name, parameter in self.model.named_parameters():
            keys = [key for key in state if key.startswith(f"adam.{name}.")]
            self.optimizer.state[parameter] = {
                key.rsplit(".", 1)[1]: state[key].clone().to(parameter.device) for key in keys
            }
        self.unused_for = state["unused_for"].clone().to(self.unused_for.device)
        n_done, gain = state["numbers"].tolist()
        self.n_done, self.smallest_gain = int(n_done), None if math.isnan(gain) else gain

    @property
    def dead(self) -> Tensor:
        """Which atoms no sample has used for `dead_after` samples."""
        return self.unused_for >= self.dead_after

    def _update(self) -> None:
        """Do an Adam step along the unit spheres of the atoms."""
        atoms = self.model.atoms
        with torch.no_grad():
            assert atoms.grad is not None
            atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self._schedule()
        self.optimizer.step()
        with torch.no_grad():
            atoms.div_(torch.linalg.vector_norm(atoms, dim=1, keepdim=True))

    def _schedule(self) -> float:
        step = self.n_done + 1
        if self.n_steps is None:
            return min(1.0, step / 100)
        rise = step / max(1.0, self.warmup * self.n_steps)
        fall = (self.n_steps - step + 1) / max(1.0, self.decay * self.n_steps)
        return min(1.0, rise, max(fall, 0.0))

    def _auxiliary_loss(self, x: Tensor, u: Tensor, residual: Tensor) -> Tensor:
        """Return the AuxK loss: half the squared error of the residual reconstructed by dead atoms alone."""
        dead = self.dead.nonzero()[:, 0]
        if not len(dead) or not self.aux_weight:
            return residual.new_zeros(())
        encoder = self.model.encoder
        mirror = 1.0 if encoder.regularizer.is_nonnegative else -1.0
        offsets, indices = row_support(u[:, dead], self.aux_k, mirror)
        pattern = Pattern(offsets, dead[indices], len(encoder.bias))
        values = LinearAt.apply(pattern, pattern.gather(u), x, encoder.weight, encoder.bias)  # type: ignore[no-untyped-call]
        explained: Tensor = Product.apply(pattern, values, self.model.atoms)  # type: ignore[no-untyped-call]
        unexplained = residual.detach() - explained
        return self.aux_weight * 0.5 * unexplained.square().sum() / len(x)

    @torch.no_grad()
    def _follow_smallest_gain(self, u: Tensor, codes: Codes) -> None:
        part = separable_part(self.model.encoder.regularizer)
        if part is None or not len(codes.values):
            return
        gains: Any = part.at(codes.pattern.indices).gains(codes.pattern.gather(u))
        smallest = float(gains.min())
        previous = smallest if self.smallest_gain is None else self.smallest_gain
        self.smallest_gain = 0.9 * previous + 0.1 * smallest
