"""A dictionary shared out to several processes: each encodes, selects, decodes and learns with the atoms of its shard.

A loss sees the whole dictionary: the reconstruction and R(z) are summed over the shards, so that all processes compute
the same loss, and the gradient of each shard follows from it without further communication.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from proxsae.encoders import Amortized, Codes, Encoder, Encoding
from proxsae.encoders.activation import Activation
from proxsae.encoders.pre_activation import PreActivation
from proxsae.encoders.thresholds import initial_thresholds
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import Rule, row_support
from proxsae.regularizers import Cardinality, Regularizer
from proxsae.regularizers.cardinality import separable_part
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.distributed import mesh
from proxsae.training.settings import Settings
from proxsae.training.state import TrainingState

AXES = {"atoms": 0, "unused_for": 0, "encoder.weight": 0, "encoder.bias": 0, "encoder.threshold": -1}
DRAWN = 2**20  # numbers at a time, a multiple of the 16 that the generator draws together


def axis_of(name: str) -> int | None:
    """Return which axis of an entry of ``TrainingState.state_dict`` runs over the atoms; None: all shards have it."""
    parameter, _, moment = name.removeprefix("adam.").rpartition(".")
    return AXES.get(parameter if moment in ("exp_avg", "exp_avg_sq") else name)


def check_shardable(settings: Settings, *, is_new: bool, is_fine_tuned: bool) -> None:
    """Raise ValueError where a fit needs the whole dictionary in one process, or it has no equal parts."""
    R, n_shards = settings.regularizer, mesh().atoms.size
    reasons = [
        (type(settings.encoder) is not Amortized, f'{settings.encoder!r} does: take encoder="amortized"'),
        (separable_part(R) is None, f"{R} does: take a sum over atoms, with or without a Cardinality"),
        (settings.loss is not None, f"the loss {settings.loss} does"),
        (not is_new, "partial_fit does: call fit"),
        (is_fine_tuned, "an init that is fitted does: give its components_, or resume a checkpoint"),
    ]
    for holds, reason in reasons:
        if holds:
            raise ValueError(f"{n_shards} shards cannot train what needs all atoms in one process, and {reason}")
    if settings.n_components % n_shards:
        raise ValueError(f"{settings.n_components} atoms cannot be shared out evenly among {n_shards} shards")


# --- the start and the end --------------------------------------------------------------------------------------------


def random_atoms(n_components: int, n_features: int, generator: torch.Generator, part: slice) -> Tensor:
    """Return a part of the rows of ``torch.randn(n_components, n_features)`` in float64, without the whole of it.

    Torch draws 16 numbers together, and draws the last 16 again where the total is no multiple of 16.
    """
    total, first, last = n_components * n_features, part.start * n_features, part.stop * n_features
    kept, begin = [], 0
    while begin < total:
        n = total - begin if total - begin < 2 * DRAWN else DRAWN
        drawn = torch.randn(n, generator=generator, dtype=torch.float64)
        kept.append(drawn[max(first - begin, 0) : max(last - begin, 0)].clone())
        begin += n
    return torch.cat(kept).reshape(-1, n_features)


def shard_of(state: TrainingState) -> TrainingState:
    """Return the shard that this process takes of the state of a whole training."""
    entries = state.state_dict()
    for name, value in entries.items():
        if (axis := axis_of(name)) is not None:
            part = mesh().atoms.part(value.shape[axis])
            entries[name] = value.narrow(axis, part.start, part.stop - part.start)
    return state_of(entries)


def state_of(entries: Mapping[str, Any]) -> TrainingState:
    """Return the training with these entries; where there are several shards, the shard of this process."""
    if not mesh().is_sharded:
        return TrainingState.from_state_dict(entries)
    return TrainingState.from_state_dict(entries, {Amortized.name: ShardedAmortized})


def gathered_model(model: Autoencoder) -> Autoencoder | None:
    """Return the autoencoder of all shards in the first process, None in the others; without shards, `model`."""
    present, shard = mesh(), model.encoder
    if not isinstance(shard, ShardedAmortized):
        return model
    if present.rows.rank:
        return None
    names = {name: AXES[f"encoder.{name}"] for name in shard.tensors()}
    tensors = {name: present.atoms.gathered(shard.tensors()[name], axis) for name, axis in names.items()}
    atoms = present.atoms.gathered(model.atoms.detach(), 0)
    if atoms is None:
        return None
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    encoder = Amortized.from_tensors(shard.regularizer, given, **shard.get_params())
    beside = [None if part is None else part.detach().cpu() for part in (model.bias, model.skip)]
    return Autoencoder(encoder, atoms, *beside, is_transcoder=model.is_transcoder, blocks=model.blocks)  # type: ignore[arg-type]


# --- a step -----------------------------------------------------------------------------------------------------------


class Summed(torch.autograd.Function):
    """The sum over the shards. All processes compute the same loss from it: its gradient is that of each summand."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        """Return the sum."""
        return mesh().atoms.summed(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        """Return the gradient of the summand of this process."""
        return gradients[0]


class ShardCodes(Codes):
    """The codes of the atoms of a shard; `decode` returns the sum over all shards."""

    def decode(self, atoms: Tensor) -> Tensor:
        """Return Z D of shape (n_samples, n_features), given the atoms of the shard."""
        result: Tensor = Summed.apply(super().decode(atoms))  # type: ignore[no-untyped-call]
        return result

    @property
    def l0(self) -> Tensor:
        """The number of non-zeros of each sample."""
        return mesh().atoms.summed(super().l0)


def among_all(pattern: Pattern, ranks: Tensor, k: int) -> Pattern:
    """Return the entries of this shard among the k of largest rank in each row of all shards; ties to the lowest atom.

    Each shard sends its own k entries of largest rank, since no other entry can be selected. The candidates stand in
    the order of the atoms, so that ties are decided as in a selection from the whole row.

    Parameters
    ----------
    pattern : Pattern
        The k entries of largest rank of each row of this shard, or fewer.
    ranks : Tensor
        The rank of each entry.
    """
    width = min(k, pattern.n_columns)  # the same for all
    places = torch.arange(len(ranks), device=ranks.device) - pattern.offsets[pattern.rows]
    own = ranks.new_zeros(pattern.n_rows, width)
    own[pattern.rows, places] = ranks
    candidates = torch.cat(mesh().atoms.each(own), dim=1)
    chosen = Pattern(*row_support(candidates, k, 1.0), n_columns=candidates.shape[1])
    first = width * mesh().atoms.rank
    is_own = (chosen.indices >= first) & (chosen.indices < first + width) & (chosen.gather(candidates) > 0)
    rows = chosen.rows[is_own]
    entries = pattern.offsets[rows] + chosen.indices[is_own] - first
    counts = torch.bincount(rows, minlength=pattern.n_rows)
    return Pattern.of_counts(counts, pattern.indices[entries], pattern.n_columns)


def largest_of_all(u: Tensor, k: int, mirror: float) -> tuple[Tensor, Tensor]:
    """Return the pattern, in this shard, of the k entries of largest rank in each row of all shards."""
    pattern = Pattern(*row_support(u, k, mirror), n_columns=u.shape[1])
    entries = pattern.gather(u)
    chosen = among_all(pattern, torch.maximum(entries, mirror * entries), k)
    return chosen.offsets, chosen.indices


class ShardActivation(Activation):
    """The prox of R at the atoms of a shard, with a selection among the atoms of all shards."""

    def support_rule(self, p: int, dtype: torch.dtype, step: Any, margin: float = 0.0) -> Rule:
        """Return the rule that gives the pattern of u where codes may be non-zero, thresholds lower by a margin."""
        of_shard, R = super().support_rule(p, dtype, step, margin), self.regularizer
        if not isinstance(R, Cardinality):
            return of_shard

        def of_all(u: Tensor) -> tuple[Tensor, Tensor]:
            pattern = Pattern(*of_shard(u), n_columns=p)
            entries, mirror = R.at(pattern.indices).ranked(pattern.gather(u), float(step))
            chosen = among_all(pattern, torch.maximum(entries, mirror * entries), R.k)
            return chosen.offsets, chosen.indices

        return of_all

    def _mean_cost(self) -> Tensor:
        """Return the mean cost over the atoms of all shards, which have equally many."""
        return mesh().atoms.summed(super()._mean_cost()) / mesh().atoms.size

    def encoding(self, pre: PreActivation, step: Any = 1.0) -> Encoding:
        """Return the codes of the shard and the penalty of all."""
        of_shard = super().encoding(pre, step)
        codes = ShardCodes(of_shard.codes.pattern, of_shard.codes.values)
        penalty = Summed.apply(of_shard.penalty)  # type: ignore[no-untyped-call]
        return replace(of_shard, codes=codes, penalty=penalty, largest=largest_of_all)


class ShardedAmortized(Amortized):
    """The rows of an amortized encoder that belong to the atoms of a shard; its R is that of all atoms."""

    @property
    def activation(self) -> ShardActivation:
        """The prox of R at these atoms, as it is now."""
        return ShardActivation(_at_shard(self), self.threshold, self.bandwidth, self.training)

    def initial(self, R: Regularizer, atoms: Tensor, *, learn_thresholds: bool) -> Self:
        """Return the encoder of a shard with its atoms as W, and b_e = 0."""
        started = self.of(R, atoms.clone(), torch.zeros_like(atoms[:, 0]), **self.get_params())
        thresholds = initial_thresholds(_at_shard(started), atoms) if learn_thresholds else None
        started.threshold = None if thresholds is None else torch.nn.Parameter(thresholds)
        return started

    @torch.no_grad()
    def l0_by_weight(self, x: Tensor) -> Callable[[float], Tensor]:
        """Return the L0 of the code of each row of x as a function of a factor on the weight of R."""
        of_shard = super().l0_by_weight(x)
        return lambda factor: mesh().atoms.summed(of_shard(factor))


def _at_shard(encoder: ShardedAmortized) -> Regularizer:
    """Return R at the atoms of the shard of an encoder."""
    R, n = encoder.regularizer, len(encoder.weight)
    part = separable_part(R)
    assert part is not None
    rank = mesh().atoms.rank
    at_shard = part.at(slice(rank * n, (rank + 1) * n))
    return R.replace(partner=at_shard) if isinstance(R, Cardinality) else at_shard


def sharded(encoder: Encoder) -> Encoder:
    """Return an unfitted encoder as one of shards where there are several."""
    return ShardedAmortized(**encoder.get_params()) if mesh().is_sharded else encoder
