"""The interface of the kinds of unrolled encoders. A new kind is one file with one subclass of `Kind`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from proxsae.encoders.codes import Codes
from proxsae.encoders.pre_activation import PreActivation, Terms

KINDS: dict[str, type[Kind]] = {}  # by name; a subclass enters itself


@dataclass(frozen=True)
class Past:
    """The values that a layer may use.

    Attributes
    ----------
    target : Tensor of shape (n_samples, n_features)
        x - b.
    atoms : Tensor of shape (n_components, n_features)
        D.
    point : tuple of (number or Tensor, Codes)
        The codes z that the layer starts from, as a sum of codes with factors; empty for z = 0.
    decoded : Tensor of shape (n_samples, n_features)
        z D.
    pre_activation : PreActivation or None
        The pre-activation of the layer before.
    products : dict
        Values that a kind has computed once for all layers.
    """

    target: Tensor
    atoms: Tensor
    point: Terms
    decoded: Tensor
    pre_activation: PreActivation | None
    products: dict[Hashable, Tensor] = field(default_factory=dict)

    @classmethod
    def at_zero(cls, target: Tensor, atoms: Tensor) -> Past:
        """Return what the first layer sees: z = 0."""
        return cls(target, atoms, (), torch.zeros_like(target), None)

    def at(self, points: list[tuple[float | Tensor, Codes, Tensor]], pre_activation: PreActivation) -> Past:
        """Return the past at another point: a sum of codes, with their factors and what they decode to."""
        decoded = sum((factor * part for factor, _, part in points), torch.zeros_like(self.target))
        point = tuple((factor, codes) for factor, codes, _ in points)
        return replace(self, point=point, decoded=decoded, pre_activation=pre_activation)

    @property
    def residual(self) -> Tensor:
        """Return x - b - z D."""
        return self.target - self.decoded

    @torch.no_grad()
    def of_target(self, W: Tensor) -> Tensor:
        """Return (x - b) W^T without graph, for all layers that share W."""
        return self.once(id(W), lambda: self.target @ W.T)

    def once(self, name: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Return the result of a function, computed once for all layers of this pass."""
        if name not in self.products:
            self.products[name] = compute()
        return self.products[name]


class Kind(ABC):
    """The rule by which a layer z -> u -> prox_{tR}(u) computes u from earlier codes and its own parameters."""

    name: ClassVar[str]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        KINDS[cls.name] = cls

    @abstractmethod
    def initial(self, D: Tensor, step: float) -> dict[str, Tensor]:
        """Return the parameters with which the layers are proximal-gradient steps of the given size."""

    @abstractmethod
    def pre_activation(self, own: Mapping[str, Tensor], past: Past) -> PreActivation:
        """Return u."""

    def prox_step(self, own: Mapping[str, Tensor]) -> Tensor:
        """Return t > 0: the parameter "prox_step", unless a kind defines another."""
        return positive(own["prox_step"])


def positive(t: Tensor) -> Tensor:
    """Return the modulus of a learned step, which is never 0."""
    return t.abs().clamp(min=torch.finfo(t.dtype).tiny)
